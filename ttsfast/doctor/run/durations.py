"""Durations that a model finds for itself: that its aligner forms, and that texts fit their recordings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.finding import ERROR, WARNING, Finding
from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.subject import Run, RunCheck, at


class Aligner(RunCheck):
    """An aligner that does not form, comes apart again, or stays in doubt."""

    name = "aligner"
    training = ("alignment",)
    shows = ("alignment", "binarization", "weight_alignment", "heard")
    effect = (
        "durations are those of an even pace: the decoder is taught every letter on the sound of another, "
        "and speech is a mumble of the right length"
    )
    remedy = (
        "see that texts belong to their recordings (`ttsfast doctor STORE`), trim the silence at the ends "
        "(prepare --trim), and leave out long clips"
    )
    due = 200
    """Steps beyond the warm-up. Clean runs, with 100 of those, were below :data:`doubtful` by step 80."""
    due_without = 5000
    """Steps of another trainer, whose log has the forward-sum loss alone."""
    doubtful = 0.9
    """Nats a step on the hard path (``binarization``). An aligner that knows nothing has 1.7, which is the
    prior's doubt, and so had one without its weight; clean runs of three corpora ended at 0.1 to 0.35."""
    lost = 2.0
    """Times its best level, from which on what was there is gone."""
    fallen = 0.75
    """Of the forward-sum loss's first level, which is 4, and ended at 0.9 to 1.2 where it formed."""

    def find(self, run: Run) -> Iterator[Finding]:
        doubt = run.training.get("binarization")
        if doubt is None or not len(doubt.finite):
            yield from self._by_loss(run, run.training["alignment"].finite)
            return
        curve = doubt.finite
        levels, last = curve.levels(), curve.at_end()
        best = int(np.argmin(levels))
        if best < len(levels) - 2 and last > self.doubtful and last > self.lost * levels[best]:
            step = curve.after(best)
            yield self.finding(
                ERROR,
                f"the aligner came apart after step {step:,}: its path had {np.exp(-levels[best]):.0%} of "
                f"the probability at a step, now {np.exp(-last):.0%}",
                [at(step, f"best {levels[best]:.3g} nats"), at(curve.steps[-1], f"last {last:.3g} nats")],
                remedy="go back to the checkpoint of that step, and lower the rate",
                best=float(levels[best]),
                last=last,
            )
        elif run.last_step >= self._due(run) and last > self.doubtful:
            weight = run.training.get("weight_alignment")
            untaught = weight is not None and not weight.finite.values.any()
            yield self.finding(
                ERROR,
                f"the aligner has not formed by step {run.last_step:,}: its path has {np.exp(-last):.0%} of "
                "the probability at a step" + (", and its loss has no weight" if untaught else ""),
                [at(curve.steps[-1], f"{last:.3g} nats")],
                remedy="set training.alignment_loss_weight=1.0" if untaught else self.remedy,
                nats=last,
                most=self.doubtful,
                due=self._due(run),
            )

    def _due(self, run: Run) -> int:
        return self.due_without if run.config is None else self.due + run.config.training.warmup_steps

    def _by_loss(self, run: Run, loss: Curve) -> Iterator[Finding]:
        first, last = float(loss.values[:3].max()), loss.at_end()
        # A log that begins after a resume begins low.
        early = loss.steps[0] <= 0.1 * run.last_step
        if run.last_step >= self._due(run) and early and last > self.fallen * first:
            yield self.finding(
                ERROR,
                f"the aligner has not formed by step {run.last_step:,}: its loss went from {first:.3g} to "
                f"{last:.3g}",
                [at(loss.steps[0], f"{first:.3g}"), at(loss.steps[-1], f"{last:.3g}")],
                first=first,
                last=last,
                due=self._due(run),
            )


class TooFewSteps(RunCheck):
    """Utterances that have fewer steps than symbols, and so no alignment."""

    name = "unalignable"
    training = ("unalignable",)
    of_ours = True
    shows = ("unalignable", "alignment")
    effect = "they are read at an even pace, past some of their symbols, and teach no durations"
    remedy = (
        "lower model.reduction_factor, or leave out those that are spoken so fast, or whose text is not "
        "theirs (`ttsfast doctor STORE`: few frames, duration)"
    )
    some, most = 0.005, 0.1
    """Of the utterances. Clean runs had none."""

    def find(self, run: Run) -> Iterator[Finding]:
        curve = run.training["unalignable"].finite
        share = float(curve.values.mean()) / run.utterances_per_step
        if share > self.some:
            worst = int(np.argmax(curve.values))
            yield self.finding(
                ERROR if share > self.most else WARNING,
                f"{share:.1%} of the utterances have fewer decoder steps than symbols",
                [at(curve.steps[worst], f"{curve.values[worst]:.3g} a step")],
                share=share,
                most=self.most,
            )


CHECKS = (TooFewSteps(), Aligner())
