"""What validations say, of the model and of themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.finding import ERROR, WARNING, Finding
from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.subject import Run, RunCheck, at, each


class OtherTerms(RunCheck):
    """Training and validation that do not measure the same."""

    name = "validation"
    shows = ("mel", "mel_l1", "total")
    effect = "the best checkpoint, the patience and the comparison of runs go by a number of something else"
    remedy = (
        "give both the same features, masks, padding and weights, the model in eval() in one and "
        "train() in the other"
    )
    least, most = 0.6, 1.6
    """Times what the training loss leads one to expect. Clean runs: 0.9 to 1.2 at their first validation, and
    more later, on a voice's own sentences."""
    apart = 3.0
    """Times, of a loss of the same name at the first validation, where no more is known."""

    def at_hand(self, run: Run) -> bool:
        return bool(self._ours(run) or _pairs(run))

    @staticmethod
    def _ours(run: Run) -> bool:
        return run.config is not None and "mel_l1" in run.held_out and run.loss("mel") is not None

    def find(self, run: Run) -> Iterator[Finding]:
        if self._ours(run):
            yield from self._expected(run)
            return
        for name, training, held_out in _pairs(run):
            step = int(held_out.steps[0])
            told = training.around(step)
            times = float(held_out.values[0]) / told if told else 1.0
            if not 1 / self.apart < times < self.apart:
                yield self.finding(
                    WARNING,
                    f"at its first validation the {name} loss is {held_out.values[0]:.3g}, in training "
                    f"{told:.3g}",
                    [at(step, f"held out {held_out.values[0]:.4g}, training {told:.4g}")],
                    times=times,
                    most=self.apart,
                )

    def _expected(self, run: Run) -> Iterator[Finding]:
        assert run.config is not None
        loss, held_out = run.loss("mel"), run.held_out["mel_l1"].finite
        assert loss is not None
        training = run.config.training
        told = np.array([loss.around(int(step)) for step in held_out.steps])
        expected = (
            np.array([_mean_error(v, training.huber_delta) for v in told])
            if training.use_huber_loss
            else told
        )
        times = held_out.values / expected
        # Later it may well be worse: the voice is not that of the training sentences.
        off = [place for place in (0, int(np.argmin(times))) if not self.least < times[place] < self.most]
        if off and (times[0] > self.most or np.median(times) < self.least):
            place = off[0]
            yield self.finding(
                ERROR,
                f"validation measures something else than training: held-out mel_l1 is "
                f"{held_out.values[place]:.3g}, where a training loss of {told[place]:.3g} lets one expect "
                f"{expected[place]:.3g}",
                [
                    at(
                        held_out.steps[place],
                        f"mel_l1 {held_out.values[place]:.4g}, training {told[place]:.4g}",
                    )
                ],
                times=times[place],
                least=self.least,
                most=self.most,
            )


class Stale(RunCheck):
    """Validations of weights that are not trained."""

    name = "stale"
    training = ("loss",)
    shows = ("mel", "total", "mel_l1")
    effect = "no checkpoint is ever the best, and early stopping ends a run that learns"
    remedy = (
        "validate the model that is trained: see which weights (an average, a copy, a compiled one) it has"
    )
    least = 4
    """Validations."""
    same = 1e-6
    fallen = 0.05
    """Of the training loss, meanwhile."""

    def at_hand(self, run: Run) -> bool:
        return super().at_hand(run) and any(len(c.finite) >= self.least for c in run.errors.values())

    def find(self, run: Run) -> Iterator[Finding]:
        assert run.main_loss is not None
        loss = run.main_loss[1].finite
        for name, curve in run.errors.items():
            held_out = curve.finite
            moved = np.flatnonzero(~np.isclose(held_out.values, held_out.values[-1], rtol=self.same, atol=0))
            still = held_out.where(np.arange(len(held_out)) > (moved[-1] if len(moved) else -1))
            if len(still) < self.least:
                continue
            fall = 1 - loss.around(int(still.steps[-1])) / loss.around(int(still.steps[0]))
            if fall > self.fallen:
                what = (
                    f"held-out {name} is the same at the last {len(still)} validations, to six digits, "
                    "while the "
                    f"training loss fell by {fall:.0%}"
                )
                yield self.finding(ERROR, what, each(still, name), fall=fall)
                return


