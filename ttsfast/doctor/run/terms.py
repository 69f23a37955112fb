"""What the loss is made of, and what its value means: weights, floors, and the losses of knowing nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.finding import ERROR, NOTE, WARNING, Finding
from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.subject import LEAST_POINTS, Run, RunCheck, at
from ttsfast.terms.spec import TERMS


class Total(RunCheck):
    """A total that is not the sum of its terms."""

    name = "total"
    training = ("total",)
    shows = ("total",)
    effect = "a term is left out, or counted twice: it is reported, and teaches nothing"
    remedy = "look at how the total is summed"
    most = 0.1
    """Of the total. Means over a log interval of products and products of means differ by 0.5%; predictors of
    durations, pitch and energy add 6%."""

    def at_hand(self, run: Run) -> bool:
        return super().at_hand(run) and len(_weights(run)) > 1

    def find(self, run: Run) -> Iterator[Finding]:
        total, weights = run.training["total"], _weights(run)
        products = [run.training[term].values * w.values for term, w in weights.items()]
        if any(len(product) != len(total) for product in products):
            return
        off = np.sum(products, axis=0) / total.values - 1
        # Errors of predictors, and whatever a model of one's own adds, are in the total and in no term.
        adds = run.config is not None and run.config.model.architecture != "convtts"
        off = np.maximum(off, 0) if adds else np.abs(off)
        if (typical := float(np.nanmedian(off))) > self.most:
            missing = (np.sum(products, axis=0) - total.values)[np.isfinite(total.values)]
            sizes = {term: float(np.median(p)) for term, p in zip(weights, products, strict=True)}
            guess = min(sizes, key=lambda term: abs(sizes[term] - abs(float(np.median(missing)))))
            yield self.finding(
                ERROR,
                f"the total is {typical:.0%} off the sum of its weighted terms: by as much as {guess} weighs",
                [
                    at(
                        total.steps[-1],
                        f"total {total.values[-1]:.4g}, sum {sum(p[-1] for p in products):.4g}",
                    )
                ],
                off=typical,
                most=self.most,
            )


class Weights(RunCheck):
    """Adaptive weights that rise and fall together."""

    name = "weights"
    shows = ("weight",)
    effect = (
        "they are a second learning rate that nobody set: Adam undoes it in the long run, clipping and the "
        "spike guard do not"
    )
    remedy = "use a rule whose weights balance terms (training.adaptive_weighting=dwa), or fixed ones"
    moving = 0.02
    """Standard deviation of a weight's logarithm: less is at rest. Clean runs: 0.01 to 0.05."""
    together = 0.1
    """Of it, that is left once what the weights share is taken off."""

    def at_hand(self, run: Run) -> bool:
        return len(_weights(run)) > 1

    def find(self, run: Run) -> Iterator[Finding]:
        weights = {term: w.finite for term, w in _weights(run).items()}
        if len({len(w) for w in weights.values()}) != 1 or min(w.values.min() for w in weights.values()) <= 0:
            return
        logs = np.log([w.values for w in weights.values()])
        shared = float((logs - logs.mean(axis=1, keepdims=True)).mean(axis=0).std())
        own = float((logs - logs.mean(axis=0)).std(axis=1).max())
        if shared > self.moving and own < self.together * shared:
            curve = next(iter(weights.values()))
            ends = [int(np.argmin(curve.values)), int(np.argmax(curve.values))]
            name = next(iter(weights))
            yield self.finding(
                WARNING,
                f"the loss weights only rescale the loss: all {len(weights)} rise and fall together, by "
                f"{shared:.0%}",
                [at(curve.steps[i], f"weight of {name} {curve.values[i]:.3g}") for i in ends],
                shared=shared,
                own=own,
            )


