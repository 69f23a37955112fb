"""How long a run took to align, and to be understood: from the figures of its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from ttsfast.benchmarks.convergence.boundaries import FIGURE as BOUNDARY_FIGURE

AXES = ("seconds", "processor_seconds", "step")
"""What training is counted in: wall-clock, processor time of all threads, optimiser steps."""

ALIGNMENT = "alignment"
"""The goal that only a model with attention has."""
ALIGNED = {"diagonal_mass": 0.9, "coverage": 0.98}
"""What an aligned model reaches, and holds."""
BOUNDARIES, BOUNDARY_ERROR = "boundaries 35 ms", 35.0
"""Words begin so near the truth, in the mean: half as far from it as of a straight diagonal, in the demo."""
HELD = 3
"""Evaluations in a row."""
MARGIN = 0.05
"""Above the untrained model's own figures: an attention that is diagonal by its making has learnt nothing."""
WORD_ERRORS = (0.40, 0.30, 0.20, 0.15)
ABOVE_COPIES = (0.25, 0.15, 0.10, 0.05)
"""Over the word error of the recordings' own mels through the same vocoder; for synthetic speech, which no
recogniser hears as it hears people."""

Row = Mapping[str, float]
"""One evaluated checkpoint: :data:`AXES`, and figures by name; what could not be measured is absent."""


@dataclass(frozen=True)
class Reached:
    """When a run came to a goal, or how long it went without."""

    at: Mapping[str, float]
    """By :data:`AXES`; where it did not come there, a lower bound: of its last evaluation, or of the
    first of the last ones that met the goal, which it may have gone on to hold."""
    cut_off: bool
    """It did not come there."""


def time_to(rows: Sequence[Row], goal: Callable[[Row], bool], held: int = 1) -> Reached:
    """The first evaluation from which on ``goal`` was met ``held`` times in a row.

    Args:
        rows: of one run, by rising step; at least one.
        goal: of one row.
        held: how often it must be met; a run that ends earlier was cut off.
    """
    met = [goal(row) for row in rows]
    for first in range(len(rows) - held + 1):
        if all(met[first : first + held]):
            return Reached({axis: rows[first][axis] for axis in AXES}, cut_off=False)
    earliest = len(rows) - 1
    while earliest and met[earliest] and met[earliest - 1]:
        earliest -= 1
    return Reached({axis: rows[earliest][axis] for axis in AXES}, cut_off=True)


def headlines(rows: Sequence[Row], words: Mapping[str, float] | None = None) -> dict[str, Reached]:
    """The times of one run, by the names of their goals.

    Args:
        rows: by rising step, the first of the untrained model (step 0).
        words: of :func:`word_goals`, those that words were heard for.

    Raises:
        ValueError: the untrained model was not measured.
    """
    if not rows or rows[0]["step"] != 0:
        raise ValueError("the first row must be of the untrained model, at step 0")
    untrained = rows[0]

    def aligned(row: Row) -> bool:
        return all(
            row.get(name, 0.0) >= max(least, untrained.get(name, 0.0) + MARGIN)
            for name, least in ALIGNED.items()
        )

    times = {}
    # A model of durations covers its text untrained: it has no attention that could come to be aligned.
    room = all(untrained.get(name, 0.0) + MARGIN <= 1 for name in ALIGNED)
    if room and any("diagonal_mass" in row for row in rows):
        times[ALIGNMENT] = time_to(rows, aligned, HELD)
    if any(BOUNDARY_FIGURE in row for row in rows):
        times[BOUNDARIES] = time_to(rows, lambda row: row.get(BOUNDARY_FIGURE, inf) <= BOUNDARY_ERROR, HELD)
    for name, most in (words or {}).items():
        times[name] = time_to(rows, lambda row, most=most: understood(row, most))  # type: ignore[misc]
    return times


def word_goals(copies: float) -> dict[str, float]:
    """The word error of each goal, where that of copy synthesis is ``copies``."""
    goals = {f"words {most:.0%}": most for most in WORD_ERRORS}
    return goals | {f"copies + {100 * more:.0f}": copies + more for more in ABOVE_COPIES}


def understood(row: Row, most: float) -> bool:
    """Whether words were heard at that checkpoint, and no more than that share of them wrong."""
    # A word error of 0.3 may be the quotient of two whole numbers that is one bit above it.
    return row.get("word_error", inf) <= most + 1e-9


def first_understood(understood_at: Callable[[int], bool], checkpoints: int) -> int | None:
    """A checkpoint that is understood while the one before it is not, found by bisection.

    Listening takes longer than training between two checkpoints, and word error falls with few exceptions:
    where it falls steadily, this is the first one. None where neither the last one is understood nor one of
    the two before it, as single checkpoints scatter.

    Args:
        understood_at: of a checkpoint's number; asked as seldom as can be.
        checkpoints: how many there are; number 0 is of the untrained model, and not understood.
    """
    last = checkpoints - 1
    met = next((number for number in range(last, max(0, last - 3), -1) if understood_at(number)), None)
    if met is None:
        return None
    unmet = 0
    while met - unmet > 1:
        middle = (met + unmet) // 2
        if understood_at(middle):
            met = middle
        else:
            unmet = middle
    return met
