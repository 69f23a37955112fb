"""What padding, and the other utterances of a batch, do to a model's outputs: nothing, where it is right.

Looked at in a copy whose weights were stirred, for that is a matter of how a model is wired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding
from ttsfast.data.loading.batch import Batch
from ttsfast.models.checks.check import ModelCheck
from ttsfast.models.checks.probe import (
    NOTHING,
    answer,
    apart,
    differences,
    masks,
    named,
    other_mel,
    other_text,
    own_part,
    rows,
    stirred,
    widened,
    without_chance,
)
from ttsfast.models.checks.trial import Trial
from ttsfast.models.checks.watch import watched
from ttsfast.models.interface import AcousticOutput


class Mask(ModelCheck):
    """What is padding, taken for what is not."""

    name = "mask"
    effect = "the model sees the padding and is blind to the speech; nothing aligns"
    remedy = (
        "turn the mask around: of torch's functions, masked_fill fills where it is True, "
        "scaled_dot_product_attention attends where it is True, and key_padding_mask leaves out where it is "
        "True"
    )

    def find(self, trial: Trial) -> Iterator[Finding]:
        model, r = stirred(trial), trial.reduction_factor
        batch = rows(trial.batch, list(range(len(trial.batch.ids))), trimmed=True)
        silence = torch.from_numpy(trial.info.silence)
        wide = widened(batch, silence, 2 * r, 4)
        with torch.no_grad():
            with watched(model, wide, r) as seen:
                answer(model, wide)
            if seen.inverted:
                where, said = next(iter(seen.inverted.items()))
                yield self.finding(
                    ERROR,
                    f"the mask of {where} is the wrong way round: {said}",
                    [Evidence(name, what) for name, what in seen.inverted.items()],
                )
                return
            output = answer(model, batch)
            yield from self._attention(output, batch, r)
            yield from self._blind(model, batch, wide, trial)
            yield from self._empty(output, answer(model, wide), wide)

    def _attention(self, output: AcousticOutput, batch: Batch, r: int) -> Iterator[Finding]:
        """Weights that lie on the padding of the text."""
        if output.attention is None:
            return
        weights, valid = output.attention.detach().float(), masks(batch)[0]
        for row in range(len(batch.ids)):
            if bool(valid[row].all()):
                continue
            steps = -(-int(batch.mel_lengths[row]) // r)
            on_padding = float(weights[row, ..., :steps, :][..., ~valid[row]].sum(-1).mean())
            if not on_padding > 1e-3:
                continue
            what = (
                f"attention lies on the padding: {on_padding:.0%} of its weight, of a text of "
                f"{int(batch.text_lengths[row])} symbols padded to {batch.text.shape[1]}"
            )
            if on_padding > 0.999:
                what = f"the mask of attention is the wrong way round: {on_padding:.0%} of it lies on padding"
            yield self.finding(
                ERROR if on_padding > 0.5 else WARNING,
                what,
                [Evidence("attention", f"{on_padding:.1%} on padding")],
                on_padding=on_padding,
            )
            return

    def _blind(self, model: nn.Module, batch: Batch, wide: Batch, trial: Trial) -> Iterator[Finding]:
        """Outputs that padding reaches, and text or speech does not."""
        r, symbols = trial.reduction_factor, len(trial.info.symbols)
        for what, padding, own in (
            ("text", other_text(wide, symbols, valid=False), other_text(wide, symbols, valid=True)),
            ("mel", other_mel(wide, valid=False), other_mel(wide, valid=True)),
        ):
            by_padding = differences(model, wide, padding, r, answer)
            by_own = differences(model, wide, own, r, answer)
            wrong = [
                name
                for name, found in by_padding.items()
                if found > 1e-3 and found > 10 * by_own[name] and math.isfinite(found)
            ]
            if wrong:
                name = max(wrong, key=by_padding.__getitem__)
                yield self.finding(
                    ERROR,
                    f"a mask of the {what} is the wrong way round: {name} follows its padding "
                    f"({by_padding[name]:.2g}) and not what is in it ({by_own[name]:.2g})",
                    [
                        Evidence(n, f"{by_padding[n]:.2g} by padding, {by_own[n]:.2g} by {what}")
                        for n in wrong
                    ],
                    by_padding=by_padding[name],
                    by_own=by_own[name],
                )
                return
            if by_own["mel"] < NOTHING and by_padding["mel"] < NOTHING and what == "text":
                by_amount = differences(model, batch, wide, r, answer)["mel"]
                if by_amount > 1e-3:
                    yield self.finding(
                        ERROR,
                        "a mask of the text is the wrong way round: the mel follows how much padding there "
                        f"is ({by_amount:.2g}), and not the text",
                        [Evidence("mel", f"{by_amount:.2g} by padding, {by_own['mel']:.1g} by the text")],
                        by_padding=by_amount,
                    )
                    return
        alone, padded = named(answer(model, rows(batch, [0], trimmed=True))), named(answer(model, wide))
        for name, value in alone.items():
            with_padding = own_part(name, padded[name], wide, 0, r)
            if not value.isfinite().all() and with_padding.isfinite().all():
                yield self.finding(
                    ERROR,
                    f"a mask is the wrong way round: {name} is NaN for an utterance without padding, "
                    "and is one as soon as there is padding to look at",
                    [Evidence(name, "NaN without padding")],
                )
                return

    def _empty(self, output: AcousticOutput, padded: AcousticOutput, wide: Batch) -> Iterator[Finding]:
        """Speech that is blank while its padding is not."""
        mel, valid = padded.final_mel.detach().float(), masks(wide)[1]
        inside, outside = float(mel[valid].std()), float(mel[~valid].std())
        if inside < 1e-6 < 1e-3 < outside:
            yield self.finding(
                ERROR,
                "the mask of the mel is the wrong way round: the prediction is blank where there is speech "
                f"(deviation {inside:.1g}) and not in the padding ({outside:.2g})",
                [Evidence("mel", f"deviation {inside:.1g} in speech, {outside:.2g} in padding")],
                inside=inside,
                outside=outside,
            )


class Padding(ModelCheck):
    """Outputs that change with the padding, or with who else is in the batch."""

    name = "padding"
    effect = (
        "what an utterance teaches depends on its neighbours in the batch, and speech of one sentence is not "
        "what was trained"
    )
    remedy = (
        "set padding to 0 before every convolution and recurrent layer (x * mask), pack sequences, and use "
        "LayerNorm, or statistics of what is valid, in the place of BatchNorm"
    )
    tolerance = 1e-3
    """Of what an output varies. Models that mask everything have 1e-6."""
    of_auxiliary = 1e-4
    """Of the auxiliary loss itself, most of which may be of something else; rounding has 1e-7."""

    def find(self, trial: Trial) -> Iterator[Finding]:
        r = trial.reduction_factor
        batch, silence = trial.batch, torch.from_numpy(trial.info.silence)
        wide = widened(batch, silence, 4 * r, 8)
        evaluating, training = stirred(trial), stirred(trial).train()
        if mixed := self._mixed_up(evaluating, trial):
            yield mixed
            return
        found: dict[str, tuple[float, str]] = {}
        with torch.no_grad():
            for model, mode in ((evaluating, "evaluation"), (training, "training")):
                with without_chance(model):
                    if max(differences(model, batch, batch, r, answer).values()) > NOTHING:
                        continue  # It is not the padding that changes it.
                    for name, value in differences(model, batch, wide, r, answer).items():
                        seen = (
                            f"{value:.2g} of its deviation, by {4 * r} frames and 8 symbols more, in {mode}"
                        )
                        found[name] = max(found.get(name, (0.0, "")), (value, seen))
            with without_chance(evaluating):
                narrow, more = (answer(evaluating, one).auxiliary for one in (batch, wide))
                if narrow is not None and more is not None:
                    changed = abs(float(more - narrow)) / max(abs(float(narrow)), 1e-12)
                    seen = f"{changed:.2g} of itself, by {4 * r} frames and 8 symbols more"
                    found["auxiliary"] = (changed, seen)
                together = named(answer(evaluating, batch))
                for row in range(len(batch.ids)):
                    alone = rows(batch, [row], trimmed=True)
                    for name, own in named(answer(evaluating, alone)).items():
                        changed = apart(
                            own_part(name, together[name], batch, row, r), own_part(name, own, alone, 0, r)
                        )
                        seen = f"{changed:.2g} of its deviation, in a batch or alone"
                        found[name] = max(found.get(name, (0.0, "")), (changed, seen))
        wrong = sorted(
            (
                (value, name, seen)
                for name, (value, seen) in found.items()
                if value > (self.of_auxiliary if name == "auxiliary" else self.tolerance)
            ),
            reverse=True,
        )
        if wrong:
            value, name, seen = wrong[0]
            yield self.finding(
                WARNING,
                f"padding leaks into {', '.join(n for _, n, _ in wrong)}: {name} changes by {seen}",
                [Evidence(n, s) for _, n, s in wrong],
                change=value,
                tolerance=self.tolerance,
            )

    def _mixed_up(self, model: nn.Module, trial: Trial) -> Finding | None:
        """Rows of a batch that are another utterance's: its text reaches them, and not its own."""
        batch, r = trial.batch, trial.reduction_factor
        other = other_text(batch, len(trial.info.symbols), valid=True)
        with torch.no_grad(), without_chance(model):
            known = named(answer(model, batch))["mel"]
            for row, name in enumerate(batch.ids):
                text = batch.text.clone()
                text[row] = other.text[row]
                changed = named(answer(model, replace(batch, text=text)))["mel"]
                moved = [
                    apart(own_part("mel", changed, batch, i, r), own_part("mel", known, batch, i, r))
                    for i in range(len(batch.ids))
                ]
                most = max(range(len(moved)), key=moved.__getitem__)
                if moved[most] > self.tolerance and moved[most] > 10 * moved[row]:
                    return self.finding(
                        ERROR,
                        f"rows of the batch are mixed up: the text of {name} reaches {batch.ids[most]}, and "
                        "not its own recording; what is said is another in a batch or alone",
                        [Evidence(name, f"its text reaches {batch.ids[most]}")],
                        effect="every recording is learnt with the text of another one",
                        remedy="where a batch is sorted, as to be packed, sort back: x[order.argsort()]",
                        by_own=moved[row],
                        by_other=moved[most],
                    )
        return None


FIRST = (Mask(),)
CHECKS = (Padding(),)
