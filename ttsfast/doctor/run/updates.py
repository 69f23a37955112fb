"""Gradients and the updates they make: that they arrive, at every part, in the size they should."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding
from ttsfast.doctor.run.subject import Run, RunCheck, at, each


class GradientSize(RunCheck):
    """Gradients that do not arrive, or not in their size."""

    name = "gradient"
    training = ("gradient_norm",)
    shows = ("gradient_norm", "mel", "total")
    vanished = 1e-4
    """Clean runs end at 0.4. AMP divides by 65,536 at first, so that a gradient unscaled twice is below."""
    clipped = 10.0
    """Times the clipping norm; clean runs end at 1 to 2 times it."""

    def find(self, run: Run) -> Iterator[Finding]:
        curve = run.training["gradient_norm"].finite
        norm = float(np.median(curve.last_half.values))
        if norm < self.vanished:
            scale = run.training.get("loss_scale")
            twice = scale is not None and 0.01 < norm * scale.at_end() < 1000 and scale.at_end() > 1
            what = (
                "no gradient arrives"
                if norm == 0
                else f"the gradients are vanishing: their norm is {norm:.2g}"
            )
            if twice:
                what += ", which is a usual one divided by the loss scale: unscaled twice"
            yield self.finding(
                ERROR,
                what,
                [at(curve.steps[-1], f"gradient norm {curve.values[-1]:.2g}")],
                effect="the model learns nothing, or what the optimiser's epsilon leaves of it",
                remedy="call the scaler's unscale_ once, before clipping"
                if twice
                else "look for a detach, a no_grad, a term without weight, or parameters that the "
                "optimiser does not "
                "have (`ttsfast doctor --model` finds which)",
                norm=norm,
                least=self.vanished,
            )
        clip = run.config.training.gradient_clip_norm if run.config is not None else 0.0
        if clip > 0 and norm > self.clipped * clip:
            yield self.finding(
                WARNING,
                f"gradients are clipped to a {norm / clip:.0f}th of themselves, step for step",
                each(curve.where(curve.values > self.clipped * clip), "gradient norm"),
                effect="every step has the same length, whatever the loss says, and large terms drown "
                "small ones",
                remedy=f"raise training.gradient_clip_norm above {norm:.2g}, or lower the loss weights "
                "together",
                norm=norm,
                clip=clip,
            )


class Updates(RunCheck):
    """A part of the model that does not move, or is thrown about."""

    name = "updates"
    shows = ("update_ratio",)
    still = 1e-3
    """Of the other parts' median: embeddings and norms move a tenth as much as the rest."""
    thrown = 0.3
    """Of its weights, at each measurement. The largest median of a part in clean runs: 0.02."""

    def at_hand(self, run: Run) -> bool:
        return bool(run.ratios)

    def find(self, run: Run) -> Iterator[Finding]:
        # Weights that begin at 0 have a large first update.
        typical = {
            part: float(np.median(curve.finite.values))
            for part, curve in run.ratios.items()
            if len(curve.finite)
        }
        if not typical:
            return
        middle = float(np.median(list(typical.values())))
        frozen = () if run.config is None else run.config.training.freeze.split(",")
        still = {
            p: r
            for p, r in typical.items()
            if (r == 0 or r < self.still * middle) and not any(f.split(".")[0] == p for f in frozen)
        }
        if still and len(still) < len(typical):
            gradients = [run.training.get(f"gradient_ratio.{part}") for part in still]
            without = [c is not None and not c.finite.values.any() for c in gradients]
            yield self.finding(
                ERROR,
                f"{_named(still)} {'does' if len(still) == 1 else 'do'} not learn",
                [
                    Evidence(part, f"update ratio {r:.2g}{', and no gradient' if none else ''}")
                    for (part, r), none in zip(still.items(), without, strict=True)
                ],
                effect="the rest must do without it, on weights that stay as they were made",
                remedy="look for a detach or a no_grad on its way to the loss, or parameters that the "
                "optimiser "
                "does not have; if it is meant, name it in training.freeze",
                update_ratio=min(still.values()),
                of_the_others=middle,
            )
        thrown = {p: r for p, r in typical.items() if r > self.thrown}
        if thrown:
            yield self.finding(
                WARNING,
                f"{_named(thrown)} {'is' if len(thrown) == 1 else 'are'} thrown about: a step moves "
                f"{'its' if len(thrown) == 1 else 'their'} weights by {max(thrown.values()):.0%}",
                [Evidence(part, f"update ratio {r:.2g}") for part, r in thrown.items()],
                effect="what it learnt at one step is gone at the next",
                remedy="give it a lower rate, or larger first weights",
                update_ratio=max(thrown.values()),
                most=self.thrown,
            )


class Overflow(RunCheck):
    """fp16 whose scale falls and falls."""

    name = "overflow"
    training = ("skipped_updates",)
    shows = ("skipped_updates", "loss_scale")
    effect = "those steps were computed and thrown away"
    remedy = (
        "train in bf16, or in fp32 (data.mixed_precision=false), and look for an operation that overflows"
    )
    some, most = 0.02, 0.2
    """Of the steps. A scale that doubles every 2,000 steps (torch's) loses one in as many."""

    def find(self, run: Run) -> Iterator[Finding]:
        curve = run.training["skipped_updates"].finite
        skipped, steps = float(curve.values.max()), int(curve.steps[-1])
        share = skipped / (steps + skipped)
        if share > self.some:
            yield self.finding(
                ERROR if share > self.most else WARNING,
                f"{share:.0%} of the updates were skipped, for gradients that overflow in fp16",
                [at(steps, f"{skipped:.0f} skipped updates")],
                share=share,
                most=self.most,
            )


def _named(parts: dict[str, float]) -> str:
    names = list(parts)
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]


CHECKS = (GradientSize(), Updates(), Overflow())
