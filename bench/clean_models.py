"""What the doctor says of models that are right, and how long it takes.

    python bench/clean_models.py --output bench/results/clean-models.json

ConvTTS, ParallelTTS and the two of ``examples/``, small and with five seeds each, are looked at by all
checks: no error may be found, and at most two warnings. Those that training begins with are among them, and
counted apart. And how long all checks take on both built-in models of size nano, and those before training.

Exit code 1 if there is a false alarm, or a check came to no end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.config import preset_values
from ttsfast.doctor.model import ModelOptions, model_trial
from ttsfast.doctor.model_checks import SLOW
from ttsfast.models.checks.check import ModelCheck
from ttsfast.models.checks.run import BEFORE_TRAINING, FAST, run_model_checks
from ttsfast.models.checks.trial import Trial

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "faults"))
from model_faults import CLEAN, trial_of

SECONDS = 600.0
"""Of each check: whether a machine that others use keeps to the usual limits is not the question here."""
WARNINGS = 2
"""That a clean model may have, if they are true."""
_WEIGHTS = {key: value for key, value in preset_values("ttsfast")["training"].items() if "_loss_" in key}
NANO: dict[str, tuple[str, ...]] = {
    "convtts": (),
    "paralleltts": tuple(f"training.{key}={value}" for key, value in _WEIGHTS.items()),
}
"""Built-in models, and the settings that each needs."""


def clean(name: str, seed: int) -> dict[str, Any]:
    """What is said of a model without a fault."""
    make, training = CLEAN[name]
    trial = trial_of(make, {**training, "seed": seed})
    torch.manual_seed(seed)
    # Files of ONNX are made of the built-in sizes alone.
    checks = [check for check in (*FAST, *SLOW) if check.name != "export"]
    checked = run_model_checks(replace(trial, model=make()), checks)
    first = {check.name for check in BEFORE_TRAINING}
    return {
        "model": name,
        "seed": seed,
        "said": [f"{f.severity}: {f.check}: {f.what}" for f in checked.findings],
        "before_training": [f"{f.severity}: {f.check}" for f in checked.findings if f.check in first],
        "unfinished": list(checked.unfinished),
    }


def timed(trial: Trial, checks: Sequence[ModelCheck]) -> dict[str, Any]:
    """What is said, and in how long. Others may use the machine: the processor's time says how long it takes
    where nobody does, if one thread works."""
    wall, processor = time.perf_counter(), time.process_time()
    checked = run_model_checks(trial, checks)
    return {
        "said": [f"{f.severity}: {f.check}: {f.what}" for f in checked.findings],
        "unfinished": list(checked.unfinished),
        "seconds": round(time.perf_counter() - wall, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
    }


def main() -> None:
    """Look at everything, print and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    began, machine = time.perf_counter(), describe(torch.device("cpu"))
    for check in (*FAST, *SLOW):
        check.seconds = SECONDS
    nano = {}
    for name, settings in NANO.items():
        trial = model_trial(name, ModelOptions(settings=["model.size=nano", *settings]))
        nano[name] = {
            "before_training": timed(replace(trial, half=None), BEFORE_TRAINING),
            "all": timed(trial, (*FAST, *SLOW)),
        }
        print(name, nano[name], file=sys.stderr, flush=True)
    models = []
    for name in CLEAN:
        for seed in range(arguments.seeds):
            models.append(clean(name, seed))
            print(models[-1], file=sys.stderr, flush=True)
    said = [
        *(one["said"] for one in models),
        *(part["said"] for one in nano.values() for part in one.values()),
    ]
    errors = sum(line.startswith("error") for lines in said for line in lines)
    warnings = max(sum(line.startswith("warning") for line in lines) for lines in said)
    unfinished = sum(len(one["unfinished"]) for one in models)
    record = {
        "machine": machine,
        "clean_models": len(models),
        "errors": errors,
        "most_warnings_of_a_model": warnings,
        "unfinished": unfinished,
        "threads": torch.get_num_threads(),
        "nano": nano,
        "clean": models,
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_record(arguments.output, record)
    print(json.dumps(record, indent=1, ensure_ascii=False))
    sys.exit(bool(errors or warnings > WARNINGS or unfinished))


if __name__ == "__main__":
    main()
