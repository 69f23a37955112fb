"""Where a run is going, in one word: a test of trend against the noise of batches that differ.

A batch of long utterances has another loss than one of short ones, and from batch to batch the losses of one
model differ by more than some hundred steps bring. So what lengths explain is taken off by a robust
regression, the rest is averaged over blocks, and a trend is what a rank test of their levels is certain of.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

BLOCKS = 16
"""Parts of a window whose levels are compared."""
HALVES = 10
"""Half windows whose levels are compared."""
VALIDATIONS = 8
"""Validations that are compared."""
CHANCE = 0.01
"""How often levels in random order are taken for a certain rise; and for a certain fall."""
CLIPPED = 2.5
"""Robust standard deviations beyond which a step's loss counts as this many."""
REMEMBERED = 4.0
"""An autocorrelation above so many of its standard deviations among independent losses is real."""
RAISED = 1.2
"""A rate this many times the last step's was raised on purpose, as by a restart: the loss will rise."""


class Convergence:
    """Judges the last ``window`` losses, five windows up to them, and the last held-out figures.

    - ``warming`` until ``window`` steps were taken since the start, or since the rate was raised;
    - ``diverging`` where the window's newest block breaks out of what its first three quarters were;
    - then the first certain trend decides, of the window, of the five windows, of the held-out figures:
      ``diverging`` for a rise to more than 1 / ``threshold`` of what was, ``improving`` for a fall, unless
      the held-out figures certainly rise;
    - ``oscillating`` where losses swing: they remember each other, which batches in random order do not, and
      the root mean square of what they remember is above 1 - ``threshold`` of the loss;
    - ``plateau`` else.

    Args:
        window: steps; whole multiples of :data:`BLOCKS` count, two or more.
        threshold: below 1.
    """

    def __init__(self, window: int, threshold: float) -> None:
        self.window, self.threshold = window, threshold
        self._steps: deque[tuple[float, float]] = deque(maxlen=window)
        self._halves: deque[float] = deque(maxlen=HALVES)
        self._held_out: deque[float] = deque(maxlen=VALIDATIONS)
        self._rate = 0.0
        self._new = 0
        """Steps since the level of half a window was last kept."""

    def add(self, loss: float, length: float, rate: float) -> None:
        """Take a step's mel loss above its floor, its utterances' mean frames, and its learning rate."""
        if rate > RAISED * self._rate:
            self._steps.clear()
            self._halves.clear()
            self._new = 0
        self._rate = rate
        self._steps.append((loss, length))
        self._new += 1
        if len(self._steps) == self.window and self._new >= self.window // 2:
            self._new = 0
            self._halves.append(float(_without_lengths(self._steps)[BLOCKS // 2 :].mean()))

    def add_held_out(self, value: float) -> None:
        """Take a validation's error, unsmoothed and unweighted."""
        self._held_out.append(value)

    def verdict(self) -> str:
        """One word."""
        if len(self._steps) < self.window:
            return "warming"
        losses = _without_lengths(self._steps)
        levels = losses.mean(axis=1)
        if _breaks_out(levels, self.threshold):
            return "diverging"
        held_out = certain_trend(self._held_out)
        for values in map(np.array, (levels, self._halves, self._held_out)):
            trend = certain_trend(values)
            if trend > 0 and values[-2:].mean() * self.threshold > values[:2].mean():
                return "diverging"
            if trend < 0 and held_out <= 0:
                return "improving"
        return "oscillating" if swing(losses.ravel()) > (1 - self.threshold) * levels.mean() else "plateau"

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "steps": [list(step) for step in self._steps],
            "halves": list(self._halves),
            "held_out": list(self._held_out),
            "rate": self._rate,
            "new": self._new,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._steps = deque(((loss, length) for loss, length in state["steps"]), maxlen=self.window)
        self._halves = deque(state["halves"], maxlen=HALVES)
        self._held_out = deque(state["held_out"], maxlen=VALIDATIONS)
        self._rate, self._new = state["rate"], state["new"]


def certain_trend(values: Sequence[float] | np.ndarray) -> int:
    """1 for a certain rise of values in time order, -1 for a certain fall, else 0: a rank test (Mann, 1945),
    which no outlier moves. Fewer than five values are never certain."""
    n = len(values)
    later, earlier = np.tril_indices(n, k=-1)
    order = np.sign(np.subtract.outer(values, values)[later, earlier]).sum()
    least = n * (n - 1) / 2 - 2 * _most_disorder(n)
    return int(np.sign(order)) if abs(order) >= least else 0


@cache
def _most_disorder(n: int) -> int:
    """How many pairs of n values may be out of order in a certain trend; -1 where no order is certain.

    A random permutation has as many inversions as independent numbers sum to, one from 0 to k - 1 for each
    k up to n, all as likely.
    """
    share = np.ones(1)
    for k in range(2, n + 1):
        share = np.convolve(share, np.full(k, 1 / k))
    return int(np.searchsorted(share.cumsum(), CHANCE, side="right")) - 1


def swing(losses: np.ndarray) -> float:
    """Root mean square of what losses (n,) in time order remember of each other, 0 where that may be chance.

    It is the root of the largest autocovariance at any lag up to a quarter of them, once a straight line is
    taken off. That of a sine is the sine's power; that of independent losses is near 0.
    """
    n = len(losses)
    time = np.arange(n) - (n - 1) / 2
    rest = losses - losses.mean()
    rest -= time * (time @ rest) / (time @ time)
    power = np.abs(np.fft.rfft(rest, 2 * n)) ** 2
    covariance = np.fft.irfft(power)[: n // 4 + 1] / n
    largest = covariance[1:].max()
    certain = largest > REMEMBERED / math.sqrt(n) * covariance[0]
    return math.sqrt(largest) if certain else 0.0


def _without_lengths(steps: Sequence[tuple[float, float]]) -> np.ndarray:
    """The newest losses in blocks (BLOCKS, n), without what lengths explain of them and without outliers."""
    size = len(steps) // BLOCKS
    rows = np.array(steps)[-BLOCKS * size :]
    losses, lengths = rows[:, 0].reshape(BLOCKS, size), rows[:, 1].reshape(BLOCKS, size)
    losses = losses - _of_lengths(losses, lengths)
    middle = np.median(losses, axis=1, keepdims=True)
    most = CLIPPED * _deviation(losses - middle)
    clipped: np.ndarray = middle + np.clip(losses - middle, -most, most)
    return clipped


def _of_lengths(losses: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """What lengths explain of losses, both (BLOCKS, n): a parabola by Huber's regression, fitted to what
    differs within blocks, so that no trend is taken for it."""
    spread = lengths.std()
    if spread == 0:
        return np.zeros_like(losses)
    scaled = (lengths - lengths.mean()) / spread
    powers = np.stack([scaled, scaled**2 - 1])
    known = (powers - powers.mean(axis=2, keepdims=True)).reshape(2, -1)
    wanted = (losses - losses.mean(axis=1, keepdims=True)).ravel()
    weighted = known
    for _ in range(3):
        factors = np.linalg.lstsq(weighted @ known.T, weighted @ wanted, rcond=None)[0]
        rest = np.abs(wanted - factors @ known)
        # 1.345: as efficient as least squares but for 5% where noise is normal (Huber, 1964).
        weighted = known * np.minimum(1.0, 1.345 * _deviation(rest) / np.maximum(rest, 1e-30))
    explained: np.ndarray = np.tensordot(factors, powers, 1)
    return explained


def _deviation(rest: np.ndarray) -> float:
    """The standard deviation by the median, which outliers do not move."""
    return 1.4826 * float(np.median(np.abs(rest)))


def _breaks_out(levels: np.ndarray, threshold: float) -> bool:
    """Whether the newest level is above the window's first three quarters by more than these differ, and by
    the threshold."""
    before, newest = levels[: 3 * BLOCKS // 4], levels[-1]
    return bool(newest > 2 * before.max() - before.min() and newest * threshold > before.max())
