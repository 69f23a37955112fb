"""Two recipes' times to one goal: how many times sooner, and whether chance alone would do it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any

from ttsfast.benchmarks.convergence.headlines import ALIGNMENT, AXES
from ttsfast.benchmarks.convergence.recipes import PLUS

LEVEL = 0.05
"""Of the test, below which a claim is made."""


@dataclass(frozen=True)
class Time:
    """Of one run."""

    value: float
    cut_off: bool = False
    """It is longer than ``value``."""


@dataclass(frozen=True)
class Middle:
    """The median of some runs, in the logarithm: of an even number the geometric mean of the two."""

    value: float
    lower_bound: bool
    """A run that was cut off could be above it."""

    @classmethod
    def of(cls, times: Sequence[Time]) -> Middle:
        value = math.exp(median(math.log(time.value) for time in times))
        # Those above the middle may go on for as long as they like.
        middle = sorted(time.value for time in times)[len(times) // 2]
        return cls(value, any(time.cut_off and time.value <= middle for time in times))


@dataclass(frozen=True)
class Comparison:
    """``sooner`` beside ``later``."""

    sooner: str
    later: str
    ratio: float | None
    """Of the medians, later over sooner; None where that of the sooner one is not known."""
    at_least: bool
    """The ratio is a lower bound: the later median is."""
    p: float
    claim: bool
    """p is below :data:`LEVEL`, and every run of the sooner recipe came there."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def compare(name: str, times: Sequence[Time], other: str, others: Sequence[Time]) -> Comparison:
    """Two sides of at least one run each; the one with the lower median is ``sooner``.

    A run that was cut off counts as one that came there at its cut-off, which is sooner than it can have. On
    the later side that makes the difference smaller than it is; on the sooner side it would make it larger,
    and nothing is claimed.
    """
    p = permutation_p(*([math.log(time.value) for time in side] for side in (times, others)))
    middles = {name: Middle.of(times), other: Middle.of(others)}
    sooner, later = (name, other) if middles[name].value <= middles[other].value else (other, name)
    reached = not any(time.cut_off for time in (times if sooner == name else others))
    ratio = None
    if not middles[sooner].lower_bound:
        ratio = middles[later].value / middles[sooner].value
    return Comparison(sooner, later, ratio, middles[later].lower_bound, p, reached and p < LEVEL)


def permutation_p(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Exact two-sided permutation test of the difference of means (Fisher, 1935; Pitman, 1937).

    Of all ways to deal the values out to two sides of these sizes, the share whose means differ by as much as
    the true ones, those included. Two sides of 5 allow no p below 2 / 252, of 4 none below 2 / 70, of 3 none
    below 2 / 20.
    """
    values = [*ours, *theirs]
    total, count = math.fsum(values), len(ours)

    def difference(chosen: Sequence[int]) -> float:
        one = math.fsum(values[i] for i in chosen)
        return abs(one / count - (total - one) / len(theirs))

    observed = difference(range(count)) * (1 - 1e-9) - 1e-12
    found = [difference(chosen) >= observed for chosen in combinations(range(len(values)), count)]
    return sum(found) / len(found)


def comparisons(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Every two recipes, by goal and axis, where both have runs that were measured for it; single changes to
    one are not among them, and alignment is not compared between different models."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    names = list(dict.fromkeys(run["recipe"] for run in runs if PLUS not in run["recipe"]))
    models = {run["recipe"]: run["model"] for run in runs}
    for goal in dict.fromkeys(goal for run in runs for goal in run["times"]):
        for axis in AXES:
            sides = {name: times_of(runs, name, goal, axis) for name in names}
            found.setdefault(goal, {})[axis] = [
                compare(one, sides[one], other, sides[other]).to_dict()
                for one, other in combinations(names, 2)
                if sides[one] and sides[other] and (goal != ALIGNMENT or models[one] == models[other])
            ]
    return found


def times_of(runs: Sequence[Mapping[str, Any]], recipe: str, goal: str, axis: str) -> list[Time]:
    """Of a recipe's measured runs."""
    times = [run["times"][goal] for run in runs if run["recipe"] == recipe and goal in run["times"]]
    return [Time(max(time["at"][axis], 1e-9), time["cut_off"]) for time in times]
