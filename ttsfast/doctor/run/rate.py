"""The learning rate: that it is one, that it moves as it was told to, and that it fits the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ttsfast.config import TrainingConfig
from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding
from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.subject import Run, RunCheck, at, each
from ttsfast.training.schedule import scheduled_rate

SAME = 0.01
"""Rates that differ by less are the same."""


class BrokenRate(RunCheck):
    """A rate that is not one."""

    name = "rate"
    training = ("learning_rate",)
    shows = ("learning_rate",)
    effect = "nothing is learnt from there on, or all weights become NaN"
    remedy = "mend the schedule: a power or a root of a negative number, a division by a count of 0 steps"
    most = 0.05
    """Of the log points: a linear decay may end in 0."""

    def find(self, run: Run) -> Iterator[Finding]:
        curve = run.training["learning_rate"]
        good = curve.values > 0
        begun = np.maximum.accumulate(good)
        bad = curve.where(begun & ~(good & np.isfinite(curve.values)))
        nans = (~np.isfinite(bad.values)).any()
        if len(bad) and (nans or len(bad) > self.most * len(curve)):
            what = f"the learning rate is {bad.values[0]:.3g} from step {bad.steps[0]:,} on"
            yield self.finding(ERROR, what, each(bad, "rate"), steps=len(bad))


class WarmUp(RunCheck):
    """A warm-up that takes the run, or most of it."""

    name = "warm-up"
    training = ("learning_rate",)
    shows = ("learning_rate",)
    effect = "the run ends before its rate has been what was asked for, so most of its steps moved little"
    longest = 0.5
    """Of a run's steps. Published ones take 4% (4,000 of 100,000 steps: Vaswani et al., 2017), the presets'
    1 to 8%."""
    least_steps = 300
    """Of a log without a configuration: before, a rise may well be a warm-up yet."""

    def find(self, run: Run) -> Iterator[Finding]:
        curve = run.training["learning_rate"].finite
        if run.config is not None:
            warmup, whole = run.config.training.warmup_steps, run.config.training.max_steps
            if warmup > self.longest * whole:
                severity = ERROR if warmup >= whole else WARNING
                yield self.finding(
                    severity,
                    f"the warm-up takes {warmup:,} of the run's {whole:,} steps",
                    [at(curve.steps[-1], f"rate {curve.values[-1]:.3g}")],
                    remedy=f"lower training.warmup_steps to {max(1, whole // 20):,} or less",
                    warmup_steps=warmup,
                    steps=whole,
                )
            return
        rising = np.diff(curve.values) >= 0
        middle = np.median(curve.values)
        if rising.all() and curve.values[-1] > 1.2 * middle and run.last_step >= self.least_steps:
            yield self.finding(
                ERROR,
                f"the learning rate still rises at the log's last step, {run.last_step:,}",
                [at(curve.steps[i], f"rate {curve.values[i]:.3g}") for i in (-1, len(curve) // 2, 0)],
                remedy="shorten the warm-up; one that is counted in epochs is meant in steps",
                rate=curve.values[-1],
            )


class Schedule(RunCheck):
    """A rate that does not go where it was told to."""

    name = "schedule"
    training = ("learning_rate",)
    shows = ("learning_rate",)
    off = 0.05
    """Of the log points, that may lie off the schedule: a rate may be changed by hand and back."""
    constant = 4
    """Log points in a row at one rate, of a rate that should move at each."""
    leap = 1.5

    def find(self, run: Run) -> Iterator[Finding]:
        curve = run.training["learning_rate"].finite
        found = self._configured(run, curve) if run.config is not None else self._unknown(run, curve)
        yield from found

    def _configured(self, run: Run, curve: Curve) -> Iterator[Finding]:
        assert run.config is not None
        training = run.config.training
        wrong = ~_as_told(curve, training, 0)
        recent = wrong[-max(3, len(wrong) // 10) :]
        if wrong.mean() <= self.off or not recent.all():
            return
        first = int(np.argmax(wrong))
        evidence = [
            at(step, f"rate {rate:.3g}, by the schedule {scheduled_rate(int(step) - 1, training):.3g}")
            for step, rate in zip(curve.steps[wrong], curve.values[wrong], strict=True)
        ]
        before = int(curve.steps[first - 1]) if first else 0
        for start in sorted({before, *run.starts, int(curve.steps[first]) - 1}):
            later = curve.where(curve.steps > start)
            if start and _as_told(later, training, start).mean() > 1 - self.off:
                yield self._reset(start, evidence)
                return
        if (steps := _stairs(curve, self.constant)) is not None:
            yield self._by_epochs(steps, curve)
            return
        yield self.finding(
            ERROR,
            f"the learning rate is not the schedule's since step {curve.steps[first]:,}",
            evidence,
            effect="the run is not the one that its configuration describes",
            remedy="see what else sets the rate: a second scheduler, a loaded optimiser, a callback",
            steps=int(wrong.sum()),
        )

    def _unknown(self, run: Run, curve: Curve) -> Iterator[Finding]:
        before_peak = curve.where(np.arange(len(curve)) <= int(np.argmax(curve.values)))
        if (steps := _stairs(before_peak, self.constant)) is not None:
            yield self._by_epochs(steps, curve)
            return
        if (place := _begins_again(curve)) is not None:
            again = curve.where(np.arange(len(curve)) >= place)
            yield self._reset(int(curve.steps[place - 1]), each(again, "rate"))
            return
        falls = np.flatnonzero(np.diff(curve.values) < 0)
        decayed = np.arange(len(curve) - 1) > (falls[0] if len(falls) else len(curve))
        leaps = np.flatnonzero(decayed & (curve.values[1:] > self.leap * curve.values[:-1])) + 1
        # Several are a schedule of restarts.
        if len(leaps) == 1:
            leap = int(leaps[0])
            step, before, after = int(curve.steps[leap]), curve.values[leap - 1], curve.values[leap]
            yield self.finding(
                ERROR if _resumed(step, run.starts, curve) else WARNING,
                f"the learning rate leaps from {before:.3g} to {after:.3g} at step {step:,}",
                [at(step, f"rate {after:.3g}, before {before:.3g}")],
                effect="the loss rises again, and what the decay had won is lost",
                remedy="unless it is meant: load the scheduler's state where the run is resumed",
                times=after / before,
            )

    def _reset(self, start: int, evidence: Iterable[Evidence]) -> Finding:
        return self.finding(
            ERROR,
            f"the schedule of the learning rate began anew after step {start:,}",
            evidence,
            effect="the loss rises again, and what the decay had won is lost",
            remedy="load the scheduler's state with the weights where a run is resumed; go on from the "
            "checkpoint "
            "before that step",
            step=start,
        )

    def _by_epochs(self, length: int, curve: Curve) -> Finding:
        changes = curve.where(np.append(False, ~np.isclose(np.diff(curve.values), 0, atol=0)))
        return self.finding(
            ERROR,
            f"the learning rate moves once in about {length:,} steps, not at each",
            each(changes, "rate"),
            effect="a warm-up or a decay that is counted in steps takes as many epochs, and never ends",
            remedy="call the scheduler's step after each optimiser step, not after each epoch",
            steps=length,
        )


class DecayedAway(RunCheck):
    """A rate that was gone long before the run was over."""

    name = "decay"
    training = ("learning_rate",)
    shows = ("learning_rate", "mel", "total")
    effect = "the weights hardly moved in most of the run: what looks like convergence is a standstill"
    remedy = (
        "step a schedule that is meant by epochs once an epoch (a factor of 0.999875 is gone in 40,000 "
        "steps), or lower the decay"
    )
    gone = 0.01
    """Of the peak. Cosine schedules end at 0 to 10% of it, but pass 1% in their last 6%."""
    most = 0.4
    """Of the run's steps."""

    def find(self, run: Run) -> Iterator[Finding]:
        curve = run.training["learning_rate"].finite
        peak = curve.values.max()
        after = curve.steps > curve.steps[int(np.argmax(curve.values))]
        small = curve.where(after & (curve.values < self.gone * peak) & (curve.values > 0))
        if len(small) and small.steps[-1] == curve.steps[-1]:
            share = (small.steps[-1] - small.steps[0]) / max(1, int(curve.steps[-1]))
            if share > self.most:
                what = (
                    f"the learning rate was below {self.gone:.0%} of its peak for {share:.0%} of the run, "
                    "since "
                    f"step {small.steps[0]:,}"
                )
                yield self.finding(ERROR, what, each(small, "rate"), share=share, peak=peak)


