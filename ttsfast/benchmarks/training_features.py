"""The trainer with each of its features on and off: two trainers that differ in nothing else, in turns."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ttsfast.benchmarks import machine
from ttsfast.benchmarks.data_corpus import about_the_middle, make_store
from ttsfast.config import TrainingConfig, load_config
from ttsfast.data.loading.loader import MelLoader
from ttsfast.devices import multiplies_in_bf16, torch_threads
from ttsfast.errors import InputError
from ttsfast.training import trainer as trainers
from ttsfast.training.optimizers import Optimizers
from ttsfast.training.precision import set_up_arithmetic
from ttsfast.training.setup import padding_of

TOLERANCE = 0.02
"""Relative difference of the first step's loss, on and off, above which no speed is reported; bf16 rounds to
three digits, and a feature that computes something else is further off."""

MOST_TURNS_TO_WARM = 40
"""Turns taken before any is measured, while graphs are still being recorded."""


class Looped(Optimizers):
    """AdamW as a loop over tensors, a flag read on the host at every step: what fusing saves."""

    @staticmethod
    def _adam(config: TrainingConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        fused = Optimizers._adam(config, parameters)
        return torch.optim.AdamW(
            [
                {"params": group["params"], "weight_decay": group["weight_decay"]}
                for group in fused.param_groups
            ],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            foreach=False,
        )

    def step(self, skip: Tensor, divisor: Tensor) -> None:
        if not bool(skip):
            torch._foreach_div_([p.grad for p in self.parameters if p.grad is not None], divisor)
            for optimizer in self.torch_optimizers.values():
                optimizer.step()


GPU, TILES = "a GPU", "a GPU, or a CPU with AMX"
OFF_DEVICE = {"data.corpus_on_device": "never"}


@dataclass(frozen=True)
class Feature:
    """One row: what differs between on and off."""

    name: str
    off: str
    """What stands in its place."""
    on_keys: dict[str, Any] = field(default_factory=dict)
    off_keys: dict[str, Any] = field(default_factory=dict)
    needs: str = ""
    """Without which there is nothing to compare."""
    off_optimizers: type[Optimizers] = Optimizers
    off_loader: str = "auto"


# What says most comes first, what takes longest to set up last.
FEATURES = (
    Feature("cuda_graphs", "kernel by kernel", {"training.cuda_graphs": True}, needs=GPU),
    Feature("loss", "plain torch", {}, {"training.loss_backend": "torch"}),
    Feature(
        "bf16",
        "fp32, on a GPU in TF32",
        {"data.mixed_precision": True, "training.amp_dtype": "bf16"},
        {"data.mixed_precision": False},
        needs=TILES,
    ),
    Feature("fused", "an optimiser's loop over tensors", off_optimizers=Looped),
    Feature(
        "corpus_on_device",
        "copied batch by batch",
        {"data.corpus_on_device": "always"},
        OFF_DEVICE,
        needs=GPU,
    ),
    Feature(
        "prefetch", "copied when needed", OFF_DEVICE, {**OFF_DEVICE, "data.prefetch_to_gpu": False}, needs=GPU
    ),
    Feature("loader", "in Python", OFF_DEVICE, OFF_DEVICE, off_loader="python"),
    Feature(
        "tf32",
        "fp32",
        {"data.mixed_precision": False},
        {"data.mixed_precision": False, "training.tf32": False},
        needs=GPU,
    ),
    Feature("compile", "as it is", {"training.compile": True}),
    Feature(
        "compile+cuda_graphs",
        "neither",
        {"training.compile": True, "training.cuda_graphs": True},
        needs=GPU,
    ),
)
NAMES = tuple(feature.name for feature in FEATURES)


def run(
    names: Sequence[str] = NAMES,
    *,
    device: torch.device,
    size: str = "nano",
    utterances: int = 320,
    batch_size: int = 16,
    steps: int = 12,
    rounds: int = 8,
    threads: int | None = None,
    seconds: float = float("inf"),
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure each feature in turns of ``steps`` updates, on and off one after the other.

    Args:
        names: of :data:`FEATURES`.
        device: where; what the device lacks is listed as not measured.
        size: of ConvTTS.
        utterances: of noise of 1 to 8 seconds.
        batch_size: utterances per update.
        steps: updates per turn.
        rounds: turns of each; every other one begins with the other side.
        threads: of torch; as they are when None.
        seconds: no feature is begun later than this.
        progress: told what is being done.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.

    Raises:
        InputError: an unknown name.
        RuntimeError: a feature changes the loss, so that its speed means nothing.
    """
    for name in names:
        if name not in NAMES:
            raise InputError(f"--features {name}: there are {', '.join(NAMES)}, or all")
    began = time.perf_counter()
    rows: dict[str, Any] = {}
    with torch_threads(threads), tempfile.TemporaryDirectory() as folder:
        progress(f"{utterances} utterances")
        store = make_store(Path(folder), about_the_middle(utterances, (1.0, 8.0)))
        for feature in FEATURES:
            if feature.name not in names:
                continue
            if not _is_there(feature.needs, device):
                rows[feature.name] = {"off_means": feature.off, "not_measured": f"needs {feature.needs}"}
            elif time.perf_counter() - began > seconds:
                rows[feature.name] = {"off_means": feature.off, "not_measured": "no time left"}
            else:
                progress(f"{feature.name}, on and off")
                base = {
                    "data.store": store.path,
                    "data.batch_size": batch_size,
                    "model.size": size,
                    "training.device": device.type,
                    "data.mixed_precision": device.type == "cuda",
                    # What is steep is not to be told of.
                    "training.gradient_norm_threshold": 1e9,
                }
                rows[feature.name] = _pair(feature, base, Path(folder), steps, rounds)
    return {
        "machine": machine.describe(device),
        "model": size,
        "batch_size": batch_size,
        "steps": steps,
        "rounds": rounds,
        "features": rows,
    }


