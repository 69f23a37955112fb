"""Dynamic time warping, one anti-diagonal at a time."""

from __future__ import annotations

import numpy as np


def warp(cost: np.ndarray) -> tuple[float, int]:
    """The cheapest monotonic path through a matrix of local costs, corner to corner.

    Steps are (1, 1), (1, 0) and (0, 1), each weighted 1, without a band (Sakoe and Chiba, 1978, their
    symmetric form with unit weights). Of equally cheap ways into a cell the diagonal one is taken, then
    (1, 0).

    Args:
        cost: (T, U) local costs, finite and non-negative.

    Returns:
        The sum of the costs along the path, and the number of cells it visits.

    Raises:
        ValueError: the matrix is empty, or a cost is negative or not finite.
    """
    cost = np.asarray(cost, dtype=np.float64)
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"warping needs a (T, U) matrix with at least one cell, got shape {cost.shape}")
    if not np.isfinite(cost).all() or cost.min() < 0:
        raise ValueError("warping needs finite, non-negative costs")
    rows, columns = cost.shape
    # Cell (i, j) of anti-diagonal i + j lives at index i + 1; index 0 is the row above the matrix.
    before = np.full(rows + 1, np.inf)
    last = np.full(rows + 1, np.inf)
    cells_before = np.zeros(rows + 1, dtype=np.int64)
    cells_last = np.zeros(rows + 1, dtype=np.int64)
    last[1] = cost[0, 0]
    cells_last[1] = 1
    for diagonal in range(1, rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        entries = np.stack((before[i], last[i], last[i + 1]))
        cells = np.stack((cells_before[i], cells_last[i], cells_last[i + 1]))
        cheapest = entries.argmin(axis=0)[None]
        now = np.full(rows + 1, np.inf)
        cells_now = np.zeros(rows + 1, dtype=np.int64)
        now[i + 1] = cost[i, diagonal - i] + np.take_along_axis(entries, cheapest, axis=0)[0]
        cells_now[i + 1] = 1 + np.take_along_axis(cells, cheapest, axis=0)[0]
        before, last = last, now
        cells_before, cells_last = cells_last, cells_now
    return float(last[rows]), int(cells_last[rows])
