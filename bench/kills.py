"""Kill training runs at random moments and see that each resumes to the bits of a run that was never stopped.

    python bench/kills.py --kills 100 --output bench/results/kills.json

Every run trains a tiny ConvTTS on a CPU, with everything on that has state: accumulation, dropout, mel
noise, adaptive weights, a moving average of the weights, plateau reduction, early stopping. A thread inside
it sends SIGKILL or SIGTERM to its own process at a random moment of a random step, validation or checkpoint.
The run is then resumed in another process, and its checkpoints, its log and the pointer to its best one are
compared with those of the run that was left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.config import Config, config_from_dict
from ttsfast.data.corpus.audio import write_wav
from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.data.store.store import Store
from ttsfast.errors import PREEMPTED_EXIT_CODE, Preempted
from ttsfast.evaluation.log import read_log
from ttsfast.models.checkpoint import best_checkpoint, checkpoints, load_checkpoint
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.convtts_config import ConvTTSConfig
from ttsfast.training import resume, trainer, validation
from ttsfast.training.telemetry.log import RunTelemetry, Telemetry

PHASES = ("step", "validation", "checkpoint")
STEPS, VALIDATIONS, CHECKPOINTS = 24, 4, 6
COUNTS = {"step": STEPS, "validation": VALIDATIONS, "checkpoint": CHECKPOINTS}
OF_THE_CLOCK = ("frames_per_second", "loader_wait_percent", "percent_", "memory_gib")
SAMPLE_RATE = 22050
PRELOADED = [
    "ttsfast.training.trainer",
    "ttsfast.models.convtts",
    "ttsfast.data.prepare.prepare",
    "torch._dynamo",
]
"""What children need not import again, which takes longer than a run."""


@dataclass(frozen=True)
class Kill:
    """Where a run is to be killed: ``share`` of the usual duration into the ``number``-th ``phase``."""

    phase: str
    number: int
    share: float
    signal: int


def make_store(folder: Path) -> Path:
    """Tones whose length follows their text, prepared."""
    (folder / "corpus" / "wavs").mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines = []
    for number in range(24):
        words = " ".join(generator.choice(["ab", "cd", "e"], size=2 + number % 5))
        times = np.arange(int((0.15 + 0.02 * len(words)) * SAMPLE_RATE)) / SAMPLE_RATE
        wave = 0.3 * np.sin(2 * np.pi * (200 + 30 * number) * times)
        wave += 0.01 * generator.normal(size=times.size)
        write_wav(folder / "corpus" / "wavs" / f"u{number:02d}.wav", wave.astype(np.float32), SAMPLE_RATE)
        lines.append(f"u{number:02d}|{words} {number}|{words} {number}\n")
    (folder / "corpus" / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    prepare(folder / "corpus", folder / "store", PrepareOptions(validation_fraction=0.25, jobs=1))
    return folder / "store"


def configuration(store: Path, run: Path) -> Config:
    """A short run with everything on that has resume."""
    return config_from_dict(
        {
            "training": {
                "run_folder": str(run),
                "max_steps": STEPS,
                "warmup_steps": 4,
                "restart_period": 5,
                "learning_rate": 5e-3,
                "gradient_accumulation_steps": 2,
                "mel_smoothing": "noise",
                "ema_decay": 0.9,
                "lr_reduction_patience": 1,
                "early_stopping_min_delta": 0.005,
                "early_stopping_restore_best_weights": False,
                "val_step": STEPS // VALIDATIONS,
                "save_step": STEPS // CHECKPOINTS,
                "val_utterances": 2,
                "keep_checkpoints": 2,
                "log_step": 3,
                "convergence_window": 32,
                "device": "cpu",
            },
            "data": {"store": str(store), "batch_size": 4, "num_workers": 1},
        }
    )


def train(store: Path, run: Path, kill: Kill | None, usual: dict[str, float], told: Any) -> None:
    """In a process of its own: train, or go on training, until done or killed."""
    # One thread stays one, whatever else the machine does: bits depend on it.
    torch.set_num_threads(1)
    # Pictures and bars take longer than all the rest.
    validation._show = lambda *_: None
    Telemetry.say = RunTelemetry.status = lambda self, text: None  # type: ignore[method-assign]
    config = configuration(store, run)
    torch.manual_seed(1)
    shape = ConvTTSConfig(
        channels=8,
        text_dilations=(1, 3),
        mel_dilations=(1, 3),
        decoder_dilations=(1, 1),
        latent_dim=4,
        dropout=0.1,
    )
    model = ConvTTS(shape, n_symbols=len(Store.open(store).symbols), n_mels=80)
    watch = Watcher(kill, usual, told)
    trainer.Trainer.train_step = watch.over("step", trainer.Trainer.train_step)  # type: ignore[method-assign]
    trainer.validate_model = watch.over("validation", trainer.validate_model)
    resume.save_checkpoint = watch.over("checkpoint", resume.save_checkpoint)
    try:
        with trainer.Trainer(config, model=model, resume=True) as running:
            running.fit()
    except Preempted:
        sys.exit(PREEMPTED_EXIT_CODE)
    for place, phase in enumerate(PHASES):
        told[2 + place] = watch.seconds[phase] / max(1, watch.counts[phase])


class Watcher:
    """Counts the phases of a run, times them, tells which one it is in, and lets the chosen one be killed."""

    def __init__(self, kill: Kill | None, usual: dict[str, float], told: Any) -> None:
        self.kill, self.usual, self.told = kill, usual, told
        self.counts: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def over(self, phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, watched."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            kill = self.kill
            if kill is not None and (kill.phase, kill.number) == (phase, self.counts[phase]):
                delay = kill.share * self.usual[phase]
                threading.Thread(target=self._strike, args=(delay, kill.signal), daemon=True).start()
            self.counts[phase] += 1
            outer, began = self.told[0], time.perf_counter()
            self.told[0] = 1 + PHASES.index(phase)
            try:
                return work(*args, **kwargs)
            finally:
                self.told[0] = outer
                self.seconds[phase] += time.perf_counter() - began

        return watched

    def _strike(self, delay: float, number: int) -> None:
        time.sleep(delay)
        self.told[1] = self.told[0]
        os.kill(os.getpid(), number)


def run_in_child(store: Path, run: Path, kill: Kill | None, usual: dict[str, float]) -> tuple[int, str, dict]:
    """Train in a child; return its exit code, where it was struck, and how long each phase took."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # The phase it is in, the phase in which it was struck, and how long each phase takes.
    told = context.Array("d", [0.0] * (2 + len(PHASES)), lock=False)
    child = context.Process(target=train, args=(store, run, kill, usual, told))
    child.start()
    child.join()
    where = ("pause between phases", *PHASES)[int(told[1])]
    return child.exitcode or 0, where, dict(zip(PHASES, told[2:], strict=True))


