"""Dynamic time warping, one anti-diagonal at a time."""

from __future__ import annotations

import numpy as np

DIAGONAL, DOWN, RIGHT = 0, 1, 2


def warp(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest monotonic path through a matrix of local costs, corner to corner.

    Steps are (1, 1), (1, 0) and (0, 1), each weighted 1, without a band (Sakoe and Chiba, 1978, their
    symmetric form with unit weights). Of equally cheap ways into a cell the diagonal one is taken, then
    (1, 0).

    Args:
        cost: (T, U) local costs, finite and non-negative.

    Returns:
        The rows and the columns of the cells on the path, from (0, 0) to (T - 1, U - 1).

    Raises:
        ValueError: the matrix is empty, or a cost is negative or not finite.
    """
    cost = np.asarray(cost, dtype=np.float64)
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"warping needs a (T, U) matrix with at least one cell, got shape {cost.shape}")
    if not np.isfinite(cost).all() or cost.min() < 0:
        raise ValueError("warping needs finite, non-negative costs")
    return _walk_back(_ways(cost))


def _ways(cost: np.ndarray) -> np.ndarray:
    """(T, U + 1) int8: by which step the cheapest path to each cell enters it; the last column is unused."""
    rows, columns = cost.shape
    # With one more column, the cells of an anti-diagonal lie ``columns`` apart in memory.
    costs = np.pad(cost, ((0, 0), (0, 1))).ravel()
    ways = np.zeros((rows, columns + 1), dtype=np.int8)
    entered = ways.reshape(-1)
    # Cell (i, j) of anti-diagonal i + j lives at index i + 1; index 0 is the row above the matrix.
    before, last, now = np.full((3, rows + 1), np.inf)
    last[1] = cost[0, 0]
    for diagonal in range(1, rows + columns - 1):
        first, end = max(0, diagonal - columns + 1), min(rows, diagonal + 1)
        cells = slice(diagonal + first * columns, diagonal + (end - 1) * columns + 1, columns)
        straight, down, right = before[first:end], last[first:end], last[first + 1 : end + 1]
        bent = np.minimum(down, right)
        entered[cells] = np.where(straight <= bent, DIAGONAL, np.where(down <= right, DOWN, RIGHT))
        now.fill(np.inf)
        now[first + 1 : end + 1] = costs[cells] + np.minimum(straight, bent)
        before, last, now = last, now, before
    return ways


def _walk_back(ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    i, j = ways.shape[0] - 1, ways.shape[1] - 2
    path = [(i, j)]
    while (i, j) != (0, 0):
        way = ways[i, j]
        i, j = i - (way != RIGHT), j - (way != DOWN)
        path.append((i, j))
    cells = np.array(path[::-1])
    return cells[:, 0], cells[:, 1]