class KnowsNothing(RunCheck):
    """A loss that stands at that of the corpus mean, or of silence."""

    name = "baseline"
    with_corpus = True
    shows = ("mel", "mel_l1", "learning_rate")
    near = 0.1
    """Of the baseline. Clean runs were at 0.7 of the mean's error by step 200."""
    steps = 200
    remedies = (
        "look at the text's way to the decoder (`ttsfast doctor --model`: text matters, gradients), then at "
        "whether texts belong to their recordings (`ttsfast doctor STORE`)",
        "see that padding is masked, and that features are normalised: silence fills what is padded",
    )

    def at_hand(self, run: Run) -> bool:
        return super().at_hand(run) and ("mel_l1" in run.held_out or run.loss("mel") is not None)

    def find(self, run: Run) -> Iterator[Finding]:
        corpus = run.corpus
        assert corpus is not None
        if (held := run.held_out.get("mel_l1")) is not None and len(held.finite):
            name, curve, bases = "held-out mel_l1", held.finite, (corpus.mean_error, corpus.silence_error)
        else:
            loss = run.loss("mel")
            assert loss is not None
            name, curve, bases = "training mel loss", loss.finite, (corpus.mean_loss, corpus.silence_loss)
        if not len(curve) or run.last_step < self.steps:
            return
        value = curve.at_end()
        apart = [abs(value / base - 1) for base in bases]
        which = int(np.argmin(apart))
        if apart[which] < self.near or value > bases[0]:
            what = ("the corpus mean", "silence")[which]
            says = f"is that of {what}" if apart[which] < self.near else "is above that of the corpus mean"
            yield self.finding(
                ERROR,
                f"the {name} {says}: {value:.3g}, where {what} in every frame has {bases[which]:.3g}",
                [at(curve.steps[-1], f"{name} {curve.values[-1]:.4g}")],
                effect="the model says the same in every frame: it has not learnt to read, nor to listen "
                "to what it "
                "said",
                remedy=self.remedies[which],
                value=value,
                corpus_mean=bases[0],
                silence=bases[1],
            )


class TooGood(RunCheck):
    """A model that is shown what it should predict."""

    name = "leak"
    with_corpus = True
    held_out = ("mel_l1",)
    shows = ("mel", "mel_l1", "duration_error")
    effect = "it copies its target while it is trained, and has nothing to copy when it speaks"
    remedy = (
        "shift the decoder's input by a frame, mask the future, drop out the prenet, or narrow the "
        "posterior (`ttsfast doctor --model`: no leak from future frames)"
    )
    least = 0.05
    """Of the corpus mean's error. The best clean run, of a synthetic voice, had 0.19."""

    def find(self, run: Run) -> Iterator[Finding]:
        corpus, curve = run.corpus, run.held_out["mel_l1"].finite
        assert corpus is not None
        if (value := curve.at_end()) < self.least * corpus.mean_error:
            yield self.finding(
                ERROR,
                f"held-out mel_l1 is too good to be true: {value:.3g}, {value / corpus.mean_error:.1%} of "
                "the "
                "corpus mean's",
                [at(curve.steps[-1], f"mel_l1 {curve.values[-1]:.4g}")],
                value=value,
                corpus_mean=corpus.mean_error,
            )


class Floor(RunCheck):
    """A total that has nothing left but its floor."""

    name = "floor"
    training = ("total",)
    shows = ("total", "mel", "stop")
    effect = "the number can fall no further, however good the voice becomes: label smoothing keeps it up"
    remedy = "watch the excess of each term (excess_mel in the log), and held-out speech"
    most = 0.85
    """Of the total. Clean runs ended at 0.23 to 0.53."""
    moving = 0.05
    """Of the total, in the last half of the run: what falls by more is on its way yet."""

    def at_hand(self, run: Run) -> bool:
        return super().at_hand(run) and any(name.startswith("excess_") for name in run.training)

    def find(self, run: Run) -> Iterator[Finding]:
        total, weights = run.training["total"].finite, _weights(run)
        floors = [
            weight.at_end() * (run.training[term].at_end() - run.training[f"excess_{term}"].at_end())
            for term, weight in weights.items()
            if f"excess_{term}" in run.training
        ]
        share = sum(floors) / total.at_end()
        if share > self.most and total.at_end() > (1 - self.moving) * total.last_half.at_start():
            what = f"the total loss stands at its floor: {share:.0%} of {total.at_end():.3g} cannot fall"
            yield self.finding(
                NOTE, what, [at(total.steps[-1], f"total {total.values[-1]:.4g}")], share=share
            )


def _weights(run: Run) -> dict[str, Curve]:
    """The weights that were logged, by term, where the term was too."""
    found = {term: run.training.get(f"weight_{term}") for term in TERMS if term in run.training}
    return {term: w for term, w in found.items() if w is not None and len(w.finite) >= LEAST_POINTS}


FIRST = (Total(), Weights())
CHECKS = (KnowsNothing(), TooGood(), Floor())
