"""How far a text was read, by where attention was."""

from __future__ import annotations

import numpy as np
import pytest

from ttsfast.models.reading import end_of_reading, share_read


def attention(peaks: list[int], symbols: int) -> np.ndarray:
    """(S, N), each step on one symbol."""
    weights = np.full((len(peaks), symbols), 0.01)
    weights[np.arange(len(peaks)), peaks] = 0.9
    return weights


@pytest.mark.parametrize(
    ("peaks", "symbols", "share", "end"),
    [
        (list(range(10)), 10, 1.0, 8),
        # A step may pass over three symbols, and the last one needs no step.
        ([0, 4, 8], 10, 1.0, 2),
        ([0, 5, 9], 10, 1 - 4 / 10, 2),
        ([0, 1, 2, 3, 4], 10, 1 - 5 / 10, None),
        ([3, 6, 9, 6], 10, 1 - 3 / 10, 2),
        ([0], 1, 1.0, 0),
    ],
)
def test_symbols_passed_and_the_step_at_the_end(
    peaks: list[int], symbols: int, share: float, end: int | None
) -> None:
    weights = attention(peaks, symbols)
    assert share_read(weights) == pytest.approx(share)
    assert end_of_reading(weights) == end
