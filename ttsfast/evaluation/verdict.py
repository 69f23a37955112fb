"""Whether figures reach their targets, for all that so many utterances can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from rich.console import Group
from rich.table import Table

from ttsfast.evaluation import bootstrap
from ttsfast.evaluation.bootstrap import Interval
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.targets import (
    DEFINITIONS,
    FROM_FREE_RUNNING,
    HIGHER_IS_BETTER,
    SHARES_OF_UTTERANCES,
    TARGETS,
    label,
    number,
)

FEWEST = 20
"""Utterances below which no figure is judged."""


class State(Enum):
    """What a figure says of the voice."""

    PASS = "pass"
    MISSED = "missed"
    TOO_FEW = "too few to tell"
    """Fewer than :data:`FEWEST` utterances, or an interval with the target inside."""
    WORTHLESS = "counts for nothing"
    """The same model untrained reaches the target."""
    CANNOT_FAIL = "–"
    """The model has nothing that the figure could be measured on: no attention, or no stop."""


@dataclass(frozen=True)
class Verdict:
    """One figure, judged."""

    name: str
    value: float | None
    """None where it could not be measured."""
    interval: Interval | None
    """Of the value, to 95% confidence; None without a value."""
    utterances: int
    """That the value is over."""
    baselines: dict[str, float]
    target: float | None
    """The bound itself, also where it is a baseline's figure; None: the figure has no target."""
    target_text: str
    """Such as "≥ 0.90"; empty without a target."""
    rival: str
    """The baseline to beat, where the target is one."""
    state: State | None
    """None without a target."""

    @property
    def label(self) -> str:
        """The figure's name for people."""
        return label(self.name)

    @property
    def wanted(self) -> str:
        """The target with its reason."""
        return f"{self.target_text} ({self.rival})" if self.rival else self.target_text

    @property
    def higher_is_better(self) -> bool:
        """Which way is up."""
        return self.name in HIGHER_IS_BETTER

    @property
    def interval_text(self) -> str:
        """The interval for a person; a dash without one."""
        return "–" if self.interval is None else f"{self.interval.low:.3f} to {self.interval.high:.3f}"

    @property
    def reason(self) -> str:
        """Why the state is what it is, where the value and the target do not show it."""
        if self.state is State.TOO_FEW:
            of = f"{self.utterances} utterances" if self.utterances < FEWEST else self.interval_text
            return f"{of}, wanted {self.wanted}"
        if self.state is State.WORTHLESS:
            return f"the same model untrained reaches {number(self.baselines['untrained'])}"
        return "this model cannot fail at it" if self.state is State.CANNOT_FAIL else ""


def judge(figures: Figures, baselines: Mapping[str, Figures]) -> list[Verdict]:
    """Hold ``figures`` against :data:`TARGETS` and put the baselines beside them.

    A target is passed when the whole interval of the figure reaches it, and missed when none of it does;
    where the target is a baseline's figure, the interval is that of the difference, utterance by utterance.
    """
    told = [name for name in DEFINITIONS if name in figures or name in TARGETS]
    return [_judged(name, figures, baselines) for name in told]


def overall(verdicts: Sequence[Verdict]) -> State:
    """Of the whole voice: no figure missed or open, and one at least of its free-running speech passed."""
    states = {verdict.state for verdict in verdicts}
    if State.MISSED in states:
        return State.MISSED
    spoken = any(v.state is State.PASS for v in verdicts if v.name in FROM_FREE_RUNNING)
    return State.PASS if spoken and State.TOO_FEW not in states else State.TOO_FEW


def _judged(name: str, figures: Figures, baselines: Mapping[str, Figures]) -> Verdict:
    wanted, higher = TARGETS.get(name), name in HIGHER_IS_BETTER
    beside = {known: values[name] for known, values in baselines.items() if name in values}
    if isinstance(wanted, str):
        bound, rival = beside.get(wanted), wanted.replace("_", " ")
        text = f"{'>' if higher else '<'} {number(bound)}"
    else:
        bound, rival = wanted, ""
        text = "" if bound is None else f"{'≥' if higher else '≤'} {bound:.2f}"
    return Verdict(
        name=name,
        value=figures.get(name),
        interval=_interval(name, figures) if name in figures else None,
        utterances=len(figures.terms(name)),
        baselines=beside,
        target=bound,
        target_text=text,
        rival=rival,
        state=None if wanted is None else _state(name, wanted, figures, baselines),
    )