class RunsWild(RunCheck):
    """Speech that gets worse while the teacher-forced error gets better, or never stops."""

    name = "free running"
    held_out = ("duration_error",)
    shows = ("mel_l1", "duration_error", "stop_rate", "coverage")
    effect = (
        "fed with what it said itself, the voice skips, repeats or does not end: the error does not show it"
    )
    remedy = (
        "take the checkpoint of the best speech (training.monitor=mcd_dtw_sl), raise model.prenet_dropout "
        "where there is a prenet, and do not train on"
    )
    too_long = (
        "its durations add up to more than data.max_mel_frames: see that texts belong to their recordings "
        "(`ttsfast doctor STORE`: duration, pause, silence at the ends)"
    )
    """What to do where durations decide on the length."""
    due = 1000
    """Steps. Clean runs ended nine of ten sentences by step 600."""
    due_by_durations = 100
    """Steps. Clean runs of such models ended all sentences at their first validation, from step 65 on."""
    ended = 0.5
    """Of the sentences."""
    times, more = 2.0, 0.1
    """Of ``duration_error``, against its best three validations in a row, which both must be passed."""

    def find(self, run: Run) -> Iterator[Finding]:
        error = run.held_out["duration_error"].finite
        stops = run.held_out.get("stop_rate")
        due = self.due_by_durations if run.by_durations else self.due
        if stops is not None and len(stops.finite) and run.last_step >= due:
            rate = float(np.median(stops.finite.values[-3:]))
            if rate < self.ended:
                yield self.finding(
                    ERROR,
                    f"the voice does not stop: at step {run.last_step:,} it ends {rate:.0%} of its "
                    "sentences itself",
                    list(each(stops.finite, "stop rate"))[::-1],
                    effect="it babbles on after the last word, up to the limit of frames",
                    remedy=self.too_long
                    if run.by_durations
                    else "train the stop token beyond the end (training.stop_tail_frames=8), raise "
                    "training.stop_token_positive_weight, and see that clips do not end in mid-word "
                    "(`ttsfast doctor STORE`: cut off)",
                    stop_rate=rate,
                    least=self.ended,
                )
                return
        if len(error) < 6:
            return
        smooth = np.array([np.median(error.values[i - 2 : i + 1]) for i in range(2, len(error))])
        best, last = int(np.argmin(smooth)), float(smooth[-1])
        teacher = run.held_out.get("mel_l1")
        better = teacher is None or teacher.around(int(error.steps[-1])) <= 1.02 * teacher.around(
            int(error.steps[best + 2])
        )
        if last > self.times * smooth[best] and last > smooth[best] + self.more and better:
            yield self.finding(
                WARNING,
                f"free-running speech got worse while the teacher-forced error did not: durations are off by "
                f"{last:.0%}, at step {error.steps[best + 2]:,} by {smooth[best]:.0%}",
                list(each(error, "duration error"))[best + 2 :][::-1],
                best=float(smooth[best]),
                last=last,
            )


def _pairs(run: Run) -> list[tuple[str, Curve, Curve]]:
    """Losses of one name in training and in validation, of another trainer."""
    return [
        (name, run.training[name].finite, curve.finite)
        for name, curve in run.held_out.items()
        if name in ("mel", "total")
        and name in run.training
        and len(curve.finite)
        and len(run.training[name].finite)
    ]


FIRST = (OtherTerms(), Stale())
CHECKS = (RunsWild(),)


def _mean_error(loss: float, delta: float) -> float:
    """The mean absolute error b of errors with a Laplace distribution whose mean Huber loss is ``loss``: it
    solves b^2 (1 - exp(-delta / b)) = loss, by bisection."""
    low, high = 0.0, 2 * loss / delta + delta
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle**2 * -np.expm1(-delta / middle) < loss else (low, middle)
    return low
