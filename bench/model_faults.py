"""What the doctor finds in models that are wrong, and says of models that are right.

    python bench/model_faults.py --output bench/results/model-faults.json

Every fault of ``tests/faults/model_faults.py`` is planted in a small model, and all checks are run on it: is
it found at the severity that was written down, and does the first finding name its cause? Clean models,
ConvTTS and the examples, are looked at with five seeds each: no error may be found, and warnings are listed.
Last, how long all checks take on ConvTTS nano, and those that training begins with.

Exit code 1 if a fault is missed, or an error is found in a clean model.
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

import pytest
import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.doctor.model import ModelOptions, model_trial
from ttsfast.doctor.model_checks import SLOW
from ttsfast.errors import InputError
from ttsfast.files import atomic_write
from ttsfast.models.checks.check import ModelCheck
from ttsfast.models.checks.contract import check_model
from ttsfast.models.checks.run import BEFORE_TRAINING, FAST, ModelChecked, run_model_checks

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "faults"))
from model_faults import CLEAN, FAULTS, VOICE, ModelFault, faulty, trial_of

WITHOUT_EXPORT = tuple(check for check in SLOW if check.name != "export")


def look(chosen: ModelFault, checks: Sequence[ModelCheck]) -> dict[str, Any]:
    """What is said of one planted fault."""
    make, training = faulty(chosen)
    with pytest.MonkeyPatch.context() as patch:
        chosen.patch(patch)
        trial = trial_of(make, training)
        try:
            check_model(trial.model, VOICE, trial.config)
        except InputError as error:
            said = [("contract", "error", str(error))]
        else:
            checked = run_model_checks(trial, checks)
            said = [(found.check, found.severity, found.what) for found in checked.findings]
    right = [one for one in said if one[:2] == (chosen.check, chosen.severity) and chosen.cause in one[2]]
    return {
        "severity": chosen.severity,
        "check": chosen.check,
        "found": bool(right),
        "cause_first": bool(right) and said[0] == right[0],
        "said": [f"{severity}: {check}: {what}" for check, severity, what in said[:3]],
    }


def clean(name: str, seed: int) -> dict[str, Any]:
    """What is said of a model without a fault."""
    make, training = CLEAN[name]
    trial = trial_of(make, {**training, "seed": seed})
    torch.manual_seed(seed)
    checked = run_model_checks(replace(trial, model=make()), (*FAST, *WITHOUT_EXPORT))
    said = [f"{f.severity}: {f.check}: {f.what}" for f in checked.findings]
    return {"model": name, "seed": seed, "said": said, "unfinished": list(checked.unfinished)}


def nano() -> dict[str, Any]:
    """Seconds of all checks on ConvTTS nano, and of those before training."""
    trial = model_trial("convtts", ModelOptions(settings=["model.size=nano"]))
    whole: ModelChecked = run_model_checks(trial, (*FAST, *SLOW))
    first = run_model_checks(replace(trial, half=None), BEFORE_TRAINING)
    return {
        "said": [f"{f.severity}: {f.check}: {f.what}" for f in whole.findings],
        "unfinished": list(whole.unfinished),
        "seconds": {name: round(value, 2) for name, value in whole.seconds.items()},
        "seconds_in_all": round(sum(whole.seconds.values()), 1),
        "seconds_before_training": round(sum(first.seconds.values()), 1),
    }


def main() -> None:
    """Look at everything, print and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    began = time.perf_counter()
    slow = {check.name: check for check in WITHOUT_EXPORT}
    faults = {}
    for name, chosen in FAULTS.items():
        # What takes steps of training is asked where it is to answer; all else always.
        asked = (*FAST, *([slow[chosen.check]] if chosen.check in slow else []))
        faults[name] = look(chosen, asked)
        print(name, faults[name], file=sys.stderr, flush=True)
    models = [clean(name, seed) for name in CLEAN for seed in range(arguments.seeds)]
    errors = [one for one in models if any(line.startswith("error") for line in one["said"])]
    found, first = (sum(one[key] for one in faults.values()) for key in ("found", "cause_first"))
    record = {
        "machine": describe(torch.device("cpu")),
        "planted": len(faults),
        "found": found,
        "cause_first": first,
        "clean_models": len(models),
        "errors_in_clean_models": len(errors),
        "most_warnings_in_a_clean_model": max(
            sum(line.startswith("warning") for line in one["said"]) for one in models
        ),
        "nano": nano(),
        "faults": faults,
        "clean": models,
        "seconds": round(time.perf_counter() - began, 1),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    if arguments.output is not None:
        with atomic_write(arguments.output) as handle:
            handle.write(text.encode() + b"\n")
    print(text)
    sys.exit(found < len(faults) or bool(errors))


if __name__ == "__main__":
    main()
