"""A record in columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ttsfast.benchmarks import machine
from ttsfast.benchmarks.convergence import boundaries
from ttsfast.benchmarks.convergence.ablation import FIGURES, GOALS, Effect, effects
from ttsfast.benchmarks.convergence.comparison import Middle, times_of
from ttsfast.evaluation.targets import number

WIDTH = 26
LAST = (
    "mel_l1",
    "mcd_dtw",
    "duration_error",
    "coverage",
    "stop_rate",
    boundaries.FIGURE,
    boundaries.BIAS,
    "word_error",
)
"""Figures of the last evaluation."""


def table(record: Mapping[str, Any]) -> str:
    """Times to each goal, how many times sooner, and how good the runs are at their end."""
    runs = record["runs"]
    names = list(dict.fromkeys(run["recipe"] for run in runs))
    if not names:
        return f"trained; nothing is measured yet\n{machine.summary(record['machine'])}"
    if found := effects(runs):
        return "\n".join([*_changes(found), machine.summary(record["machine"])])
    corpus, first = record["corpus"], max(len(name) for name in (*names, "recipe"))
    lines = [
        f"{corpus['name']}: {corpus['minutes']:.1f} minutes to learn from, "
        f"{len(record['held_out']['utterances'])} utterances of its {record['held_out']['split']} split to "
        f"measure on; {record['minutes']:g} minutes of training a run",
    ]
    goals = list(record["comparisons"])
    for axis, unit in (("seconds", "seconds"), ("processor_seconds", "processor seconds"), ("step", "steps")):
        lines += ["", f"{unit} to a goal: median (least to most); > where a run was cut off before it"]
        lines.append(f"  {'recipe':<{first}}" + "".join(f"{goal:>{WIDTH}}" for goal in goals))
        for name in names:
            cells = [cell(runs, name, goal, axis) for goal in goals]
            lines.append(f"  {name:<{first}}" + "".join(f"{text:>{WIDTH}}" for text in cells))
    lines += ["", *_sooner(record)]
    lines += ["at the end of the runs, means:"]
    figures = [name for name in LAST if any(name in run["rows"][-1] for run in runs)]
    lines.append(f"  {'recipe':<{first}}" + "".join(f"{name:>16}" for name in figures))
    for name in names:
        own = [run["rows"][-1] for run in runs if run["recipe"] == name]
        means = [sum(row[f] for row in own) / len(own) if f in own[0] else None for f in figures]
        lines.append(f"  {name:<{first}}" + "".join(f"{number(mean):>16}" for mean in means))
    lines.append(machine.summary(record["machine"]))
    return "\n".join(lines)


def cell(runs: list[dict[str, Any]], recipe: str, goal: str, axis: str) -> str:
    """The times of one recipe to one goal, in words; where all runs were cut off, the soonest cut-off."""
    times = times_of(runs, recipe, goal, axis)
    if not times:
        return "–"
    middle, values = Middle.of(times), sorted(time.value for time in times)
    cut = sum(time.cut_off for time in times)
    if cut == len(times):
        return f">{values[0]:.0f}"
    shown = f"{'>' if middle.lower_bound else ''}{middle.value:.0f}"
    if len(times) > 1:
        last = max(times, key=lambda time: time.value)
        shown += f" ({values[0]:.0f} to {'>' if last.cut_off else ''}{values[-1]:.0f})"
    return shown if not cut else f"{shown} {cut}/{len(times)} cut"


def _changes(found: Sequence[Effect]) -> Iterator[str]:
    """Of an ablation: a line for each change."""
    first = max(len(effect.change) for effect in found)
    for base in dict.fromkeys(effect.base for effect in found):
        own = [effect for effect in found if effect.base == base]
        columns = columns_of(own)
        yield (
            f"single changes to {base}: seconds to a goal (> where a run was cut off), figures at the end; "
            "before → after"
        )
        yield f"  {'':<{first}}" + "".join(f"{name:>20}" for name in columns)
        for effect in own:
            cells = [both(effect, name) for name in columns]
            yield f"  {effect.change:<{first}}" + "".join(f"{text:>20}" for text in cells)


def columns_of(found: Sequence[Effect]) -> list[str]:
    """The goals, and the figures, that any of them has."""
    return [
        *(goal for goal in GOALS if any(goal in effect.times for effect in found)),
        *(name for name in FIGURES if any(name in effect.figures for effect in found)),
    ]


def both(effect: Effect, column: str) -> str:
    """Time to a goal, or figure, before the change and after it."""
    if column in effect.times:
        return " → ".join(f"{'>' if m.lower_bound else ''}{m.value:.0f}" for m in effect.times[column])
    if column in effect.figures:
        return " → ".join(number(value) for value in effect.figures[column])
    return "–"


def _sooner(record: Mapping[str, Any]) -> Iterator[str]:
    """One line for each two recipes and each goal, by the wall."""
    lines = []
    for goal, axes in record["comparisons"].items():
        for found in axes["seconds"]:
            if found["ratio"] is None:
                said = f"{found['sooner']} was cut off before it: not known beside {found['later']}"
            else:
                said = (
                    f"{found['sooner']} {'at least ' if found['at_least'] else ''}{found['ratio']:.2f} times "
                    f"sooner than {found['later']}, p = {found['p']:.3f}"
                    f"{'' if found['claim'] else ': no claim'}"
                )
            lines.append(f"  {goal}: {said}")
    if lines:
        yield "by the wall, ratios of medians; exact permutation test on the logarithm of time:"
        yield from lines
        yield ""