def _is_there(needed: str, device: torch.device) -> bool:
    return not needed or device.type == "cuda" or (needed == TILES and multiplies_in_bf16())


def _pair(feature: Feature, base: dict[str, Any], folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    with ExitStack() as stack:
        sides = {
            side: stack.enter_context(_open(feature, on, base, folder))
            for side, on in (("on", True), ("off", False))
        }
        turns = {side: _Turns(trainer, steps) for side, trainer in sides.items()}
        first = {side: turn.first_loss() for side, turn in turns.items()}
        difference = abs(first["on"] - first["off"]) / abs(first["off"])
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"{feature.name}: the first loss is {first['on']:.5g} with it and {first['off']:.5g} "
                "without: no speed is reported"
            )
        for turn in turns.values():
            turn.warm()
        speeds: dict[str, list[float]] = {side: [] for side in turns}
        ratios: dict[tuple[str, ...], list[float]] = {}
        for order in itertools.islice(itertools.cycle((("on", "off"), ("off", "on"))), rounds):
            for side in order:
                speeds[side].append(turns[side].take_compiled())
            ratios.setdefault(order, []).append(speeds["on"][-1] / speeds["off"][-1])
        memory = {}
        if base["training.device"] == "cuda":
            memory = {"peak_gib_of_both": torch.cuda.max_memory_allocated() / 2**30}
            torch.cuda.reset_peak_memory_stats()
        counters = sides["on"].forward_backward.figures()
        if "programs" in counters:
            counters["first_step_seconds"] = turns["on"].first_seconds
    on, off = (median(speeds[side]) for side in ("on", "off"))
    return {
        "off_means": feature.off,
        "on_frames_per_second": on,
        "off_frames_per_second": off,
        # Who comes first meets the sizes of a round's batches for the first time, and the library prepares
        # for them: several percent, which the two orders take off each other.
        "on_over_off": geometric_mean(map(median, ratios.values())),
        "loss_difference": difference,
        **memory,
        **counters,
    }


