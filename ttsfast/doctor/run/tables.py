"""Tables of figures, a row for each logged step: Lightning's ``metrics.csv`` and others like it."""

from __future__ import annotations

import csv
from pathlib import Path

from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.names import STEPS
from ttsfast.errors import InputError

LARGEST = 256 << 20
"""Bytes."""
MOST_COLUMNS = 4000


def read_table(path: Path) -> dict[str, Curve]:
    """Columns over steps, by name; cells without a number are left out.

    Raises:
        InputError: it cannot be read as a table, has no column of steps, or is too large.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: larger than {LARGEST >> 20} MiB; give a part of it")
        with path.open(encoding="utf-8-sig", newline="") as handle:
            head = handle.readline()
            if not head.strip():
                raise InputError(f"{path}: empty; give a table with a header and a row for each logged step")
            handle.seek(0)
            delimiter = max(",\t;", key=head.count)
            rows = csv.reader(handle, delimiter=delimiter)
            names = [name.strip() for name in next(rows)]
            points: list[list[tuple[int, float]]] = [[] for _ in names[:MOST_COLUMNS]]
            at = _steps(path, names)
            for row in rows:
                if len(row) <= at or (step := _number(row[at])) is None:
                    continue
                for place, cell in enumerate(row[: len(points)]):
                    if place != at and (value := _number(cell)) is not None:
                        points[place].append((int(step), value))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from error
    return {name: Curve.of(found) for name, found in zip(names, points, strict=False) if found}


def _steps(path: Path, names: list[str]) -> int:
    lower = [name.lower() for name in names]
    for name in STEPS:
        if name in lower:
            return lower.index(name)
    raise InputError(f"{path}: has no column of steps; call one of its columns {' or '.join(STEPS[:3])}")


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
