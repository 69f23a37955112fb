"""Levels of a curve, and the steps at which they are over."""

from __future__ import annotations

import numpy as np
import pytest

from ttsfast.doctor.run.curve import PARTS, Curve


@pytest.mark.parametrize("points", [1, 5, 16, 17, 21, 32, 1000])
def test_a_level_is_over_where_the_next_one_begins(points: int) -> None:
    steps = 10 * np.arange(points)
    curve = Curve(steps, np.arange(points, dtype=float))
    count = len(curve.levels())
    assert count == min(PARTS, points)
    for level in range(count - 1):
        over = curve.after(level)
        before, behind = curve.values[steps < over], curve.values[steps >= over]
        # Every value is its own step, so that medians say which points a level is of.
        assert before.max() >= curve.levels()[level]
        assert behind.min() <= curve.levels()[level + 1]
        assert before.max() < curve.levels()[level + 1]
    assert curve.after(count - 1) <= steps[-1]
