"""How a run ends: worse than it once was, or while it was still getting better."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.finding import WARNING, Finding
from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.subject import Run, RunCheck, at, each

FALLING = ("cosine_with_restarts", "one_cycle")
"""Schedules that end low."""


class Overfit(RunCheck):
    """Held-out speech that gets worse while training goes on."""

    name = "overfit"
    training = ("loss",)
    shows = ("mel", "mel_l1", "total")
    effect = "it learns the training sentences by heart; the rest of the run is lost time"
    remedy = "take the best checkpoint (training.early_stopping=true), raise model.dropout, or add data"
    least = 1.03
    """Times the best validation. Clean runs ended within 1.01."""
    points = 5

    def at_hand(self, run: Run) -> bool:
        return super().at_hand(run) and any(len(c.finite) >= self.points for c in run.errors.values())

    def find(self, run: Run) -> Iterator[Finding]:
        assert run.main_loss is not None
        loss = run.main_loss[1].finite
        for name, curve in run.errors.items():
            held_out = curve.finite
            if len(held_out) < self.points:
                continue
            best, last = int(np.argmin(held_out.values)), float(np.median(held_out.values[-3:]))
            step = int(held_out.steps[best])
            falls = loss.at_end() < loss.around(step)
            late = best > 0.75 * len(held_out)
            if last > self.least * held_out.values[best] and falls and not late:
                yield self.finding(
                    WARNING,
                    f"held-out {name} is worse since step {step:,}: {held_out.values[best]:.3g} then, "
                    f"{last:.3g} "
                    "now, while the training loss fell on",
                    list(each(held_out, name))[best:][::-1],
                    best=float(held_out.values[best]),
                    last=last,
                    times=last / float(held_out.values[best]),
                )
                return


class Undertrained(RunCheck):
    """A run that ended while it was still getting better."""

    name = "undertrained"
    shows = ("mel", "mel_l1", "learning_rate")
    effect = "it would have been better still"
    remedy = "train longer, and the schedule with it (training.max_steps, training.restart_period)"
    least = 0.015
    """Of the error, in the last quarter of the run. A voice whose schedule had ended lost 0.001 there."""
    without = 0.06
    """Of the training loss, where held-out speech is at its best too, or unknown; such a voice lost 0.04."""
    validations, points = 4, 10
    high = 0.7
    """Of its peak, that the rate ends at where the schedule was to bring it down: clean runs end at 0.02.
    The sooner a run is cut, the more it lacks: one voice had an error of 0.452 in place of 0.424 where the
    rate stood at 0.97, 0.434 at 0.83, 0.426 at 0.69."""
    twice = 0.05
    """Of the training loss, that twice the steps would take off; cut voices were at 0.13 to 0.19."""
    of_best = 1.01
    """Times the best validation, within which a run is not yet learning by heart."""

    def at_hand(self, run: Run) -> bool:
        return run.over and bool(run.errors or run.main_loss)

    def find(self, run: Run) -> Iterator[Finding]:
        if (cut := self._cut(run)) is not None:
            yield cut
            return
        for name, curve in run.errors.items():
            held_out = curve.finite
            if len(held_out) >= self.validations:
                quarter, last = 0.75 * held_out.steps[-1], float(held_out.values[-1])
                before = float(np.interp(quarter, held_out.steps, held_out.values))
                if last > held_out.values.min():
                    return
                if before - last > self.least * before:
                    yield self._found(f"held-out {name}", held_out, before, last)
                    return
        if run.main_loss is not None and len(run.main_loss[1].finite) >= self.points:
            name, loss = run.main_loss[0], run.main_loss[1].finite
            levels = loss.levels()
            before, last = float(levels[-1 - len(levels) // 4]), float(levels[-2:].mean())
            if before - last > self.without * before:
                yield self._found(f"the {name} loss", loss, before, last)

    def _cut(self, run: Run) -> Finding | None:
        """Of a run that ended on the height of its rate, though its schedule has an end."""
        rate = run.training.get("learning_rate")
        if run.config is None or run.config.training.scheduler not in FALLING or rate is None:
            return None
        rate, main = rate.finite, run.main_loss
        if main is None or not len(rate) or len(main[1].finite) < self.points:
            return None
        if any(c.finite.values[-1] > self.of_best * c.finite.values.min() for c in run.errors.values()):
            return None
        share, (name, loss) = float(rate.values[-1] / rate.values.max()), main
        half = loss.finite.last_half
        # A power of the steps, as losses fall while the rate stays (Hestness et al., 2017).
        slope = float(np.polyfit(np.log(half.steps), np.log(np.maximum(half.values, 1e-12)), 1)[0])
        if share < self.high or (fall := 1 - 2**slope) < self.twice:
            return None
        return self.finding(
            WARNING,
            f"the run ended before its schedule did: the rate stood at {share:.0%} of its peak, and the "
            f"{name} loss was falling by {fall:.0%} for twice the steps",
            [at(loss.steps[-1], f"{loss.values[-1]:.4g}"), at(rate.steps[-1], f"rate {rate.values[-1]:.3g}")],
            effect="the fall of the rate, which brings the most for its steps, never came",
            rate=share,
            most=self.high,
            fall_for_twice_the_steps=fall,
        )

    def _found(self, name: str, curve: Curve, before: float, last: float) -> Finding:
        return self.finding(
            WARNING,
            f"the run ended while it was still learning: {name} fell by {1 - last / before:.0%} in its "
            "last quarter",
            [at(curve.steps[-1], f"{curve.values[-1]:.4g}")],
            before=before,
            last=last,
        )


CHECKS = (Overfit(), Undertrained())
