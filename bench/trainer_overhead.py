"""Where a training step's time goes for ``nano`` on this machine, and what the trainer itself takes of it.

    python bench/trainer_overhead.py --output bench/results/trainer-overhead.json

The trainer's own clock tells: data, forward, loss, backward and optimiser are what any loop does; ``trainer``
is everything else: the gradient norm for clipping (any loop has it too), the guards, records, ratios, logs
and reports. Validation and checkpoints are no part of a step and are left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ttsfast.benchmarks.data_corpus import like_speech, write_corpus
from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.config import load_config
from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.evaluation.log import read_log
from ttsfast.training import gradients, step, trainer
from ttsfast.training.telemetry.timing import PHASES


def measure(folder: Path, *, windows: int, log_step: int, batch_size: int) -> dict[str, Any]:
    """Train ``windows`` log windows after one of warm-up; medians of each phase's share in percent."""
    write_corpus(folder / "corpus", like_speech(160))
    prepare(folder / "corpus", folder / "store", PrepareOptions(jobs=1))
    steps = (windows + 1) * log_step
    overrides = {
        "training.run_folder": folder / "run",
        "training.max_steps": steps,
        "training.log_step": log_step,
        "training.val_step": 10 * steps,
        "training.save_step": 10 * steps,
        "training.val_utterances": 1,
        "data.store": folder / "store",
        "data.batch_size": batch_size,
        "model.size": "nano",
    }
    config = load_config(overrides=[f"{key}={value}" for key, value in overrides.items()], preset="convtts")
    clipping = Stopwatch()
    for name in ("gradient_norm", "gradient_divisor"):
        setattr(step, name, clipping.over(getattr(gradients, name)))
    with trainer.Trainer(config) as running:
        began = time.perf_counter()
        running.fit()
        seconds = time.perf_counter() - began
    rows = [row for row in read_log(folder / "run") if row["kind"] == "train"][1:]
    shares = {phase: round(median(row[f"percent_{phase}"] for row in rows), 3) for phase in PHASES}
    return {
        "percent": shares,
        "percent_trainer_of_each_window": [round(row["percent_trainer"], 3) for row in rows],
        "percent_clipping_within_trainer": round(100 * clipping.seconds / seconds, 3),
        "frames_per_second": round(median(row["frames_per_second"] for row in rows)),
        "windows": len(rows),
        "log_step": log_step,
        "batch_size": batch_size,
    }


class Stopwatch:
    """Adds up the time of the calls that it watches."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, work: Any) -> Any:
        """``work``, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--log-step", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = measure(
            Path(folder), windows=options.windows, log_step=options.log_step, batch_size=options.batch_size
        )
    record["machine"] = describe(torch.device("cpu"))
    print(json.dumps(record, indent=1))
    write_record(options.output, record)


if __name__ == "__main__":
    main()
