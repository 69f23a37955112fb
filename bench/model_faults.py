"""What the doctor finds in models that are wrong.

    python bench/model_faults.py --output bench/results/model-faults.json
    python bench/model_faults.py --further --output bench/results/model-faults-further.json

Every fault of ``tests/faults/model_faults.py`` is planted in a small model, and all checks are run on it: is
it found at the severity that was written down, and does the first finding name its cause? ``--further`` takes
those of ``tests/faults/further_model_faults.py``, which were written down before any of them was tried.

Exit code 1 if a fault is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.doctor.model_checks import SLOW
from ttsfast.errors import InputError
from ttsfast.models.checks.check import ModelCheck
from ttsfast.models.checks.contract import check_model
from ttsfast.models.checks.run import FAST, run_model_checks

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "faults"))
from further_model_faults import FURTHER
from model_faults import FAULTS, VOICE, ModelFault, faulty, trial_of

SECONDS = 600.0
"""Of each check: whether a machine that others use keeps to the usual limits is not the question here."""


def look(chosen: ModelFault, checks: Sequence[ModelCheck]) -> dict[str, Any]:
    """What is said of one planted fault."""
    make, training = faulty(chosen)
    unfinished: Sequence[str] = ()
    with pytest.MonkeyPatch.context() as patch:
        chosen.patch(patch)
        trial = trial_of(make, training)
        try:
            check_model(trial.model, VOICE, trial.config)
        except InputError as error:
            said = [("contract", "error", str(error))]
        else:
            checked = run_model_checks(trial, checks)
            unfinished = checked.unfinished
            said = [(found.check, found.severity, found.what) for found in checked.findings]
    right = [one for one in said if one[:2] == (chosen.check, chosen.severity) and chosen.cause in one[2]]
    return {
        "severity": chosen.severity,
        "check": chosen.check,
        "found": bool(right),
        "cause_first": bool(right) and said[0] == right[0],
        "said": [f"{severity}: {check}: {what}" for check, severity, what in said[:3]],
        "unfinished": list(unfinished),
    }


def main() -> None:
    """Look at everything, print and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--further", action="store_true", help="faults that no check was chosen on")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    began, machine = time.perf_counter(), describe(torch.device("cpu"))
    slow = {check.name: check for check in SLOW}
    for check in (*FAST, *SLOW):
        check.seconds = SECONDS
    faults = {}
    for name, chosen in (FURTHER if arguments.further else FAULTS).items():
        # What takes steps of training is asked where it is to answer; all else always.
        asked = (*FAST, *([slow[chosen.check]] if chosen.check in slow else []))
        faults[name] = look(chosen, asked)
        print(name, faults[name], file=sys.stderr, flush=True)
    found, first = (sum(one[key] for one in faults.values()) for key in ("found", "cause_first"))
    record = {
        "machine": machine,
        "planted": len(faults),
        "found": found,
        "cause_first": first,
        "faults": faults,
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_record(arguments.output, record)
    print(json.dumps(record, indent=1, ensure_ascii=False))
    sys.exit(found < len(faults))


if __name__ == "__main__":
    main()
