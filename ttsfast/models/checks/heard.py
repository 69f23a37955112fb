"""What reaches a model's outputs: all that should, and nothing that should not.

Looked at in a copy whose weights were stirred, for that is a matter of how a model is wired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding
from ttsfast.data.loading.batch import Batch
from ttsfast.models.checks.check import ModelCheck, NotHere
from ttsfast.models.checks.probe import (
    answer,
    apart,
    differences,
    masks,
    named,
    other_mel,
    other_text,
    own_part,
    rows,
    speak,
    stirred,
    widened,
    without_chance,
    without_posterior,
)
from ttsfast.models.checks.trial import Trial, seed
from ttsfast.models.checks.watch import watched
from ttsfast.models.interface import AcousticOutput, tracks_for

NOTHING = 1e-5
"""A difference, as a share of how much an output varies, that is rounding: of single precision it is 1e-6."""
SPOKEN_STEPS = 4
"""Decoder steps of speech that two texts, or speakers, are compared by."""


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

    def find(self, trial: Trial) -> Iterator[Finding]:
        r = trial.reduction_factor
        batch, silence = trial.batch, torch.from_numpy(trial.info.silence)
        wide = widened(batch, silence, 4 * r, 8)
        evaluating, training = stirred(trial), stirred(trial).train()
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
            ((value, name, seen) for name, (value, seen) in found.items() if value > self.tolerance),
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


class Leak(ModelCheck):
    """Frames that are predicted from themselves, or from later ones."""

    name = "leak"
    effect = (
        "training shows the model what it is to predict: the loss falls far and fast, and speech, which has "
        "nothing to look at, is noise"
    )
    remedy = (
        "let step s hear frames before s * r only: shift the mel by a step, and make every layer behind it "
        "causal"
    )
    probes = 8
    share = 1e-6
    """Of a gradient's power that may lie in later frames: rounding."""
    near = 3.0
    """How many times a frame's own neighbourhood may matter more than frames far behind it: a summary of
    the whole recording, as a reference encoder makes, knows no neighbourhood."""
    rank = 4
    """Independent numbers of a later frame that reach a prediction; pitch and energy are one each."""

    def find(self, trial: Trial) -> Iterator[Finding]:
        model, r = stirred(trial), trial.reduction_factor
        batch = rows(trial.batch, [0], trimmed=True)
        steps = -(-batch.mel.shape[1] // r)
        if steps < 8:
            raise NotHere(f"{steps} decoder steps are too few")
        step = steps // 2
        first = step * r
        mel = batch.mel.clone().requires_grad_()
        with torch.enable_grad(), without_chance(model):
            seed(1)
            output = AcousticOutput.of(
                model(
                    batch.text,
                    batch.text_lengths,
                    mel,
                    batch.mel_lengths,
                    speaker=batch.speaker,
                    **tracks_for(model, batch),
                )
            )
            without_posterior(output)
        # Not within without_chance, whose random numbers are all 0.
        with torch.enable_grad():
            for name, value in (
                # The decoder's own: what mends it afterwards, as a post-net does, may look ahead.
                (
                    "mel",
                    (output.mel[0] if isinstance(output.mel, tuple) else output.mel)[0, first : first + r],
                ),
                ("stop_logits", None if output.stop_logits is None else output.stop_logits[0, step]),
            ):
                if value is not None and value.requires_grad:
                    yield from self._from(name, value, mel, first, r, output.posterior is not None)

    def _from(
        self, name: str, value: Tensor, mel: Tensor, first: int, r: int, posterior: bool
    ) -> Iterator[Finding]:
        generator = torch.Generator().manual_seed(4)
        gradients = []
        for _ in range(self.probes if value.dim() else 1):
            probe = torch.randn(value.shape, generator=generator).to(value)
            # Of a sum: a gradient to begin with makes torch import its symbolic shapes, for seconds.
            (gradient,) = torch.autograd.grad(
                (value * probe).sum(), mel, retain_graph=True, allow_unused=True
            )
            if gradient is None:
                return
            gradients.append(gradient[0].detach().double())
        stacked = torch.stack(gradients)
        by_frame = stacked.square().sum((0, 2))
        later = stacked[:, first:]
        share = float(by_frame[first:].sum() / by_frame.sum().clamp(min=1e-300))
        if not share > self.share:
            return
        near = float(by_frame[first : first + 3 * r].mean())
        far = float(by_frame[first + 3 * r :].mean())
        local = near > self.near * far
        sizes = torch.linalg.svdvals(later.flatten(1))
        rank = int((sizes > 0.05 * sizes[0]).sum())
        if posterior and not local:
            return
        certain = local and rank >= self.rank
        worst = [
            Evidence(f"frame {index}", f"{float(by_frame[index] / by_frame.sum()):.1%} of what it is made of")
            for index in by_frame[first:].argsort(descending=True)[:5].add(first).tolist()
        ]
        whole = "itself or from frames close behind it" if local else "all of the recording"
        yield self.finding(
            ERROR if certain else WARNING,
            f"the future leaks: {name} of frame {first} is made, by {share:.0%}, from {whole}",
            worst,
            remedy="" if local else f"{self.remedy}; nothing, where a reference encoder is meant to hear it",
            share=share,
            near_to_far=near / max(far, 1e-300),
            rank=rank,
        )


class Speaker(ModelCheck):
    """Speakers that sound alike."""

    name = "speaker"
    effect = "all speakers are one voice, the mean of all"
    remedy = "add the speaker's embedding to what the decoder reads, in forward and in synthesize"

    def find(self, trial: Trial) -> Iterator[Finding]:
        count = len(trial.info.speakers)
        if count < 2:
            raise NotHere("one speaker")
        model, batch, r = stirred(trial), trial.batch, trial.reduction_factor
        other = replace(batch, speaker=(batch.speaker + 1) % count)
        severity = WARNING if trial.made_up else ERROR
        remedy = f"{self.remedy}; nothing, where it is for a corpus of one voice" if trial.made_up else ""
        with torch.no_grad(), without_chance(model):
            changed = differences(model, batch, other, r, answer)["mel"]
            if changed < NOTHING:
                yield self.finding(
                    severity,
                    f"the speaker is not heard: another one changes the mel by {changed:.1g} deviations",
                    remedy=remedy,
                    change=changed,
                )
                return
            if not _speech_differs(model, batch, other, r):
                yield self.finding(
                    severity,
                    "synthesize does not hear the speaker, though forward does: another one changes nothing",
                    remedy=remedy,
                )


class Text(ModelCheck):
    """Speech that does not come from the text."""

    name = "text"
    effect = "it learns to go on from the frames before, and babbles; no loss shows it"
    remedy = (
        "follow the encoded text into the decoder: what the attention read must be added, and not detached"
    )

    def find(self, trial: Trial) -> Iterator[Finding]:
        model, batch, r = stirred(trial), trial.batch, trial.reduction_factor
        symbols = len(trial.info.symbols)
        other = other_text(batch, symbols, valid=True)
        turned = other_text(batch, symbols, valid=True, reverse=True)
        with torch.no_grad(), without_chance(model):
            changed = differences(model, batch, other, r, answer)["mel"]
            if changed < NOTHING:
                yield self.finding(
                    ERROR,
                    f"the text is not heard: another one changes the mel by {changed:.1g} deviations",
                    change=changed,
                )
                return
            order = differences(model, batch, turned, r, answer)["mel"]
            if order < NOTHING:
                yield self.finding(
                    WARNING,
                    f"the order of the text is not heard: turned around, it changes the mel by {order:.1g} "
                    "deviations",
                    remedy="give the encoder convolutions, recurrence or positions",
                    change=order,
                )
            if not _speech_differs(model, batch, other, r):
                yield self.finding(
                    ERROR,
                    "synthesize does not hear the text, though forward does: another one changes nothing",
                )


def _speech_differs(model: nn.Module, batch: Batch, other: Batch, r: int) -> bool:
    """Whether two batches are spoken differently."""
    first, second = (speak(model, one, max_frames=SPOKEN_STEPS * r) for one in (batch, other))
    if first.mel.shape != second.mel.shape or not torch.equal(first.mel_lengths, second.mel_lengths):
        return True
    return apart(second.mel.float(), first.mel.float()) > NOTHING


FIRST = (Mask(),)
CHECKS = (Padding(), Leak(), Speaker(), Text())
