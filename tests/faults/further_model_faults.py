"""Further faults of the kinds of :mod:`model_faults`, which no check was chosen on.

They, their severities, checks and words were written down before any of them was tried.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from model_faults import ModelFault, around, fault
from torch import nn

from examples.fastspeech_style import FastSpeechStyle
from examples.tacotron2_style import Tacotron2Style
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.training import schedule

FURTHER: dict[str, ModelFault] = {}
further = partial(fault, into=FURTHER)


# Masks, padding and the future.


@further("error", "contract", "rows that sum to")
def softmax_over_the_steps(model: ConvTTS) -> None:
    """The wrong axis."""

    def wrong(self, call, steps, first, keys, values, allowed, speaker):
        weights = (self.query(steps) @ keys.mT).softmax(1)
        return weights @ values, weights

    around(model.attention, wrong)


@further("warning", "padding", "padding leaks into", base="parallel")
def mask_of_ones(model: ParallelTTS) -> None:
    """Made for the longest text of the batch, and so for all."""

    def wrong(self, call, text, text_lengths, speaker):
        return call(text, torch.full_like(text_lengths, text.shape[1]), speaker)

    around(model, wrong, "encode_text")


@further("warning", "padding", "padding leaks into")
def posterior_averaged_over_padding(model: ConvTTS) -> None:
    """A mean over the batch's longest recording."""

    def wrong(self, call, mel, lengths):
        mu, logvar = call(mel, lengths)
        share = lengths / mel.shape[1]
        return mu * share[:, None], logvar * share[:, None]

    around(model.posterior, wrong)


@further("warning", "padding", "auxiliary", base="fastspeech")
def durations_of_padding_learnt(model: FastSpeechStyle) -> None:
    """An auxiliary loss that counts padded symbols, each of which lasts no frame."""

    def wrong(self, call, text, *rest, **named):
        out = call(text, *rest, **named)
        padded = (text == 0).float()
        return replace(out, auxiliary=out.auxiliary + (padded * self.duration[-1].bias).square().sum())

    around(model, wrong)


@further("error", "padding", "in a batch or alone", base="tacotron")
def order_of_the_batch_lost(model: Tacotron2Style) -> None:
    """Sorted by length to be packed, and not sorted back: each recording has another one's text."""

    def wrong(self, call, text, text_lengths, speaker):
        order = text_lengths.argsort()
        return call(text[order], text_lengths[order], speaker[order])

    around(model, wrong, "_start")


@further("error", "leak", "the future leaks")
def norm_over_time(model: ConvTTS) -> None:
    """Each channel normalised over the whole utterance, in a decoder that is to hear the past alone."""

    def wrong(self, call, x):
        return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True, correction=0) + 1e-5)

    around(model.decoder_norm, wrong)


# What an output does.


@further("error", "attention", "cannot")
def softmax_twice(model: ConvTTS) -> None:
    """Of weights that are none below 0 and none above 1: whatever is learnt, they stay all but alike."""

    def wrong(self, call, steps, first, keys, values, allowed, speaker):
        _, weights = call(steps, first, keys, values, allowed, speaker)
        again = weights.masked_fill(~allowed, -torch.inf).softmax(-1)
        return again @ values, again

    around(model.attention, wrong)


@further("error", "stop", "probabilit")
def stop_is_a_probability(model: ConvTTS) -> None:
    """A sigmoid before a loss that takes logits: no probability is ever below a half."""

    def wrong(self, call, *args, **kwargs):
        mel, stop, weights = call(*args, **kwargs)
        return mel, stop.sigmoid(), weights

    around(model, wrong, "decode")


@further("error", "synthesis", "does not speak what forward predicts")
def heard_a_step_late(model: ConvTTS) -> None:
    """In training each step hears the group before the last."""

    def wrong(self, call, text, text_lengths, mel, mel_lengths, speaker=None):
        silence = self.silence.expand(len(mel), self.reduction_factor, -1)
        late = torch.cat([silence, mel[:, : -self.reduction_factor]], dim=1)
        return call(text, text_lengths, late, mel_lengths, speaker)

    around(model, wrong)


@further("error", "synthesis", "does not speak what forward predicts", base="tacotron")
def groups_laid_out_otherwise(model: Tacotron2Style) -> None:
    """Bins and frames of a step change places when it speaks."""

    def wrong(self, call, *args, **kwargs):
        spoken = call(*args, **kwargs)
        groups = spoken.mel.unflatten(1, (-1, self.reduction_factor))
        return replace(spoken, mel=groups.mT.reshape(spoken.mel.shape))

    around(model, wrong, "synthesize")


# Chance, memory and modes.


@further("warning", "randomness", "drops 95%", base="tacotron")
def share_kept_taken_for_share_dropped(model: Tacotron2Style) -> None:
    """A dropout of 0.95, from a framework that asked for what is kept."""
    for layer in model.text_layers:
        layer.dropout.p = 0.95


@further("warning", "randomness", "two training passes are the same")
def seed_set_in_forward(model: ConvTTS) -> None:
    """Every step drops the same units."""

    def wrong(self, call, *args, **kwargs):
        torch.manual_seed(1234)
        return call(*args, **kwargs)

    around(model, wrong)


@further("error", "state", "leaves something behind", base="fastspeech")
def mask_kept_by_shape(model: FastSpeechStyle) -> None:
    """Made once for each size of a batch, whose lengths are others the next time."""
    model.encoder.kept = {}
    around(model.encoder, lambda self, call, x, valid: call(x, self.kept.setdefault(valid.shape, valid)))


@further("error", "checkpoint", "goes on otherwise")
def layers_in_a_list(model: ConvTTS) -> None:
    """Which no optimiser trains and no checkpoint holds."""
    model.spare = [nn.Linear(32, 32), nn.Linear(32, 32)]

    def wrong(self, call, latent, speaker):
        condition = call(latent, speaker)
        for layer in self.spare:
            condition = layer(condition)
        return condition

    around(model, wrong, "condition")


# Gradients and rates.


@further("warning", "gradients", "moved by nothing", base="fastspeech")
def table_read_without_gradient(model: FastSpeechStyle) -> None:
    """Looked up in ``.data``."""
    around(model.symbols, lambda self, call, text: F.embedding(text, self.weight.data))


def _falling(step: int, config: Any, _: float) -> float:
    return 1e-3 - 1e-7 * step


@further(
    "error",
    "schedule",
    "the learning rate is -",
    patch=lambda patch: patch.setattr(schedule, "learning_rate", _falling),
)
def rate_below_0(model: ConvTTS) -> None:
    """A line that goes on falling."""


@further("error", "gradients", "not finite", base="fastspeech")
def logarithm_of_nothing(model: FastSpeechStyle) -> None:
    """Of lengths whose padding is 0, chosen away only afterwards."""

    def wrong(self, call, encoded, read):
        length = call(encoded, read).exp() * read
        return torch.where(read, length.log(), 0.0)

    around(model, wrong, "_log_durations")
