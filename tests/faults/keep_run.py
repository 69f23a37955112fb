"""Keep the log of a run beside the tests, for faults to be planted in.

    python tests/faults/keep_run.py runs/voice NAME --every 5 [--store STORE]

writes ``tests/faults/recorded/NAME.npz``, as ``recorded_runs.recorded`` reads it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from recorded_runs import RECORDED

from ttsfast.config import config_from_dict
from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.reading import read_run

PLACES = ("training.run_folder", "data.store")
"""What tells of a machine, and not of a run."""
LEFT_OUT = ("memory", "threads", "smoothed_loss", "loader_wait", "percent_", "gradient_ratio", "convergence")
"""Beginnings of figures that no check reads; but ``percent_data`` is read."""


def arrays(kind: str, curves: dict[str, Curve], every: int) -> dict[str, Any]:
    """Figures over steps as (figure, line), the steps first, NaN where a line has none."""
    steps = sorted({int(step) for curve in curves.values() for step in curve.steps})[every - 1 :: every]
    lines = [np.array(steps, dtype=np.float32)]
    for curve in curves.values():
        values = dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))
        lines.append(np.array([values.get(step, np.nan) for step in steps], dtype=np.float32))
    return {f"{kind}_names": json.dumps(["step", *curves]), kind: np.stack(lines)}


def main() -> None:
    """Read the run and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--every", type=int, default=1, help="lines of training: one of so many")
    parser.add_argument("--store", type=Path, help="where the run's store is now")
    arguments = parser.parse_args()
    run = read_run(arguments.run, store=arguments.store).run
    assert run.config is not None
    assert run.corpus is not None
    usual = config_from_dict({}).to_dict()
    config = {
        key: value
        for section, values in run.config.to_dict().items()
        if isinstance(values, dict)
        for name, value in values.items()
        if (key := f"{section}.{name}") not in PLACES and value != usual[section][name]
    }
    training = {
        name: curve
        for name, curve in run.training.items()
        if name == "percent_data" or not name.startswith(LEFT_OUT)
    }
    np.savez_compressed(
        RECORDED / f"{arguments.name}.npz",
        **arrays("train", training, arguments.every),
        **arrays("validation", dict(run.held_out), 1),
        config=json.dumps(config),
        corpus=json.dumps(asdict(run.corpus)),
    )


if __name__ == "__main__":
    main()