def _state(name: str, wanted: float | str, figures: Figures, baselines: Mapping[str, Figures]) -> State:
    if name not in figures:
        return State.CANNOT_FAIL
    untrained = baselines.get("untrained", Figures())
    if name in untrained and _reaches(name, wanted, untrained, baselines):
        return State.WORTHLESS
    lead = _lead(name, wanted, figures, baselines)
    if lead is None or len(figures.terms(name)) < FEWEST:
        return State.TOO_FEW
    # As good as a bound is enough; as good as a baseline is not.
    if lead.low > 0 or (lead.low == 0 and not isinstance(wanted, str)):
        return State.PASS
    return State.MISSED if lead.high < 0 else State.TOO_FEW


def _lead(
    name: str, wanted: float | str, figures: Figures, baselines: Mapping[str, Figures]
) -> Interval | None:
    """How much better the figure is than what is wanted; None where that was not measured."""
    if isinstance(wanted, str):
        ours, theirs = figures.terms(name), baselines.get(wanted, Figures()).terms(name)
        common = [utterance for utterance in ours if utterance in theirs]
        if not common:
            return None
        weights = [ours[u].weight for u in common]
        low, high = bootstrap.difference(
            [ours[u].value * ours[u].weight for u in common],
            [theirs[u].value * ours[u].weight for u in common],
            weights,
        )
    else:
        low, high = (end - wanted for end in _interval(name, figures))
    return Interval(low, high) if name in HIGHER_IS_BETTER else Interval(-high, -low)


def _interval(name: str, figures: Figures) -> Interval:
    terms = figures.terms(name).values()
    if name in SHARES_OF_UTTERANCES:
        return bootstrap.share_interval(sum(term.value > 0 for term in terms), len(terms))
    return bootstrap.interval([t.value * t.weight for t in terms], [t.weight for t in terms])


def _reaches(name: str, wanted: float | str, some: Figures, baselines: Mapping[str, Figures]) -> bool:
    """Whether figures over some of the utterances reach what is wanted, taken as they are."""
    value, higher = some[name], name in HIGHER_IS_BETTER
    if not isinstance(wanted, str):
        return value >= wanted if higher else value <= wanted
    rival = baselines.get(wanted, Figures()).part(some.terms(name).keys())
    return name in rival and (value > rival[name] if higher else value < rival[name])


def table(verdicts: list[Verdict], title: str) -> Group:
    """For a terminal: the verdicts, and the baselines beside them."""
    judged = Table(title=title, title_justify="left")
    for heading in ("metric", "value", "95%", "target"):
        judged.add_column(heading, justify="left" if heading == "metric" else "right", no_wrap=True)
    judged.add_column("")
    colours = {State.PASS: "green", State.MISSED: "red"}
    for verdict in verdicts:
        mark = "" if verdict.state is None else verdict.state.value
        colour = colours.get(verdict.state) if verdict.state is not None else None
        judged.add_row(
            verdict.name,
            number(verdict.value),
            verdict.interval_text,
            verdict.target_text,
            f"[{colour}]{mark}[/{colour}]" if colour else mark,
        )
    names = list(dict.fromkeys(name for verdict in verdicts for name in verdict.baselines))
    beside = Table(title="What the figures are worth", title_justify="left")
    beside.add_column("metric", no_wrap=True)
    for name in ("this voice", *names):
        beside.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for verdict in verdicts:
        known = (number(verdict.baselines[n]) if n in verdict.baselines else "" for n in names)
        beside.add_row(verdict.name, number(verdict.value), *known)
    return Group(judged, beside)
