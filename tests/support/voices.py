"""A small voice of two speakers on the 22 kHz contract, with every weight random."""

from __future__ import annotations

import numpy as np
import torch

from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.features.contract import MelContract
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.convtts_config import ConvTTSConfig
from ttsfast.models.voice import Voice

BINS = 80


def small_voice(max_frames: int = 31) -> Voice:
    """``text_dilations`` and the like hold each kind of convolution once."""
    torch.manual_seed(3)
    config = ConvTTSConfig(
        channels=16,
        text_dilations=(2,),
        mel_dilations=(1, 3),
        decoder_dilations=(2,),
        latent_dim=4,
        reduction_factor=3,
    )
    symbols = Symbols.of(["abcdefg "])
    silence = np.linspace(-2.0, -1.0, BINS, dtype=np.float32)
    model = ConvTTS(config, len(symbols), BINS, 2, silence=silence)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return Voice(
        contract=MelContract.preset("librosa-22k"),
        frontend=TextFrontend("en"),
        symbols=symbols,
        speakers=("anna", "ben"),
        mel_mean=np.linspace(-6.0, -4.0, BINS, dtype=np.float32),
        mel_std=np.linspace(0.5, 2.0, BINS, dtype=np.float32),
        silence=silence,
        max_frames=max_frames,
        # Some texts reach it at once, some after steps, some never.
        stop_threshold=0.42,
        model=model.eval(),
        device=torch.device("cpu"),
    )