class RateSize(RunCheck):
    """A rate far too high, or too low, for the weights it moves."""

    name = "rate size"
    training = ("learning_rate",)
    shows = ("update_ratio", "gradient_norm", "mel", "total")
    usual = 1e-3
    """Of an update against its weights, a rule of thumb of the field (Karpathy's notes for CS231n); clean
    runs have 0.009 at the most and 0.004 at their middle."""
    high, low = 0.02, 1e-5
    """Of the median part of the model, at the peak of the rate. Measured on `nano`: 0.029 at 5 times its
    rate, which learnt yet; 0.037 at 100 times, which did not; 1e-6 at a rate of 1e-7."""
    largest, smallest = 1e-2, 1e-6
    """Rates, where no ratios were logged. Published rates for Adam in speech: 1e-4 to 2e-3."""

    def find(self, run: Run) -> Iterator[Finding]:
        curve = run.training["learning_rate"].finite
        peak = float(curve.values.max())
        ratio = _ratio_at_peak(run)
        if ratio is None:
            size, sizes, of = peak, (self.largest, self.smallest), "rate"
        else:
            size, sizes, of = ratio, (self.high, self.low), "update_ratio"
        seen = [at(curve.steps[int(np.argmax(curve.values))], f"rate {peak:.3g}")]
        if size > sizes[0]:
            yield self.finding(
                ERROR if _harmed(run) else WARNING,
                f"the learning rate is too high: {peak:.3g} at its peak"
                + ("" if ratio is None else f", where a step moves the weights by {ratio:.1%}"),
                seen,
                effect="the weights are thrown about: the loss swings, leaps, or stays high",
                remedy="divide training.learning_rate by ten, or let `ttsfast train --find-lr` choose it",
                **{of: size, "most": sizes[0]},
            )
        elif 0 < size < sizes[1]:
            yield self.finding(
                ERROR,
                f"the learning rate is too low: {peak:.3g} at its peak"
                + ("" if ratio is None else f", where a step moves the weights by {ratio:.1g} of themselves"),
                seen,
                effect="the loss hardly moves: such a run would take a hundred times its steps",
                remedy="let `ttsfast train --find-lr` choose the rate; a small model wants about 2e-3, a "
                "large one 1e-4",
                **{of: size, "least": sizes[1]},
            )


