"""Frames per second of the trainer beside a plain PyTorch loop: the same model, corpus, batch size, optimiser
and machine, turns taken in one run."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ttsfast.benchmarks import machine
from ttsfast.benchmarks.data_corpus import like_speech, make_store
from ttsfast.benchmarks.npy_files import NpyFiles, usual_collate
from ttsfast.benchmarks.plain_loop import PlainLoop, composite, forward, usual_batches
from ttsfast.config import Config, load_config
from ttsfast.devices import torch_threads
from ttsfast.training.setup import forever, tail_steps
from ttsfast.training.trainer import Trainer

TOLERANCE = 1e-5
"""Relative difference of the two losses on one batch, above which no speed is reported."""


def run(
    *,
    utterances: int = 320,
    batch_size: int = 16,
    steps: int = 12,
    rounds: int = 8,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure in turns of ``steps`` updates each, after one turn of warm-up.

    The plain loop has ``DataLoader`` with no, one and two workers; each count has its own turns.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.
    """
    with torch_threads(threads), tempfile.TemporaryDirectory() as folder:
        return _run(Path(folder), utterances, batch_size, steps, rounds, progress)


def _run(
    folder: Path,
    utterances: int,
    batch_size: int,
    steps: int,
    rounds: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    progress(f"{utterances} utterances")
    seconds = like_speech(utterances)
    make_store(folder, seconds)
    config = config_of(folder, batch_size, steps * (rounds + 1))
    with Trainer(config) as trainer:
        trainer.model.train()
        plain, difference = plain_loops(trainer, folder / "npy")

        batches = forever(trainer.loader)

        def ours() -> int:
            taken = list(islice(batches, 1))
            trainer.train_step(taken)
            return taken[0].frames

        turns: dict[str, Callable[[], int]] = {"trainer": ours}
        turns |= {f"plain, {workers} workers": loop.step for workers, loop in plain.items()}
        speeds: dict[str, list[float]] = {name: [] for name in turns}
        waited, passed = 0.0, 0.0
        for i in range(-1, rounds):
            progress(f"round {i + 1} of {rounds}")
            for name, step in turns.items():
                waits, begin = trainer.loader.wait_seconds, time.perf_counter()
                frames = sum(step() for _ in range(steps))
                spent = time.perf_counter() - begin
                if i >= 0:
                    speeds[name].append(frames / spent)
                    if name == "trainer":
                        waited, passed = waited + trainer.loader.wait_seconds - waits, passed + spent
        parameters = sum(p.numel() for p in trainer.model.parameters())
    rows = {name: {"frames_per_second": median(found)} for name, found in speeds.items()}
    best = max(row["frames_per_second"] for name, row in rows.items() if name != "trainer")
    return {
        "machine": machine.describe(torch.device("cpu")),
        "corpus": {"utterances": utterances, "seconds": float(seconds.sum())},
        "model": {"size": config.model.size, "parameters": parameters},
        "batch_size": batch_size,
        "steps": steps,
        "rounds": rounds,
        "loss_difference": difference,
        "loader_wait_percent": 100 * waited / passed,
        "loops": rows,
        "over_best_plain_loop": rows["trainer"]["frames_per_second"] / best,
    }


def config_of(folder: Path, batch_size: int, max_steps: int) -> Config:
    """Of the preset ``convtts``, for the store in ``folder`` and a run beside it."""
    return load_config(
        preset="convtts",
        overrides=[
            f"data.store={folder / 'store'}",
            f"training.run_folder={folder / 'run'}",
            f"data.batch_size={batch_size}",
            f"training.max_steps={max_steps}",
            "training.warmup_steps=1",
        ],
    )


def plain_loops(
    trainer: Trainer, folder: Path, workers: Sequence[int] = (0, 1, 2)
) -> tuple[dict[int, PlainLoop], float]:
    """A loop for each number of workers, and how far its loss is from the trainer's on one batch.

    Raises:
        RuntimeError: further than :data:`TOLERANCE`.
    """
    config, store = trainer.config, trainer.store
    files = NpyFiles(folder, store, store.indices("train"))
    # Its adaptive factors are still 1.
    fresh = copy.deepcopy(trainer.loss).train()
    collate = partial(
        usual_collate,
        pad_value=np.asarray(store.silence, dtype=np.float32),
        frame_multiple=config.data.pad_to_multiple,
        tail_frames=tail_steps(config, trainer.reduction_factor) * trainer.reduction_factor,
    )
    training = config.training

    def plain_loop(count: int) -> PlainLoop:
        model = copy.deepcopy(trainer.model)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=training.learning_rate,
            betas=(training.beta1, training.beta2),
            eps=training.eps,
            weight_decay=training.weight_decay,
        )
        batches = usual_batches(files, collate, batch_size=config.data.batch_size, workers=count)
        clip = training.gradient_clip_norm
        return PlainLoop(model, copy.deepcopy(trainer.loss), batches, clip=clip, optimizer=optimizer)

    loops = {count: plain_loop(count) for count in workers}
    batch = collate([files[i] for i in range(4)])
    with torch.no_grad():
        output = forward(copy.deepcopy(trainer.model).eval(), batch)
        ours = fresh(
            output.mel,
            batch.mel,
            batch.mel_lengths,
            stop_logits=output.stop_logits,
            step_lengths=output.step_lengths,
            posterior=output.posterior,
            attention=output.attention,
            text_lengths=batch.text_lengths,
        ).total
        theirs = composite(fresh, output, batch)
    difference = float((ours - theirs).abs() / ours.abs())
    if difference > TOLERANCE:
        raise RuntimeError(f"the losses of the two loops differ by {difference:.2g}: no speed is reported")
    return loops, difference


def table(result: dict[str, Any]) -> str:
    """The figures in columns."""
    lines = [
        f"ConvTTS {result['model']['size']}, {result['model']['parameters']:,} parameters, batches of "
        f"{result['batch_size']}, corpus of {result['corpus']['seconds'] / 60:.0f} minutes",
        f"  {'loop':<22}{'frames/s':>12}{'x':>8}",
    ]
    ours = result["loops"]["trainer"]["frames_per_second"]
    lines += [
        f"  {name:<22}{row['frames_per_second']:>12,.0f}{row['frames_per_second'] / ours:>8.2f}"
        for name, row in result["loops"].items()
    ]
    lines.append(
        f"trainer over the best plain loop: {result['over_best_plain_loop']:.2f}; it waited for data "
        f"{result['loader_wait_percent']:.2f}% of its time"
    )
    lines.append(machine.summary(result["machine"]))
    return "\n".join(lines)
