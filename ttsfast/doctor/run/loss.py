"""The course of the training loss: NaN, leaps, spikes, divergence, standstill."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.finding import ERROR, WARNING, Finding
from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.subject import Run, RunCheck, at, each
from ttsfast.training.convergence import RAISED, certain_trend


class NotFinite(RunCheck):
    """NaN and infinity."""

    name = "finite"
    shows = ("total", "mel", "gradient_norm", "learning_rate")
    effect = "the weights are NaN from there on; nothing after it counts"
    remedy = (
        "go back to the checkpoint before that step; train in bf16 or fp32, lower the rate, and look at the "
        "utterances of that step for NaN features (`ttsfast doctor STORE`)"
    )

    def at_hand(self, run: Run) -> bool:
        return bool(run.losses)

    def find(self, run: Run) -> Iterator[Finding]:
        bad = {name: c.where(~np.isfinite(c.values)) for name, c in run.losses.items()}
        bad = {name: curve for name, curve in bad.items() if len(curve)}
        if bad:
            first = min(int(curve.steps[0]) for curve in bad.values())
            culprits = [name for name, curve in bad.items() if curve.steps[0] == first]
            # The total is so because a term is.
            named = [name for name in culprits if name != "total"] or culprits
            what = f"the loss is not finite from step {first:,} on: {' and '.join(named)}"
            yield self.finding(ERROR, what, each(bad[named[0]], named[0]), step=first)


class Leap(RunCheck):
    """A loss that is suddenly another, as after a resume that lost something."""

    name = "leap"
    training = ("loss",)
    shows = ("mel", "total", "learning_rate")
    effect = "what was learnt is partly gone, and is learnt again"
    remedy = (
        "was it resumed there? Load the optimiser's state, the averages and the scaler with the weights; was "
        "data added there? Look at it (`ttsfast doctor STORE`)"
    )
    around = 5
    """Log points before and after it that are compared: all after it are above all before it."""
    least = 1.2
    """Times, of their medians."""

    def find(self, run: Run) -> Iterator[Finding]:
        assert run.main_loss is not None
        name, curve = run.main_loss[0], run.main_loss[1].finite
        found = []
        for place in range(2 * self.around, len(curve) - self.around + 1):
            before = curve.values[place - self.around : place]
            after = curve.values[place : place + self.around]
            times = float(np.median(after) / np.median(before)) if np.median(before) > 0 else 0.0
            if after.min() > before.max() and times > self.least and not _rate_raised(run, curve, place):
                found.append((times, place))
        if found:
            times, place = max(found)
            what = (
                f"the {name} loss leapt from {np.median(curve.values[place - self.around : place]):.3g} to "
                f"{np.median(curve.values[place : place + self.around]):.3g} at step {curve.steps[place]:,}"
            )
            yield self.finding(WARNING, what, [at(curve.steps[place], what)], times=times, least=self.least)


class Spikes(RunCheck):
    """Single steps whose loss is far above that of their neighbours."""

    name = "spikes"
    training = ("loss",)
    shows = ("total", "mel", "gradient_norm")
    effect = "each undoes some of the steps before it, and Adam remembers it for a thousand steps"
    remedy = (
        "look at the utterances of those steps (`ttsfast doctor STORE`: wrong texts, clips of silence); then "
        "lower the rate or training.gradient_clip_norm"
    )
    share = 0.005
    """Of the steps, by the trainer's own count (training.max_loss_spike_threshold). Clean runs have none."""
    around = 4
    """Log points on either side that a point is compared with, where nothing else counts them."""
    high = 1.5
    deviations = 8.0
    few = 3
    """Of these: fewer may be chance."""

    def find(self, run: Run) -> Iterator[Finding]:
        counted = run.training.get("spikes")
        if counted is not None and len(counted.finite):
            spikes, steps = float(counted.finite.values.max()), int(counted.steps[-1])
            rises = counted.where(np.append(False, np.diff(counted.values) > 0))
            if spikes > self.share * steps:
                what = f"{spikes:.0f} of {steps:,} steps were spikes of the loss"
                yield self.finding(WARNING, what, each(rises, "spikes so far:"), share=spikes / steps)
            return
        curve = (run.training.get("total") or run.main_loss[1]).finite  # type: ignore[index]
        spiky = curve.where(self._spiky(curve.values))
        if len(spiky) >= self.few:
            what = f"{len(spiky)} of {len(curve)} log points are spikes of the loss"
            yield self.finding(WARNING, what, each(spiky, "loss"), times=self.high)

    def _spiky(self, values: np.ndarray) -> np.ndarray:
        found = np.zeros(len(values), dtype=bool)
        for place in range(self.around, len(values) - self.around):
            beside = np.delete(values[place - self.around : place + self.around + 1], self.around)
            middle = float(np.median(beside))
            spread = 1.4826 * float(np.median(np.abs(beside - middle)))
            found[place] = values[place] > max(self.high * middle, middle + self.deviations * spread)
        return found


