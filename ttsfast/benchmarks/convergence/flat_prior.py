"""ParallelTTS without the prior that starts its alignment near the diagonal: what the prior is worth."""

from __future__ import annotations

import torch
from torch import Tensor

from ttsfast.config import ModelConfig
from ttsfast.models.build import BUILT_IN, PARALLELTTS
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.models.voice_info import VoiceInfo


def model(voice: VoiceInfo, options: ModelConfig) -> ParallelTTS:
    """As ``model.architecture=paralleltts`` has it, but for the prior."""
    made = BUILT_IN[PARALLELTTS](voice, options)
    assert isinstance(made, ParallelTTS)
    made.prior = _flat
    return made


def _flat(text_lengths: Tensor, _: Tensor, *, frames: int, symbols: int) -> Tensor:
    """(B, T, N): every symbol as likely at every frame."""
    return torch.zeros(len(text_lengths), frames, symbols, device=text_lengths.device)
