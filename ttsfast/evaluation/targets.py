"""What each figure means, what it should reach, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

DEFINITIONS: dict[str, str] = {
    "mel_l1": "teacher-forced: mean absolute error of the log-mel, in standard deviations of each bin",
    "mel_l1_log": "teacher-forced: mean absolute error of the log-mel, in the features' own log units",
    "diagonal_mass": "teacher-forced: share of attention within |n/N - s/S| <= 0.15, mean over decoder steps",
    "monotonicity": (
        "teacher-forced: share of decoder steps after which the most attended symbol stays or moves 1 to 4 "
        "symbols forward"
    ),
    "stop_f1": (
        "teacher-forced: F1 of the first stop falling within 8 frames of the true end, one event per "
        "utterance; an early stop is a false positive and a miss, a late or absent one is a miss"
    ),
    "coverage": (
        "free-running: share of symbols read, that is, attended to most by a step that keeps half of its "
        "attention within one symbol of them, or passed over among at most 3 (1 at either end of the text)"
    ),
    "duration_error": "free-running: |predicted - true| / true duration, mean over utterances",
    "stop_rate": "free-running: share of utterances that the model itself ended before the frame limit",
    "mcd_dtw": (
        "free-running: mel-cepstral distortion in dB, 10/ln10 * sqrt(2 * sum of squared differences) of "
        "coefficients 1 to 13 of the log-mel's cosine transform, mean along the best time warping; "
        "comparable only with figures of this program"
    ),
}
"""Every figure of ``metrics.json``, in the order of reports."""

LABELS = {
    "mel_l1": "mel L1",
    "mel_l1_log": "mel L1, log units",
    "stop_f1": "stop F1",
    "mcd_dtw": "cepstral distortion, dB",
}
"""Names for people, where taking the underscores out is not enough."""

HIGHER_IS_BETTER = frozenset({"diagonal_mass", "coverage", "monotonicity", "stop_f1", "stop_rate"})

TARGETS: dict[str, float | str] = {
    "mel_l1": "predict_mean",
    "diagonal_mass": 0.90,
    "coverage": 0.98,
    "duration_error": 0.10,
    "stop_rate": 0.95,
}
"""What a voice that works reaches on held-out text: a bound, or the baseline that it must beat."""


def label(name: str) -> str:
    """A figure's name for people."""
    return LABELS.get(name, name.replace("_", " "))


@dataclass(frozen=True)
class Verdict:
    """One figure, judged."""

    name: str
    value: float | None
    """None where it could not be measured."""
    baselines: dict[str, float]
    target: float | None
    """The bound itself, also where it is a baseline's figure; None: the figure has no target."""
    target_text: str
    """Such as "≥ 0.90"; empty without a target."""
    rival: str
    """The baseline to beat, where the target is one."""
    passed: bool | None
    """None without a target. A target whose figure could not be measured is missed."""

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


def judge(figures: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]) -> list[Verdict]:
    """Hold ``figures`` against :data:`TARGETS` and put the baselines beside them."""
    verdicts = []
    for name in DEFINITIONS:
        value = figures.get(name)
        beside = {label: known[name] for label, known in baselines.items() if name in known}
        wanted = TARGETS.get(name)
        higher = name in HIGHER_IS_BETTER
        passed: bool | None = None
        bound: float | None = None
        text = rival = ""
        if isinstance(wanted, str):
            bound, rival = beside.get(wanted), wanted.replace("_", " ")
            passed = value is not None and bound is not None and (value > bound if higher else value < bound)
            text = f"{'>' if higher else '<'} {number(bound)}"
        elif wanted is not None:
            bound = wanted
            passed = value is not None and (value >= bound if higher else value <= bound)
            text = f"{'≥' if higher else '≤'} {bound:.2f}"
        verdicts.append(Verdict(name, value, beside, bound, text, rival, passed))
    return verdicts


def number(value: float | None) -> str:
    """Three significant decimals for a person; a dash for what was not measured."""
    return "–" if value is None else f"{value:.3f}"


def table(verdicts: list[Verdict], title: str) -> Table:
    """The verdicts for a terminal."""
    labels = list(dict.fromkeys(label for verdict in verdicts for label in verdict.baselines))
    result = Table(title=title, title_justify="left")
    result.add_column("metric", no_wrap=True)
    result.add_column("value", justify="right", no_wrap=True)
    result.add_column("target", justify="right", no_wrap=True)
    result.add_column("")
    for label in labels:
        result.add_column(label.replace("_", " "), justify="right", style="dim")
    marks = {True: "[green]pass[/green]", False: "[red]FAIL[/red]", None: ""}
    for verdict in verdicts:
        result.add_row(
            verdict.name,
            number(verdict.value),
            verdict.target_text,
            marks[verdict.passed],
            *(number(verdict.baselines[label]) if label in verdict.baselines else "" for label in labels),
        )
    return result
