"""Pictures of figures over training steps, one small picture for each figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast.pages.plots import BAD, INK, blank, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 200
"""Points of a line; of more, each is the mean of a stretch of steps, in the band of all its values."""
LEAST_RANGE = 0.2
"""Of an axis, against the largest value on it: what hardly moves is drawn as what hardly moves."""

Series = dict[str, dict[str, tuple[list[int], list[float]]]]


@dataclass(frozen=True)
class Line:
    """One figure over steps."""

    name: str
    """Shown where there are several names."""
    steps: Sequence[int]
    values: Sequence[float]
    """One that is not finite is a gap, with a cross on the upper edge."""
    colour: str
    right: bool = False
    """Drawn dashed, on the axis at the right."""


def curve_figure(
    lines: Sequence[Line], left: str = "", right: str = "", marked: Sequence[int] = ()
) -> Figure:
    """Lines over steps, some on the axis at the left and some on the one at the right.

    A positive figure that spans more than a hundredfold gets a logarithmic axis; any other axis spans at
    least :data:`LEAST_RANGE` of its largest value.

    Args:
        lines: at least one.
        left: what the axis at the left shows.
        right: what the axis at the right shows.
        marked: steps that something is said of, drawn as upright lines behind.
    """
    names = list(dict.fromkeys(line.name for line in lines))
    with style():
        figure = blank(3.4, 2.1 + (0.17 * math.ceil(len(names) / 2) if len(names) > 1 else 0.0))
        axes = figure.add_subplot()
        axes.grid(axis="y")
        axes.set_xlabel("step")
        axes.locator_params(axis="x", nbins=4)
        sides = [(axes, [line for line in lines if not line.right], left)]
        if any(line.right for line in lines):
            beside = axes.twinx()
            beside.spines["right"].set_visible(True)
            sides.append((beside, [line for line in lines if line.right], right))
        for side, drawn, name in sides:
            for line in drawn:
                _draw(side, line)
            _scale(side, [v for line in drawn for v in line.values if math.isfinite(v)])
            own = {line.colour for line in drawn}
            side.set_ylabel(name, color=own.pop() if len(sides) == 2 and len(own) == 1 else INK)
        for step in marked:
            axes.axvline(step, color=BAD, linewidth=0.9, alpha=0.6, zorder=1)
        axes.margins(x=0.02)
        if len(names) > 1:
            handles = {h.get_label(): h for side, _, _ in sides for h in side.get_lines()}
            figure.legend(
                [handles[n] for n in names], [_short(n) for n in names], loc="outside lower left", ncols=2
            )
    return figure


def series(records: Sequence[Mapping[str, Any]]) -> Series:
    """name -> kind -> (steps, values) of a training log, in order of first appearance.

    Args:
        records: one for each line: ``step``, ``kind`` and numbers; anything else in them is ignored.
    """
    found: Series = {}
    for record in records:
        for name, value in record.items():
            if name == "step" or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            kinds = found.setdefault(name, {})
            steps, values = kinds.setdefault(str(record.get("kind", "")), ([], []))
            steps.append(int(record["step"]))
            values.append(float(value))
    return found


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis that shows ``values``, which are finite: they are not blown up to fill it.

    Nothing below 0 is shown of values that are not, nor anything above 1 of shares.
    """
    low, high = min(values), max(values)
    margin = 0.05 * (high - low)
    least = LEAST_RANGE * max(abs(low), abs(high)) or 1.0
    spare = max(0.0, least - (high - low) - 2 * margin) / 2 + margin
    bottom, top = low - spare, high + spare
    if low >= 0 and bottom < 0:
        bottom, top = 0.0, max(top, least)
    elif 0 <= low <= high <= 1 < top:
        bottom, top = bottom - (top - 1), 1 + 0.02 * (top - bottom)
    if low == 0:
        # A line along the edge would be cut in half.
        bottom -= 0.02 * top
    return bottom, top


def _draw(axes: Axes, line: Line) -> None:
    steps = np.array(line.steps)
    values = np.array([v if math.isfinite(v) else np.nan for v in line.values])
    bad = steps[np.isnan(values)]
    if len(values) > MANY:
        stretches = np.array_split(np.arange(len(values)), MANY)
        finite = [values[s][~np.isnan(values[s])] for s in stretches]
        low, high, mean = (
            np.array([of(f) if len(f) else np.nan for f in finite]) for of in (np.min, np.max, np.mean)
        )
        steps, values = np.array([round(steps[s].mean()) for s in stretches]), mean
        axes.fill_between(steps, low, high, color=line.colour, alpha=0.2, linewidth=0)
    marker = "o" if len(values) <= 20 else None
    axes.plot(
        steps,
        values,
        "--" if line.right else "-",
        color=line.colour,
        linewidth=1.4,
        marker=marker,
        markersize=3,
        label=line.name,
    )
    if len(bad):
        edge = np.full(len(bad), 0.98)
        axes.plot(bad, edge, "x", color=BAD, markersize=5, transform=axes.get_xaxis_transform(), label="_bad")


def _scale(axes: Axes, values: Sequence[float]) -> None:
    if not values:
        return
    if min(values) > 0 and max(values) / min(values) > 100:
        axes.set_yscale("log")
        return
    axes.set_ylim(*limits(values))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.6g}")


def _short(name: str) -> str:
    # A dollar sign would start mathematics.
    return (name if len(name) <= 24 else name[:23] + "…").replace("$", r"\$")
