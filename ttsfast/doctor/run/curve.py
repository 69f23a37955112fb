"""A figure over steps, and what is asked of it without being moved by noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

PARTS = 16
"""Parts of a curve whose levels are compared, as many as a convergence verdict takes."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Values (n,) over steps (n,), which rise."""

    steps: np.ndarray
    values: np.ndarray

    @staticmethod
    def of(points: Iterable[tuple[int, float]]) -> Curve:
        """In the order of steps; of a step that was logged twice, as after a resume, the later value."""
        kept = dict(points)
        steps = sorted(kept)
        return Curve(np.array(steps, dtype=np.int64), np.array([kept[step] for step in steps], dtype=float))

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def finite(self) -> Curve:
        """Without values that are not."""
        return self.where(np.isfinite(self.values))

    def where(self, chosen: np.ndarray) -> Curve:
        """The points that are True in ``chosen`` (n,)."""
        return Curve(self.steps[chosen], self.values[chosen])

    def levels(self, parts: int = PARTS) -> np.ndarray:
        """The medians of so many parts of as many points each; of fewer points, they themselves."""
        values = self.finite.values
        return np.array([np.median(part) for part in np.array_split(values, min(parts, len(values)))])

    def after(self, level: int) -> int:
        """The step at which that one of :meth:`levels` is over."""
        finite = self.finite
        parts = np.array_split(finite.steps, min(PARTS, len(finite)))
        return int(parts[min(level + 1, len(parts) - 1)][0])

    def at_start(self, share: float = 1 / PARTS) -> float:
        """The median of the first points, three at least."""
        values = self.finite.values
        return float(np.median(values[: max(3, round(share * len(values)))]))

    def at_end(self, share: float = 1 / PARTS) -> float:
        """The median of the last points, three at least."""
        values = self.finite.values
        return float(np.median(values[-max(3, round(share * len(values))) :]))

    def around(self, step: int) -> float:
        """The median of the five values nearest to a step."""
        finite = self.finite
        nearest = np.argsort(np.abs(finite.steps - step), kind="stable")[:5]
        return float(np.median(finite.values[nearest]))

    @property
    def last_half(self) -> Curve:
        """The later half of the points."""
        return Curve(self.steps[len(self) // 2 :], self.values[len(self) // 2 :])
