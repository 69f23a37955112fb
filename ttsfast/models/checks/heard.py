"""What reaches a model's outputs: all that should, and nothing that should not.

Looked at in a copy whose weights were stirred, for that is a matter of how a model is wired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding
from ttsfast.data.loading.batch import Batch
from ttsfast.models.checks.check import ModelCheck, NotHere
from ttsfast.models.checks.probe import (
    NOTHING,
    answer,
    apart,
    differences,
    other_text,
    rows,
    speak,
    stirred,
    without_chance,
    without_posterior,
)
from ttsfast.models.checks.trial import Trial, seed
from ttsfast.models.interface import AcousticOutput, tracks_for

SPOKEN_STEPS = 4
"""Decoder steps of speech that two texts, or speakers, are compared by."""


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


CHECKS = (Leak(), Speaker(), Text())
