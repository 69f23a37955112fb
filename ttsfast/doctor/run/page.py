"""What a page shows of a run: the curves that a finding is about, with its steps marked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ttsfast.data.checks.finding import Finding
from ttsfast.doctor.page import evidence_table
from ttsfast.doctor.pictures import embedded
from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.examine import ALL, RunExamination
from ttsfast.pages.curves import Line, curve_figure
from ttsfast.pages.plots import PALETTE

_MARKED = 40
"""Steps marked on a curve: more would cover it."""
_PARTS = 5
"""Parts of the model drawn in one picture, those at the ends of what they show first."""


class RunCurves:
    """Shows findings of a run."""

    def __init__(self, examination: RunExamination) -> None:
        self._run = examination.run
        self._shows = {check.name: check.shows for check in ALL}
        notes = {"read": examination.diagnosis.looked_at}
        notes |= {"without": "; ".join(examination.notes)} if examination.notes else {}
        self.about: Mapping[str, str] = notes

    def __call__(self, finding: Finding) -> str:
        """A table of the steps, or parts of the model, and the curves."""
        marked = [int(one.at) for one in finding.evidence if one.at is not None][:_MARKED]
        drawn = "".join(
            f'<div class="card">{picture}</div>'
            for name in self._shows.get(finding.check, ())
            if (picture := self._picture(name, marked))
        )
        curves = f'<div class="curves">{drawn}</div>' if drawn else ""
        return evidence_table(finding, ("where", "what was seen")) + curves

    def _picture(self, name: str, marked: list[int]) -> str:
        """One figure, or the figures whose names begin with it; empty where there is none."""
        run = self._run
        kinds: dict[str, dict[str, Curve]] = {"training": {}, "held out": {}}
        for kind, curves in (("training", run.training), ("held out", run.held_out)):
            kinds[kind] = {
                n: c for n, c in curves.items() if n == name or n.startswith((f"{name}.", f"{name}_"))
            }
            if name in kinds[kind]:
                kinds[kind] = {name: kinds[kind][name]}
        lines: list[Line] = []
        for kind, curves in kinds.items():
            for part, curve in _widest(curves).items():
                shown = kind if len(kinds["training"]) <= 1 else part.removeprefix(name).lstrip("._")
                colour = PALETTE[len(lines) % len(PALETTE)]
                lines.append(Line(shown, curve.steps.tolist(), curve.values.tolist(), colour))
        if not lines:
            return ""
        words = name.replace("_", " ")
        return embedded(curve_figure(lines, marked=marked), f"{words}, over training steps")


def _widest(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """As many as can be told apart: those with the smallest and largest typical values."""
    ordered = sorted(curves, key=lambda name: float(np.nanmedian(curves[name].values)))
    ends = ordered if len(ordered) <= _PARTS else [*ordered[:2], *ordered[-(_PARTS - 2) :]]
    return {name: curves[name] for name in curves if name in ends}
