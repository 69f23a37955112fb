"""How sure a figure is: intervals from drawing the utterances anew, with replacement (Efron, 1979).

A figure over utterances is a ratio of sums, such as word errors by words or weighted errors by frames: each
utterance brings a numerator and a denominator. Draws follow from a fixed seed and the number of utterances
alone, so the same figures give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959963984540054
"""Of the standard normal distribution, at ``(1 + CONFIDENCE) / 2``."""

RESAMPLES = 2000
AT_ONCE = 1 << 20
"""Drawn utterances held in memory at a time."""


class Interval(NamedTuple):
    """Where a figure lies, to 95% confidence."""

    low: float
    high: float


def interval(numerators: ArrayLike, denominators: ArrayLike | None = None) -> Interval:
    """The percentile interval of ``sum(numerators) / sum(denominators)`` over utterances.

    Args:
        numerators: (U,), one for each utterance.
        denominators: (U,), positive; 1 each when None, which makes the ratio a mean.

    Raises:
        ValueError: no utterance, shapes that differ, a value that is not finite or a denominator that is
            not positive.
    """
    above, below = _terms(numerators, denominators)
    ratios = [above[drawn].sum(axis=1) / below[drawn].sum(axis=1) for drawn in _draws(len(above))]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.concatenate(ratios), [tail, 100 - tail])
    return Interval(float(low), float(high))


def difference(first: ArrayLike, second: ArrayLike, denominators: ArrayLike | None = None) -> Interval:
    """The interval of the first ratio less the second, both of the same utterances (a paired bootstrap).

    What makes an utterance hard for both sides cancels; an interval that leaves out 0 tells the two apart
    at p < 0.05.

    Args:
        first, second: (U,) numerators, utterance by utterance.
        denominators: (U,) of both; 1 each when None.

    Raises:
        ValueError: as :func:`interval`.
    """
    minuend, below = _terms(first, denominators)
    subtrahend, _ = _terms(second, denominators)
    return interval(minuend - subtrahend, below)


def share_interval(hits: int, utterances: int) -> Interval:
    """The score interval of a share of utterances, ``hits / utterances`` (Wilson, 1927).

    Drawing anew from utterances that all went well says that none ever goes wrong; 20 of 20 are in truth
    evidence for a share of 0.84 or more.

    Raises:
        ValueError: no utterance, or more hits than utterances.
    """
    if not 0 <= hits <= utterances or utterances == 0:
        raise ValueError(f"a share needs 0 to n of n utterances, got {hits} of {utterances}")
    squared = NORMAL_QUANTILE**2
    share = hits / utterances
    middle = (share + squared / (2 * utterances)) / (1 + squared / utterances)
    spread = share * (1 - share) / utterances + squared / (4 * utterances**2)
    half = NORMAL_QUANTILE * math.sqrt(spread) / (1 + squared / utterances)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def _terms(numerators: ArrayLike, denominators: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    above = np.asarray(numerators, dtype=np.float64)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, dtype=np.float64)
    if above.ndim != 1 or above.size == 0 or above.shape != below.shape:
        raise ValueError(
            f"numerators and denominators are one for each utterance, got {above.shape} and {below.shape}"
        )
    if not (np.isfinite(above).all() and np.isfinite(below).all() and below.min() > 0):
        raise ValueError("numerators must be finite, denominators positive and finite")
    return above, below


def _draws(utterances: int) -> Iterator[np.ndarray]:
    """``RESAMPLES`` draws of as many utterances as there are, some rows at a time."""
    random = np.random.default_rng(0)
    rows = max(1, AT_ONCE // utterances)
    for start in range(0, RESAMPLES, rows):
        yield random.integers(utterances, size=(min(rows, RESAMPLES - start), utterances))
