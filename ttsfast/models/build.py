"""From the configuration's ``model`` section to a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ttsfast.config import ModelConfig
from ttsfast.models.convtts import ConvTTS

if TYPE_CHECKING:
    from ttsfast.models.voice import VoiceInfo


def build_model(config: ModelConfig, info: VoiceInfo) -> nn.Module:
    """The model that ``config`` names, for the symbols, speakers and mel bins of ``info``."""
    return ConvTTS.from_size(
        config.size,
        n_symbols=len(info.symbols),
        n_mels=info.contract.n_mels,
        n_speakers=len(info.speakers),
        silence=info.silence,
        reduction_factor=config.reduction_factor,
        dropout=config.dropout,
        prenet_dropout=config.prenet_dropout,
        latent_dim=config.latent_dim if config.posterior else 0,
    )