class Diverged(RunCheck):
    """A loss that rose again and stayed there."""

    name = "diverged"
    training = ("loss",)
    shows = ("mel", "total", "learning_rate", "gradient_norm")
    effect = "the run gets worse from there on"
    remedy = "go back to the best checkpoint, and lower the rate"
    least = 1.3
    """Times its best level. A restart of the rate brought back 1.1 times in clean runs."""

    def find(self, run: Run) -> Iterator[Finding]:
        assert run.main_loss is not None
        name, curve = run.main_loss[0], run.main_loss[1].finite
        levels = curve.levels()
        best = int(np.argmin(levels))
        last = min(levels[-1], levels[-2]) if len(levels) > 4 else levels[-1]
        if best < len(levels) - 2 and levels[best] > 0 and last > self.least * levels[best]:
            step = curve.after(best)
            yield self.finding(
                ERROR,
                f"the {name} loss rose from {levels[best]:.3g} to {last:.3g} and stayed there, since step "
                f"{step:,}",
                [at(step, f"best level {levels[best]:.3g}"), at(curve.steps[-1], f"last level {last:.3g}")],
                times=last / levels[best],
                least=self.least,
            )


class Standstill(RunCheck):
    """A loss that hardly moved at all."""

    name = "standstill"
    training = ("loss",)
    shows = ("mel", "total", "learning_rate", "gradient_norm")
    effect = "nothing is learnt"
    remedy = (
        "try one batch first (`ttsfast doctor --model` overfits one): if that works, look at the rate and "
        "the data"
    )
    least = 0.1
    """Of the loss's first level. Clean runs lost half of theirs in 100 steps."""
    steps = 300

    def find(self, run: Run) -> Iterator[Finding]:
        assert run.main_loss is not None
        name, curve = run.main_loss[0], run.main_loss[1].finite
        first, last = curve.at_start(), curve.at_end()
        # A log that begins after a resume begins low, and one of one epoch's means begins late.
        early = curve.steps[0] <= 0.1 * run.last_step
        if run.last_step >= self.steps and early and abs(first - last) < self.least * first:
            if certain_trend(curve.levels()) < 0 and last < 0.97 * first and not run.over:
                return
            yield self.finding(
                ERROR,
                f"the {name} loss hardly moved in {run.last_step:,} steps: from {first:.3g} to {last:.3g}",
                [at(curve.steps[0], f"{name} {first:.4g}"), at(curve.steps[-1], f"{name} {last:.4g}")],
                fall=1 - last / first,
                least=self.least,
            )


def _rate_raised(run: Run, curve: Curve, place: int) -> bool:
    """Whether the rate was, on purpose, at or just before a log point: the loss rises then."""
    rate = run.training.get("learning_rate")
    if rate is None:
        return False
    near = rate.where((rate.steps >= curve.steps[max(0, place - 2)]) & (rate.steps <= curve.steps[place]))
    return len(near) > 1 and bool((near.values[1:] > RAISED * near.values[:-1]).any())


CAUSES = (NotFinite(), Leap(), Spikes(), Diverged())
CHECKS = (Standstill(),)
