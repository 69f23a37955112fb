"""Figures over training time, a line for each run; an alignment as it came about; and what each change of an
ablation does, as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast.benchmarks.convergence import boundaries
from ttsfast.benchmarks.convergence.ablation import GOALS, Effect
from ttsfast.evaluation.targets import label
from ttsfast.pages.plots import INK, PALETTE, blank, draw_attention, style

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

STEEP = ("mcd_dtw_sl", boundaries.FIGURE)
"""Figures that differ by factors: the distortion of speech that does not end, and of speech."""
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Of a logarithmic scale."""
PERCENT = (-90, -30, -10, -5, 0, 5, 10, 30, 100, 300, 1000)
LINEAR = 10
"""Percent, beyond which the scale of changes is logarithmic."""
LABEL = 44
"""Letters of a change in a line, beside its bar."""


def curve(runs: Sequence[Mapping[str, Any]], figure_name: str) -> Figure:
    """One figure over minutes of training, in a logarithmic scale: a colour for each recipe, a line for each
    seed, a cross where a run diverged. The untrained model has no place on it."""
    names = list(dict.fromkeys(run["recipe"] for run in runs))
    with style():
        figure = blank(3.4, 2.1 + 0.17 * ((len(names) + 1) // 2))
        axes = figure.add_subplot()
        axes.grid(axis="y")
        axes.set(xscale="log", xlabel="minutes of training", ylabel=label(figure_name))
        for run in runs:
            rows = [row for row in run["rows"] if row["step"] > 0 and figure_name in row]
            minutes, values = [row["seconds"] / 60 for row in rows], [row[figure_name] for row in rows]
            colour = PALETTE[names.index(run["recipe"]) % len(PALETTE)]
            axes.plot(minutes, values, color=colour, linewidth=1.1, label=run["recipe"])
            if run["ended"] == "diverged" and rows:
                axes.plot(minutes[-1:], values[-1:], "x", color=colour, label="_")
        if figure_name in STEEP:
            axes.set_yscale("log")
            _plain_ticks(axes.yaxis)
        _plain_ticks(axes.xaxis)
        handles = {line.get_label(): line for line in axes.get_lines()}
        shown = [name for name in names if name in handles]
        figure.legend([handles[name] for name in shown], shown, loc="outside lower left", ncols=2)
    return figure


def _plain_ticks(axis: Axis) -> None:
    """Numbers as people write them, on a logarithmic axis."""
    first, last = axis.get_view_interval()
    if ticks := [value for value in TICKS if first <= value <= last]:
        axis.set_ticks(ticks, [f"{value:g}" for value in ticks])
        axis.minorticks_off()


def strip(attentions: Mapping[str, np.ndarray]) -> Figure:
    """Attention weights (S, N) of one utterance by moment: time along x, the text along y."""
    with style():
        figure = blank(max(2.6, 1.25 * len(attentions)), 1.6)
        panels = figure.subplots(1, len(attentions), squeeze=False)[0]
        for panel, (name, attention) in zip(panels, attentions.items(), strict=True):
            draw_attention(panel, attention, len(attention))
            panel.set(title=name, xticks=(), yticks=())
        panels[0].set_ylabel("text")
        figure.supxlabel("time", fontsize=8.5)
    return figure


def chart(effects: Sequence[Effect], name: str) -> Figure:
    """What each change does to the time to a goal or to a figure, in percent of the recipe's own, the best
    first; better is left. What was cut off before the goal comes last, with an arrow: its time is longer."""
    change: dict[str, float] = {}
    cut_off = set()
    for effect in effects:
        if name in effect.times:
            own, changed = effect.times[name]
            change[effect.change] = 100 * (changed.value / own.value - 1)
            if changed.lower_bound:
                cut_off.add(effect.change)
                change[effect.change] = max(0.0, change[effect.change])
        elif name in effect.figures:
            before, after = effect.figures[name]
            change[effect.change] = 100 * (after / before - 1) if before else 0.0
    names = sorted(change, key=lambda key: (key in cut_off, change[key]), reverse=True)
    labels = [fill(key, LABEL) for key in names]
    row = 0.08 + 0.09 * max(text.count("\n") + 1 for text in labels)
    with style():
        figure = blank(5.2, 0.7 + row * len(names))
        axes = figure.add_subplot()
        values = [change[key] for key in names]
        colours = [PALETTE[2] if value < 0 else PALETTE[1] for value in values]
        axes.barh(range(len(names)), values, color=colours)
        # Of no places there would still be room kept, at the picture's corner.
        if places := [place for place, key in enumerate(names) if key in cut_off]:
            axes.plot([values[place] for place in places], places, ">", color=PALETTE[1], clip_on=False)
        axes.axvline(0.0, color=INK, linewidth=0.8)
        # One change may be a hundred times as large as another.
        axes.set_xscale("symlog", linthresh=LINEAR)
        ends = axes.get_xlim()
        axes.set_xticks([tick for tick in PERCENT if ends[0] <= tick <= ends[1]])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_yticks(range(len(names)), labels)
        axes.tick_params(labelsize=7)
        axes.tick_params(axis="y", length=0)
        shown = f"time to {name}" if name in GOALS else f"{label(name)} at the end"
        figure.suptitle(shown, x=0.02, ha="left")
        axes.set(xlabel="change in %", ylim=(-0.6, len(names) - 0.4))
    return figure
