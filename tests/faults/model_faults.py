"""Models that are wrong, each in one known way, and the clean ones that they were made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.fastspeech_style import FastSpeechStyle
from examples.tacotron2_style import Tacotron2Style
from ttsfast.config import config_from_dict
from ttsfast.models.checks.trial import Trial, batch_of, made_up_utterances, made_up_voice
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.convtts_config import ConvTTSConfig
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.models.paralleltts_config import ParallelTTSConfig
from ttsfast.terms.masks import valid_mask
from ttsfast.training import schedule
from ttsfast.training.setup import build_loss

BINS = 20
VOICE = made_up_voice(BINS)
SYMBOLS = len(VOICE.symbols)
NO_STOP = {"stop_loss_weight": 0.0, "kl_loss_weight": 0.0}


def convtts() -> ConvTTS:
    """A small one of all the parts that the large ones have."""
    shape = ConvTTSConfig(
        channels=32,
        latent_dim=4,
        text_dilations=(1, 3),
        mel_dilations=(1, 3),
        decoder_dilations=(1, 2),
        window_ahead=8,
    )
    return ConvTTS(shape, SYMBOLS, BINS, n_speakers=2, silence=VOICE.silence)


def fastspeech() -> FastSpeechStyle:
    """The example, small."""
    return FastSpeechStyle(SYMBOLS, BINS, n_speakers=2, width=32)


def tacotron() -> Tacotron2Style:
    """The example, small."""
    return Tacotron2Style(SYMBOLS, BINS, VOICE.silence, n_speakers=2, width=32)


def parallel() -> ParallelTTS:
    """A small one of all the parts that the large ones have, but for pitch and energy."""
    shape = ParallelTTSConfig(
        channels=32,
        text_dilations=(1, 3),
        predictor_dilations=(1,),
        decoder_dilations=(1, 2),
        aligner_channels=16,
    )
    return ParallelTTS(shape, SYMBOLS, BINS, n_speakers=2, silence=VOICE.silence)


CLEAN: Mapping[str, tuple[Callable[[], nn.Module], Mapping[str, float]]] = {
    "convtts": (convtts, {}),
    "parallel": (parallel, {**NO_STOP, "attention_loss_weight": 0.0, "alignment_loss_weight": 1.0}),
    "fastspeech": (fastspeech, NO_STOP),
    "tacotron": (tacotron, {"kl_loss_weight": 0.0}),
}
"""Models without a fault, and the weights that their configuration sets."""


@dataclass(frozen=True)
class ModelFault:
    """One known way to break a model."""

    plant: Callable[[Any], None]
    """Into a clean model."""
    severity: str
    check: str
    """That should name it first; "contract" for what is refused before any check."""
    cause: str
    """Words that the finding must hold."""
    base: str = "convtts"
    training: Mapping[str, Any] = field(default_factory=dict)
    patch: Callable[[pytest.MonkeyPatch], None] = lambda patch: None


FAULTS: dict[str, ModelFault] = {}


def fault(
    severity: str, check: str, cause: str, into: dict[str, ModelFault] = FAULTS, **more: Any
) -> Callable[[Callable[..., None]], Any]:
    """Enter a function that plants a fault, with the severity that it deserves."""

    def enter(plant: Callable[[Any], None]) -> Callable[[Any], None]:
        into[plant.__name__] = ModelFault(plant, severity, check, cause, **more)
        return plant

    return enter


def trial_of(
    make: Callable[[], nn.Module], training: Mapping[str, Any], half: torch.dtype | None = torch.bfloat16
) -> Trial:
    """What a model is tried on, as for a store of two speakers."""
    torch.manual_seed(0)
    config = config_from_dict({"training": dict(training), "data": {"n_mels": BINS}})
    model = make()
    r = int(getattr(model, "reduction_factor", 1))
    return Trial(
        model=model,
        info=VOICE,
        config=config,
        batch=batch_of(made_up_utterances(VOICE), VOICE, config, r),
        loss=build_loss(config, r),
        made_up=False,
        make=make,
        half=half,
    )


def faulty(chosen: ModelFault) -> tuple[Callable[[], nn.Module], Mapping[str, Any]]:
    """How to make the broken model, and its configuration."""
    base, training = CLEAN[chosen.base]

    def make() -> nn.Module:
        model = base()
        chosen.plant(model)
        return model

    return make, {**training, **chosen.training}


def around(module: nn.Module, change: Callable[..., Any], method: str = "forward") -> None:
    """Call ``change(module, original, *args, **kwargs)`` in the place of a method, in copies too."""
    module.__class__ = type(
        module.__class__.__name__,
        (module.__class__,),
        {method: partial_method(change, getattr(module.__class__, method))},
    )


def partial_method(change: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """A method that is given the one before it."""

    def method(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return change(self, partial(original, self), *args, **kwargs)

    # So that its signature is found as the original's is.
    method.__wrapped__ = original  # type: ignore[attr-defined]
    return method


# Masks.


@fault("error", "mask", "mask of attention is the wrong way round")
def attention_mask_inverted(model: ConvTTS) -> None:
    def wrong(self, call, steps, first, keys, values, allowed, speaker):
        return call(steps, first, keys, values, ~allowed, speaker)

    around(model.attention, wrong)


@fault("error", "mask", "wrong way round", base="fastspeech")
def key_padding_mask_turned_twice(model: FastSpeechStyle) -> None:
    for block in model.encoder.blocks:
        around(block, lambda self, call, x, valid: call(x, ~~~valid))


@fault("error", "mask", "mask of the text is the wrong way round")
def text_mask_inverted(model: ConvTTS) -> None:
    around(
        model.text_layers,
        lambda self, call, x, valid=None, caches=None: call(torch.where(valid, 0.0, x), ~valid, caches),
    )


@fault("error", "mask", "mask of the mel is the wrong way round")
def posterior_mask_inverted(model: ConvTTS) -> None:
    def wrong(self, call, mel, lengths):
        padding = valid_mask(lengths, mel.shape[1])[..., None]
        mu, logvar = call(torch.where(padding, 0.0, mel), torch.full_like(lengths, mel.shape[1]))
        return mu, logvar

    around(model.posterior, wrong)


@fault("error", "mask", "blank where there is speech")
def output_mask_inverted(model: ConvTTS) -> None:
    def wrong(self, call, text, text_lengths, mel, mel_lengths, speaker=None):
        out = call(text, text_lengths, mel, mel_lengths, speaker)
        return replace(out, mel=out.mel * ~valid_mask(mel_lengths, mel.shape[1])[..., None])

    around(model, wrong)


@fault("error", "mask", "attention lies on the padding", base="tacotron")
def attention_without_mask_on_long_padding(model: Tacotron2Style) -> None:
    around(
        model.attention,
        lambda self, call, query, keys, past, valid: (
            0.2 * call(query, keys, past, valid)
            + 0.8 * (~valid).float() / (~valid).sum(-1, keepdim=True).clamp(min=1)
        ),
    )


# What leaks, and what is not heard.


@fault("error", "leak", "itself or from frames close behind it")
def convolution_not_causal(model: ConvTTS) -> None:
    for layer in model.mel_layers:
        layer.conv.past, layer.conv.padding = 0, layer.conv.past // 2


@fault("error", "leak", "itself or from frames close behind it")
def target_not_shifted(model: ConvTTS) -> None:
    def wrong(self, call, text, text_lengths, mel, mel_lengths, speaker=None):
        return call(text, text_lengths, mel.roll(-self.reduction_factor, 1), mel_lengths, speaker)

    around(model, wrong)


@fault("error", "leak", "itself or from frames close behind it")
def recurrence_both_ways(model: ConvTTS) -> None:
    model.both = nn.GRU(32, 16, batch_first=True, bidirectional=True)
    around(model, lambda self, call, heard, *rest: call(heard, *rest), "decode")
    model.mel_norm = nn.Sequential(model.mel_norm, _Both(32))


class _Both(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


@fault("warning", "padding", "padding leaks into")
def convolution_over_padding(model: ConvTTS) -> None:
    around(model.text_layers, lambda self, call, x, valid=None, caches=None: call(x, None, caches))


class _BatchNorm(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT


@fault("warning", "padding", "in training")
def batch_statistics_over_padding(model: ConvTTS) -> None:
    model.text_norm = _BatchNorm(32)


@fault("warning", "padding", "padding leaks into")
def mean_over_padding(model: ConvTTS) -> None:
    def wrong(self, call, text, text_lengths, speaker):
        keys, values = call(text, text_lengths, speaker)
        return keys, values + values.mean(1, keepdim=True)

    around(model, wrong, "encode_text")


@fault("error", "speaker", "the speaker is not heard")
def speaker_ignored(model: ConvTTS) -> None:
    around(
        model,
        lambda self, call, text, text_lengths, mel, mel_lengths, speaker=None: call(
            text, text_lengths, mel, mel_lengths, torch.zeros_like(text_lengths)
        ),
    )


@fault("error", "speaker", "synthesize does not hear the speaker")
def speaker_ignored_when_it_speaks(model: ConvTTS) -> None:
    def wrong(self, call, text, text_lengths, speaker=None, **limits):
        return call(text, text_lengths, torch.zeros_like(text_lengths), **limits)

    around(model, wrong, "synthesize")


@fault("error", "text", "the text is not heard")
def decoder_ignores_the_text(model: ConvTTS) -> None:
    def wrong(self, call, *args):
        read, weights = call(*args)
        return torch.zeros_like(read), weights

    around(model.attention, wrong)


@fault("error", "text", "synthesize does not hear the text")
def text_ignored_when_it_speaks(model: ConvTTS) -> None:
    def wrong(self, call, text, text_lengths, speaker=None, **limits):
        return call(torch.ones_like(text), text_lengths, speaker, **limits)

    around(model, wrong, "synthesize")


@fault("warning", "text", "order of the text is not heard")
def bag_of_letters(model: ConvTTS) -> None:
    def wrong(self, call, text, text_lengths, speaker):
        valid = valid_mask(text_lengths, text.shape[1])[..., None]
        h = self.symbols(text) * valid
        mean = h.sum(1, keepdim=True) / text_lengths[:, None, None] + self.speakers(speaker)[:, None]
        return self.attention.read(self.text_norm(mean.expand_as(h)))

    around(model, wrong, "encode_text")


# What an output does.


@fault("error", "attention", "attention cannot move")
def attention_of_zero_keys(model: ConvTTS) -> None:
    def wrong(self, call, steps, first, keys, values, allowed, speaker):
        scores = 0.0 * (self.query(steps) @ keys.mT) + torch.arange(steps.shape[1])[:, None] * 0.01
        scores = scores * torch.arange(keys.shape[1])
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        return weights @ values, weights

    around(model.attention, wrong)


@fault("error", "attention", "does not follow the decoder")
def attention_of_zero_queries(model: ConvTTS) -> None:
    def wrong(self, call, steps, first, keys, values, allowed, speaker):
        scores = self.query(torch.zeros_like(steps)) @ keys.mT
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        return weights @ values, weights

    around(model.attention, wrong)


@fault("error", "stop", "the stop is not connected")
def stop_not_connected(model: ConvTTS) -> None:
    model.stop_bias = nn.Parameter(torch.zeros(()))

    def wrong(self, call, *args, **kwargs):
        mel, stop, weights = call(*args, **kwargs)
        return mel, torch.zeros_like(stop) + self.stop_bias, weights

    around(model, wrong, "decode")


@fault("warning", "stop", "does not stop at a threshold of 0")
def stop_threshold_of_its_own(model: ConvTTS) -> None:
    def wrong(self, call, text, text_lengths, speaker=None, *, max_frames, stop_threshold=0.5):
        return call(text, text_lengths, speaker, max_frames=max_frames, stop_threshold=0.999)

    around(model, wrong, "synthesize")


@fault("warning", "posterior", "logvar the same for another one")
def logvar_constant(model: ConvTTS) -> None:
    def wrong(self, call, mel, lengths):
        mu, _ = call(mel, lengths)
        return mu, torch.zeros_like(mu)

    around(model.posterior, wrong)


@fault("warning", "posterior", "does not hear the recording")
def posterior_of_nothing(model: ConvTTS) -> None:
    around(model.posterior, lambda self, call, mel, lengths: call(torch.zeros_like(mel), lengths))


@fault("warning", "posterior", "latent is not heard")
def latent_not_heard(model: ConvTTS) -> None:
    around(model, lambda self, call, latent, speaker: call(None, speaker), "condition")


@fault("error", "synthesis", "does not speak what forward predicts")
def synthesis_of_other_units(model: ConvTTS) -> None:
    def wrong(self, call, *args, **kwargs):
        spoken = call(*args, **kwargs)
        return replace(spoken, mel=2.0 * spoken.mel - 5.0)

    around(model, wrong, "synthesize")


@fault("error", "synthesis", "does not speak what forward predicts", base="tacotron")
def prenet_skipped_when_it_speaks(model: Tacotron2Style) -> None:
    def wrong(self, call, heard):
        out = call(heard)
        return out if heard.dim() == 3 else torch.zeros_like(out)

    around(model, wrong, "_prenet")


@fault("error", "synthesis", "does not speak what forward predicts")
def first_frame_of_zeros_when_it_speaks(model: ConvTTS) -> None:
    def wrong(self, call, *args, **kwargs):
        kept = self.silence
        self.silence = torch.zeros_like(kept)
        try:
            return call(*args, **kwargs)
        finally:
            self.silence = kept

    around(model, wrong, "synthesize")


# Chance, memory and modes.


@fault("warning", "randomness", "evaluation is left to chance: prenet has dropout")
def dropout_in_evaluation(model: ConvTTS) -> None:
    around(model.prenet, lambda self, call, x: F.dropout(call(x), 0.3))


@fault("warning", "randomness", "stay in eval()")
def dropout_never_drops(model: ConvTTS) -> None:
    around(model.prenet, lambda self, call, mode=True: call(False), "train")


@fault("error", "state", "evaluation leaves something behind")
def statistics_move_in_evaluation(model: ConvTTS) -> None:
    model.text_norm = _BatchNorm(32)
    around(model.text_norm, lambda self, call, mode=True: call(True), "train")


@fault("error", "state", "leaves something behind")
def state_kept_between_calls(model: ConvTTS) -> None:
    model.last = None

    def wrong(self, call, latent, speaker):
        condition = call(latent, speaker)
        kept, self.last = self.last, condition.detach() + 0.1 * speaker[:, None, None]
        return condition if kept is None or kept.shape != condition.shape else condition + 0.5 * kept

    around(model, wrong, "condition")


@fault("warning", "nondeterminism", "the same pass from the same seed")
def chance_that_no_seed_reaches(model: ConvTTS) -> None:
    def wrong(self, call, latent, speaker):
        noise = np.random.default_rng().normal(size=32).astype(np.float32)
        return call(latent, speaker) + torch.from_numpy(noise) * self.training

    around(model, wrong, "condition")


@fault("warning", "modes", "training computes something else")
def prenet_in_training_only(model: ConvTTS) -> None:
    around(model.prenet, lambda self, call, x: call(x) if self.training else 0.5 * call(x))


@fault("error", "checkpoint", "goes on otherwise")
def buffer_lost_in_a_checkpoint(model: ConvTTS) -> None:
    model.register_buffer("average", torch.zeros(32), persistent=False)

    def wrong(self, call, latent, speaker):
        condition = call(latent, speaker) + self.average
        if self.training:
            # Not the same in all channels, which the next LayerNorm would take out.
            self.average = self.average + torch.linspace(-0.1, 0.1, 32)
        return condition

    around(model, wrong, "condition")


# Gradients and sizes.


@fault("error", "contract", "sends no gradient back")
def output_detached(model: ConvTTS) -> None:
    around(model, lambda self, call, *a, **k: replace(out := call(*a, **k), mel=out.mel.detach()))


@fault("warning", "gradients", "moved by nothing")
def encoder_detached(model: ConvTTS) -> None:
    around(model.text_layers, lambda self, call, x, *rest, **named: call(x.detach(), *rest, **named).detach())


@fault("warning", "gradients", "has no gradient")
def layer_never_called(model: ConvTTS) -> None:
    model.spare = nn.Linear(32, 32)


@fault("warning", "gradients", "frozen in the model's own code")
def embedding_frozen(model: ConvTTS) -> None:
    model.symbols.requires_grad_(False)


@fault("error", "gradients", "not finite")
def root_of_nothing(model: ConvTTS) -> None:
    around(model.prenet, lambda self, call, x: (out := call(x)) + (0.0 * out.sum()).square().sqrt())


@fault("error", "gradients", "the training pass fails")
def fails_in_training(model: ConvTTS) -> None:
    def wrong(self, call, x):
        return call(x).view(-1, 31) if self.training else call(x)

    around(model.prenet, wrong)


@fault("error", "accumulation", "auxiliary is a mean over the batch", base="fastspeech")
def auxiliary_averaged(model: FastSpeechStyle) -> None:
    def wrong(self, call, text, *rest, **named):
        out = call(text, *rest, **named)
        return replace(out, auxiliary=out.auxiliary / len(text))

    around(model, wrong)


@fault("warning", "accumulation", "do not make the gradient of the batch")
def neighbours_heard(model: ConvTTS) -> None:
    def wrong(self, call, latent, speaker):
        condition = call(latent, speaker)
        return condition - condition.mean(0, keepdim=True) if self.training else condition

    around(model, wrong, "condition")


@fault("error", "dead units", "are dead")
def rectifier_dead(model: ConvTTS) -> None:
    nn.init.constant_(model.prenet[0].bias, -100.0)


@fault("warning", "dead units", "is saturated")
def tanh_saturated(model: ConvTTS) -> None:
    around(model.prenet, lambda self, call, x: torch.tanh(1e4 * call(x) + 1e3))


@fault("warning", "initialisation", "output.weight begins")
def weights_begin_large(model: ConvTTS) -> None:
    with torch.no_grad():
        model.output.weight.mul_(100.0)


@fault("warning", "initialisation", "begins")
def weights_begin_small(model: ConvTTS) -> None:
    with torch.no_grad():
        model.join.weight.mul_(1e-4)


@fault("error", "first loss", "times that of predicting the mean")
def predicts_raw_decibels(model: ConvTTS) -> None:
    around(model, lambda self, call, *a, **k: replace(out := call(*a, **k), mel=out.mel * 20.0 - 100.0))


@fault("warning", "precision", "in bfloat16 the loss is")
def long_sums_in_half(model: ConvTTS) -> None:
    def wrong(self, call, *args, **kwargs):
        out = call(*args, **kwargs)
        if torch.is_autocast_enabled("cpu"):
            out = replace(out, mel=((out.mel + 512.0).bfloat16() - 512.0).float())
        return out

    around(model, wrong)


@fault("error", "one batch", "does not learn one batch")
def output_squashed(model: ConvTTS) -> None:
    around(model, lambda self, call, *a, **k: replace(out := call(*a, **k), mel=0.02 * out.mel.sigmoid()))


@fault("error", "contract", "reduction_factor")
def reduction_factor_wrong(model: ConvTTS) -> None:
    model.reduction_factor = 2


@fault(
    "error",
    "schedule",
    "the learning rate is",
    patch=lambda patch: patch.setattr(
        schedule, "learning_rate", lambda step, config, _: max(0.0, 1e-3 * (1 - step / config.max_steps))
    ),
)
def rate_of_0_at_the_end(model: ConvTTS) -> None:
    """The rate of a run whose schedule was made for fewer steps."""


@fault(
    "error",
    "schedule",
    "nan",
    patch=lambda patch: patch.setattr(
        schedule, "learning_rate", lambda step, config, _: math.nan if step > 40_000 else 1e-4
    ),
)
def rate_of_nan_after_40000_steps(model: ConvTTS) -> None:
    """A restart that divides by what has become 0."""


@fault("warning", "schedule", "ends before its warm-up", training={"max_steps": 500, "warmup_steps": 4000})
def warm_up_longer_than_the_run(model: ConvTTS) -> None:
    """A schedule copied from a run of 100,000 steps."""