def fingerprints(run: Path) -> dict[str, str]:
    """Hashes of all that a run leaves behind, times and paths apart."""
    last, best = checkpoints(run)[-1], best_checkpoint(run)
    found = {"last": last.name, "best": "none" if best is None else best.name}
    for name, path in (("last", last), ("best", best)):
        if path is None:
            continue
        checkpoint = load_checkpoint(path)
        for part in ("weights", "training"):
            digest = hashlib.sha256()
            for key, value in sorted(getattr(checkpoint, part).items()):
                digest.update(key.encode() + value.contiguous().numpy().tobytes())
            found[f"{name} {part}"] = digest.hexdigest()
        kept = {key: value for key, value in checkpoint.state.items() if key not in ("config", "files")}
        for part, value in (("state", kept), ("voice", checkpoint.voice)):
            found[f"{name} {part}"] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    rows = [{k: v for k, v in row.items() if not k.startswith(OF_THE_CLOCK)} for row in read_log(run)]
    found["log"] = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return found


def plan(kills: int, seed: int) -> list[Kill]:
    """Signals and phases in equal parts, moments at random."""
    draw = random.Random(seed)
    chosen = []
    for number in range(kills):
        phase = PHASES[number % len(PHASES)]
        which = (signal.SIGKILL, signal.SIGTERM)[number // len(PHASES) % 2]
        # The last of each is left out: a signal that comes after the run's end kills nothing.
        chosen.append(Kill(phase, draw.randrange(COUNTS[phase] - 1), draw.random(), which))
    return chosen


def exercise(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill and resume ``kills`` runs; the record of it."""
    store = make_store(folder)
    code, _, usual = run_in_child(store, folder / "whole", None, {})
    if code:
        raise RuntimeError(f"the run without a kill ended with code {code}")
    expected = fingerprints(folder / "whole")
    outcomes: Counter[str] = Counter()
    exact, missed, faults = 0, 0, []
    for number, kill in enumerate(plan(kills, seed)):
        run = folder / f"run-{number}"
        code, where, _ = run_in_child(store, run, kill, usual)
        name = signal.Signals(kill.signal).name
        if code not in (-kill.signal, PREEMPTED_EXIT_CODE):
            missed += 1
        outcomes[f"{name} in a {where}, exit code {code}"] += 1
        code, _, _ = run_in_child(store, run, None, usual)
        found = fingerprints(run) if code == 0 else {"exit code": str(code)}
        differing = sorted(key for key in expected | found if expected.get(key) != found.get(key))
        if differing:
            faults.append({"kill": number, **vars(kill), "differing": differing})
        exact += not differing
        print(f"{number + 1}/{kills} {name} in a {where}: {differing or 'exact'}", flush=True)
    return {
        "kills": kills,
        "exact_resumes": exact,
        "signals_that_missed": missed,
        "outcomes": dict(sorted(outcomes.items())),
        "faults": faults,
        "seed": seed,
        "usual_seconds": {phase: round(seconds, 4) for phase, seconds in usual.items()},
    }


def main() -> None:
    """The command line; exit code 1 where a resume was not exact."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = exercise(options.kills, options.seed, Path(folder))
    record["machine"] = describe(torch.device("cpu"))
    print(json.dumps(record, indent=1))
    write_record(options.output, record)
    if record["exact_resumes"] != options.kills:
        sys.exit(1)


if __name__ == "__main__":
    main()
