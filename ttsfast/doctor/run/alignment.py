"""Whether the text finds its way into the sound: attention, and the latent that may stand in for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding
from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.subject import LEAST_POINTS, Run, RunCheck, at
from ttsfast.evaluation.targets import TARGETS


class Attention(RunCheck):
    """Attention that does not form, or is lost again."""

    name = "attention"
    shows = ("attention", "diagonal_mass", "coverage", "monotonicity")
    effect = "the decoder speaks without reading: it babbles, and no further step of training mends that"
    remedy = (
        "trim the silence at the ends (prepare --trim), leave out long clips, raise "
        "training.attention_loss_weight, and see that texts belong to their recordings (`ttsfast doctor "
        "STORE`)"
    )
    due = 1000
    """Steps. With guided attention clean runs had nine tenths of it on the diagonal by step 200."""
    due_without = 20_000
    """Steps of another trainer, whose attention may have nothing to guide it."""
    formed, hardly = 0.8, float(TARGETS["diagonal_mass"])
    """``diagonal_mass``; a model that attends to all alike has 0.28, and a voice that works the target."""
    read = 0.5
    """``coverage``: half of the text is not read. Clean runs passed 0.9 by step 600."""
    fallen = 0.5
    """Of the attention loss's first level; clean runs ended at 0.1 to 0.15 of it."""
    lost = 0.15
    """Of ``diagonal_mass``, against its best."""

    def at_hand(self, run: Run) -> bool:
        there = "diagonal_mass" in run.held_out or _long(run.training.get("attention"))
        return there and not run.by_durations

    def find(self, run: Run) -> Iterator[Finding]:
        if (mass := run.held_out.get("diagonal_mass")) is not None and len(mass.finite):
            yield from self._held_out(run, mass.finite)
        else:
            yield from self._by_loss(run, run.training["attention"].finite)

    def _held_out(self, run: Run, mass: Curve) -> Iterator[Finding]:
        coverage = run.held_out.get("coverage")
        last = float(np.median(mass.values[-3:]))
        read = 1.0 if coverage is None else float(np.median(coverage.finite.values[-3:]))
        best = int(np.argmax(mass.values))
        evidence = [
            at(step, f"diagonal mass {v:.3f}") for step, v in zip(mass.steps, mass.values, strict=True)
        ]
        if len(mass) > 4 and mass.values[best] - last > self.lost and mass.values[best] > self.formed:
            yield self.finding(
                ERROR,
                f"attention was lost after step {mass.steps[best]:,}: {mass.values[best]:.2f} of it lay on "
                f"the diagonal, now {last:.2f}",
                evidence[best:][::-1],
                remedy="go back to the checkpoint of that step, and lower the rate; guided attention that "
                "faded (training.attention_fade_steps) may be wanted longer",
                diagonal_mass=last,
                best=mass.values[best],
            )
        elif run.last_step >= self.due and (last < self.hardly or read < self.read):
            nothing = last < self.formed or read < self.read
            yield self.finding(
                ERROR if nothing else WARNING,
                f"attention has not formed by step {run.last_step:,}: {last:.2f} of it on the diagonal"
                + ("" if coverage is None else f", {read:.0%} of the text read"),
                evidence[::-1],
                diagonal_mass=last,
                coverage=read,
                due=self.due,
            )

    def _by_loss(self, run: Run, loss: Curve) -> Iterator[Finding]:
        levels = loss.levels()
        first, last, best = loss.at_start(), float(levels[-1]), int(np.argmin(levels))
        due = self.due if run.config is not None else self.due_without
        if best < len(levels) - 2 and last > 2 * levels[best] and last > self.fallen * first > levels[best]:
            step = loss.after(best)
            yield self.finding(
                ERROR,
                f"attention was lost after step {step:,}: its loss rose from {levels[best]:.3g} to "
                f"{last:.3g}",
                [at(step, f"best {levels[best]:.3g}"), at(loss.steps[-1], f"last {last:.3g}")],
                remedy="go back to the checkpoint of that step, and lower the rate",
                best=levels[best],
                last=last,
            )
        elif run.last_step >= due and last > self.fallen * first:
            yield self.finding(
                ERROR,
                f"attention has not formed by step {run.last_step:,}: its loss went from {first:.3g} to "
                f"{last:.3g}",
                [at(loss.steps[0], f"{first:.3g}"), at(loss.steps[-1], f"{last:.3g}")],
                first=first,
                last=last,
                due=due,
            )


class Latent(RunCheck):
    """A posterior that says nothing."""

    name = "kl"
    training = ("kl",)
    shows = ("kl", "weight_kl")
    effect = "the latent carries nothing, so that every sentence gets the average way of saying it"
    remedy = (
        "set training.kl_free_bits above 0 (1 to 4 nats), lower training.kl_loss_weight, or leave the "
        "posterior out (model.posterior=false)"
    )
    least = 0.1
    """Nats of a latent. A collapsed one had 0.04, one that worked 38; the least of clean runs is 2."""
    gone = 1e-3
    """Of its highest level, where nats cannot be told."""
    due = 500
    """Steps: it begins at 0 and takes some hundred to be found."""

    def find(self, run: Run) -> Iterator[Finding]:
        curve = run.training["kl"].finite
        last, best = curve.at_end(0.25), float(curve.levels().max())
        if run.last_step < self.due or (run.config is not None and not run.config.model.posterior):
            return
        nats = self._nats(run, last)
        if (nats is not None and nats < self.least) or (nats is None and last < self.gone * best):
            said = f"{nats:.2g} nats" if nats is not None else f"{last:.2g}, {last / best:.2%} of its best"
            what = f"the latent is empty: its KL is {said}"
            yield self.finding(
                WARNING,
                what,
                [Evidence(f"step {int(s):,}", f"kl {v:.3g}", float(s)) for s, v in _ends(curve)],
                kl=last,
                best=best,
            )

    @staticmethod
    def _nats(run: Run, kl: float) -> float | None:
        """Per latent; None where neither scale nor corpus is known."""
        if run.config is None:
            return None
        if run.config.training.kl_normalization == "vector":
            return kl
        if run.corpus is None:
            return None
        return kl * run.config.data.n_mels * run.corpus.frames / run.corpus.utterances


def _ends(curve: Curve) -> list[tuple[int, float]]:
    places = [len(curve) - 1, int(np.argmax(curve.values))]
    return [(int(curve.steps[i]), float(curve.values[i])) for i in places]


def _long(curve: Curve | None) -> bool:
    return curve is not None and len(curve.finite) >= LEAST_POINTS


CHECKS = (Attention(), Latent())
