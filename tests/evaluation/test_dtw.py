"""The vectorised warping against the plain recursion, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast.evaluation.dtw import warp


def recursion(cost: np.ndarray) -> tuple[float, int]:
    """The same definition, cell by cell."""
    rows, columns = cost.shape
    best: dict[tuple[int, int], tuple[float, int]] = {(0, 0): (float(cost[0, 0]), 1)}
    for i in range(rows):
        for j in range(columns):
            if (i, j) == (0, 0):
                continue
            ways = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
            known = [best[way] for way in ways if way in best]
            total, cells = min(known, key=lambda entry: entry[0])
            best[i, j] = (total + float(cost[i, j]), cells + 1)
    return best[rows - 1, columns - 1]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1), st.sampled_from([0.5, 3.0, 1000.0]))
def test_equals_the_recursion(rows: int, columns: int, seed: int, scale: float) -> None:
    # Small whole numbers make ties frequent, so the order among equals is tested too.
    cost = np.random.default_rng(seed).integers(0, 4, (rows, columns)) * scale
    path = warp(cost)
    expected_total, expected_cells = recursion(cost)
    assert cost[path].sum() == pytest.approx(expected_total)
    assert len(path[0]) == expected_cells
    cells = np.stack(path, axis=1)
    assert cells[0].tolist() == [0, 0]
    assert cells[-1].tolist() == [rows - 1, columns - 1]
    assert {tuple(step) for step in np.diff(cells, axis=0).tolist()} <= {(1, 1), (1, 0), (0, 1)}


def test_a_known_path() -> None:
    cost = np.array([[0.0, 9.0, 9.0], [1.0, 9.0, 9.0], [9.0, 2.0, 3.0]])
    rows, columns = warp(cost)
    assert (rows.tolist(), columns.tolist()) == ([0, 1, 2, 2], [0, 0, 1, 2])


def test_single_row_visits_every_cell() -> None:
    rows, columns = warp(np.array([[1.0, 2.0, 4.0]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 0, 0], [0, 1, 2])


@pytest.mark.parametrize("cost", [np.zeros((0, 3)), np.zeros(3), np.array([[np.nan]]), np.array([[-1.0]])])
def test_refuses_what_has_no_path(cost: np.ndarray) -> None:
    with pytest.raises(ValueError, match="warping needs"):
        warp(cost)