def _open(feature: Feature, on: bool, base: dict[str, Any], folder: Path) -> trainers.Trainer:
    keys = {**base, **(feature.on_keys if on else feature.off_keys)}
    keys["training.run_folder"] = folder / f"{feature.name} {on}"
    config = load_config(preset="convtts", overrides=[f"{key}={_yaml(value)}" for key, value in keys.items()])
    kind = Optimizers if on else feature.off_optimizers
    with mock.patch.object(trainers, "Optimizers", kind):
        trainer = trainers.Trainer(config)
    if not on and feature.off_loader != "auto":
        loader = trainer.loader
        assert isinstance(loader, MelLoader)
        loader.close()
        trainer.loader = MelLoader(
            trainer.store,
            loader.plan,
            num_workers=config.data.num_workers,
            pin_memory=config.data.pin_memory,
            device=trainer.device if trainer.device.type == "cuda" else None,
            backend=feature.off_loader,
            **padding_of(config, trainer.reduction_factor),
        )
    return trainer


def _yaml(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


class _Turns:
    """Steps of one trainer."""

    def __init__(self, trainer: trainers.Trainer, steps: int) -> None:
        self._trainer, self._steps = trainer, steps
        # Torch keeps it per process, and the other trainer may want another.
        self._arithmetic = partial(set_up_arithmetic, trainer.config.training, trainer.device)
        self._batches = itertools.chain.from_iterable(itertools.repeat(trainer.loader))
        self.first_seconds = 0.0
        """What the first step took, compilation included."""

    def first_loss(self) -> float:
        """Take one step; its total loss."""
        torch.manual_seed(0)
        began = time.perf_counter()
        self._take(1)
        self.first_seconds = time.perf_counter() - began
        self._trainer.monitor.read()
        return self._trainer.monitor.rows[-1]["total"]

    def warm(self) -> None:
        """Take turns until nothing is recorded or compiled any more."""
        before = None
        for _ in range(MOST_TURNS_TO_WARM):
            self.take_compiled()
            counted = self._trainer.forward_backward.figures().get("plain_passes")
            if counted == before:
                break
            before = counted

    def take_compiled(self) -> float:
        """Frames per second of the first turn in which nothing is compiled."""
        while True:
            before = self._programs()
            speed = self.take()
            if self._programs() == before:
                return speed

    def _programs(self) -> float:
        return self._trainer.forward_backward.figures().get("programs", 0)

    def take(self) -> float:
        """Frames per second of one turn."""
        began = time.perf_counter()
        frames = self._take(self._steps)
        machine.synchronize(self._trainer.device)
        spent = time.perf_counter() - began
        # As a log point does, outside of what is measured.
        self._trainer.monitor.read()
        self._trainer.clock.start()
        return frames / spent

    def _take(self, steps: int) -> int:
        self._arithmetic()
        frames = 0
        for batch in islice(self._batches, steps):
            self._trainer.train_step([batch])
            frames += batch.frames
        return frames


def table(result: dict[str, Any]) -> str:
    """The figures in columns."""
    lines = [
        f"ConvTTS {result['model']}, batches of {result['batch_size']}, frames/s",
        f"  {'feature':<22}{'on':>12}{'off':>12}{'on/off':>8}  off means",
    ]
    for name, row in result["features"].items():
        if "not_measured" in row:
            lines.append(f"  {name:<22}{row['not_measured']:>32}  {row['off_means']}")
            continue
        lines.append(
            f"  {name:<22}{row['on_frames_per_second']:>12,.0f}{row['off_frames_per_second']:>12,.0f}"
            f"{row['on_over_off']:>8.2f}  {row['off_means']}"
        )
    lines += [
        f"{name}: programs compiled: {row['programs']}; first step: {row['first_step_seconds']:.0f} s; "
        "no turn counts in which one was compiled"
        for name, row in result["features"].items()
        if "programs" in row
    ]
    lines.append(machine.summary(result["machine"]))
    return "\n".join(lines)