def _as_told(curve: Curve, training: TrainingConfig, start: int) -> np.ndarray:
    """Where a rate is the schedule's of a run that began after step ``start``, less what the plateau rule
    took off: a power of its factor, down to the least rate."""
    told = np.array([scheduled_rate(int(step) - 1 - start, training) for step in curve.steps])
    right = np.isclose(curve.values, told, rtol=SAME)
    if training.auto_lr_reduction:
        most = int(curve.steps[-1]) // (training.val_step * training.lr_reduction_patience)
        for times in range(1, most + 1):
            reduced = np.maximum(told * training.lr_reduction_factor**times, training.min_learning_rate)
            right |= np.isclose(curve.values, reduced, rtol=SAME)
    return right


def _stairs(curve: Curve, least: int) -> int | None:
    """Steps of the stretches in which a moving rate stands, where there are three of like length."""
    moves = np.flatnonzero(~np.isclose(np.diff(curve.values), 0, atol=0, rtol=0))
    lengths = np.diff(moves)
    if len(lengths) < 2 or np.median(lengths) < least or lengths.max() > 1.5 * np.median(lengths):
        return None
    return int(np.median(np.diff(curve.steps[moves])))


def _begins_again(curve: Curve) -> int | None:
    """From where a rate repeats its beginning, a warm-up among it; None where it does not."""
    values, steps = curve.values, curve.steps
    apart = 0.5 * float(np.median(np.diff(steps)))
    for place in range(4, len(values) - 4):
        n = min(place, len(values) - place)
        first, again = values[:n], values[place : place + n]
        if first.max() > 1.2 * first[0] and np.isclose(first[0], again[0], rtol=SAME):
            alike = np.isclose(first, again, rtol=0.05)
            alike &= np.isclose(steps[:n] - steps[0], steps[place : place + n] - steps[place], atol=apart)
            if alike.mean() > 0.9:
                return place
    return None


def _resumed(step: int, starts: Sequence[int], curve: Curve) -> bool:
    """Whether a process began within three log points of a step."""
    apart = 3 * float(np.median(np.diff(curve.steps)))
    return any(start and abs(step - start) <= apart for start in starts)


def _ratio_at_peak(run: Run) -> float | None:
    """The largest of the median part's ratios, while the rate was above half of its peak."""
    if not run.ratios:
        return None
    curve = run.training["learning_rate"].finite
    medians = []
    steps = sorted({int(step) for ratio in run.ratios.values() for step in ratio.steps})
    for step in steps:
        rate = curve.values[min(len(curve) - 1, int(np.searchsorted(curve.steps, step)))]
        values = [r.values[r.steps == step] for r in run.ratios.values()]
        found = [float(v[0]) for v in values if len(v) and np.isfinite(v[0])]
        if found and rate > 0.5 * curve.values.max():
            medians.append(float(np.median(found)))
    return max(medians, default=None)


def _harmed(run: Run) -> bool:
    """Whether the loss is NaN, rises again by a fifth, or spikes."""
    if run.main_loss is None:
        return False
    loss, spikes = run.main_loss[1], run.training.get("spikes")
    levels = loss.levels()
    if len(loss.finite) < len(loss) or not len(levels):
        return True
    spiky = spikes is not None and len(spikes.finite) and spikes.finite.values.max() > 0.005 * run.last_step
    return bool(spiky) or bool((levels > 1.2 * np.minimum.accumulate(levels)).any())


CHECKS = (BrokenRate(), Schedule(), WarmUp(), DecayedAway(), RateSize())
