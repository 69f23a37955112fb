"""Models that differ from the package's in one thing, to tell what that is worth (docs/convergence.md).

``bench/changes/models.yaml`` names them; in the repository's folder ``model.architecture`` finds them here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ttsfast.config import ModelConfig
from ttsfast.models.build import BUILT_IN, CONVTTS, PARALLELTTS
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.layers import SequenceConv
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.models.voice_info import VoiceInfo


def without_positions(voice: VoiceInfo, options: ModelConfig) -> ConvTTS:
    """ConvTTS whose keys and queries do not know where they are."""
    made = _convtts(voice, options)
    made.attention.position.scale.data.zero_()
    made.attention.position.scale.requires_grad_(False)
    return made


def shared_starts(voice: VoiceInfo, options: ModelConfig) -> ConvTTS:
    """ConvTTS whose projections to keys and to queries begin as one (Deep Voice 3, Ping et al., 2018)."""
    made = _convtts(voice, options)
    made.attention.query.load_state_dict(made.attention.key.state_dict())
    return made


def noise_on_frames(voice: VoiceInfo, options: ModelConfig) -> ConvTTS:
    """ConvTTS that hears true frames under noise of 0.3 standard deviations while it learns."""
    return _hearing(_convtts(voice, options), lambda frames: frames + 0.3 * torch.randn_like(frames))


def dropped_frames(voice: VoiceInfo, options: ModelConfig) -> ConvTTS:
    """ConvTTS that hears silence in place of every fifth frame, at random, while it learns."""
    made = _convtts(voice, options)
    return _hearing(
        made, lambda frames: torch.where(_chosen(frames, 0.2), made.silence.to(frames.dtype), frames)
    )


def masked_bands(voice: VoiceInfo, options: ModelConfig) -> ConvTTS:
    """ConvTTS that hears frames without up to a third of their bins (SpecAugment, Park et al., 2019)."""

    def without_a_band(frames: Tensor) -> Tensor:
        n_mels = frames.shape[2]
        width = torch.rand(len(frames), 1, 1, device=frames.device) * n_mels / 3
        low = torch.rand_like(width) * (n_mels - width)
        at = torch.arange(n_mels, device=frames.device)
        return frames.masked_fill((at >= low) & (at < low + width), 0.0)

    return _hearing(_convtts(voice, options), without_a_band)


def quick_embeddings(voice: VoiceInfo, options: ModelConfig) -> ParallelTTS:
    """ParallelTTS whose symbols learn three times as fast as its layers."""
    made = _paralleltts(voice, options)
    _at_rate(3.0, made.symbols)
    return made


def quick_aligner(voice: VoiceInfo, options: ModelConfig) -> ParallelTTS:
    """ParallelTTS whose aligner learns three times as fast as the rest."""
    made = _paralleltts(voice, options)
    _at_rate(3.0, made.aligner)
    return made


def quick_output(voice: VoiceInfo, options: ModelConfig) -> ParallelTTS:
    """ParallelTTS whose last layer learns three times as fast as the rest."""
    made = _paralleltts(voice, options)
    _at_rate(3.0, made.output)
    return made


def slow_layers(voice: VoiceInfo, options: ModelConfig) -> ParallelTTS:
    """ParallelTTS whose stacks of convolutions learn half as fast as what is before and behind them."""
    made = _paralleltts(voice, options)
    _at_rate(0.5, made.text_layers, made.decoder_layers)
    return made


def raw_mels(voice: VoiceInfo, options: ModelConfig) -> ParallelTTS:
    """ParallelTTS that hears and speaks log-mels as they are, not in deviations from the corpus's mean."""
    made = _paralleltts(voice, options)
    groups = options.reduction_factor
    mean, std = (torch.from_numpy(np.tile(of, groups)) for of in (voice.mel_mean, voice.mel_std))

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * std.to(inputs[0]) + mean.to(inputs[0]),)

    def after(_: nn.Module, __: tuple[Tensor, ...], raw: Tensor) -> Tensor:
        return (raw - mean.to(raw)) / std.to(raw)

    made.aligner.frames.register_forward_pre_hook(before)
    made.output.register_forward_hook(after)
    return made


def _convtts(voice: VoiceInfo, options: ModelConfig) -> ConvTTS:
    made = BUILT_IN[CONVTTS](voice, options)
    assert isinstance(made, ConvTTS)
    return made


def _paralleltts(voice: VoiceInfo, options: ModelConfig) -> ParallelTTS:
    made = BUILT_IN[PARALLELTTS](voice, options)
    assert isinstance(made, ParallelTTS)
    return made


def _hearing(made: ConvTTS, changed: Callable[[Tensor], Tensor]) -> ConvTTS:
    """``made``, whose prenet is fed ``changed`` frames (B, S, C) in training."""

    def before(prenet: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (changed(inputs[0]),) if prenet.training else inputs

    made.prenet.register_forward_pre_hook(before)
    return made


def _chosen(frames: Tensor, share: float) -> Tensor:
    """(B, S, 1) bool, True at ``share`` of the frames (B, S, C)."""
    return torch.rand(*frames.shape[:2], 1, device=frames.device) < share


class _Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        return self.scale * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.scale


def _at_rate(scale: float, *parts: nn.Module) -> None:
    """Have Adam, whose steps do not depend on a gradient's scale, change parts so much faster."""
    for layer in [layer for part in parts for layer in part.modules()]:
        if isinstance(layer, nn.Linear | nn.Embedding | SequenceConv):
            parametrize.register_parametrization(layer, "weight", _Scaled(scale))
