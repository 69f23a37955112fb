"""The statistics of a corpus: mean and deviation of its features, and features in units of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

STD_FLOOR = 0.01
"""Log units. A bin that never moves (above the recordings' band, say) has a deviation of 0; divided by this
instead it is 0 throughout the store, and what a model makes of it moves the log-mel by next to nothing."""


def normalise(log_mel: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Log-mels (T, C) float32 in units of the corpus statistics (C,) float32, as stored: (T, C) float16; Inf
    where that does not reach.
    """
    with np.errstate(over="ignore"):
        return ((log_mel - mean) / std).astype(np.float16)


@dataclass(frozen=True)
class Moments:
    """Per utterance: frames that count (n,), mean and summed squared deviation per bin (n, C), float64."""

    frames: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, utterances: Sequence[np.ndarray]) -> Moments:
        """Of each utterance's values (T, C); one without any has mean 0."""
        bins = utterances[0].shape[1]
        means = [
            values.mean(axis=0, dtype=np.float64) if len(values) else np.zeros(bins) for values in utterances
        ]
        squares = [((values - mean) ** 2).sum(axis=0) for values, mean in zip(utterances, means, strict=True)]
        frames = np.array([len(values) for values in utterances], dtype=np.int64)
        return cls(frames, np.stack(means), np.stack(squares))


def combine_moments(parts: Iterable[Moments], chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) float64 over all frames of the ``chosen`` utterances (bool (n,)).

    The parallel form of the sum of squares (Chan, Golub and LeVeque, 1983), part by part: nothing cancels,
    however far the mean lies from 0, and one part is in memory at a time. Raises ValueError when none is
    chosen.
    """
    total, place = 0.0, 0
    mean = squares = np.zeros(1)
    for part in parts:
        taken = chosen[place : place + len(part.frames)]
        place += len(part.frames)
        frames = part.frames[taken, None].astype(np.float64)
        count = float(frames.sum())
        if count == 0:
            continue
        means = part.mean[taken]
        new = (frames * means).sum(axis=0) / count
        within = part.squares[taken].sum(axis=0) + (frames * (means - new) ** 2).sum(axis=0)
        apart = new - mean
        squares = squares + within + apart**2 * (total * count / (total + count))
        mean = mean + apart * (count / (total + count))
        total += count
    if total == 0:
        raise ValueError("no utterance is chosen")
    return mean, np.sqrt(squares / total)
