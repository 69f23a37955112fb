"""Small random models and inputs, and comparisons that NaN, zeros or a tensor itself cannot pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ttsfast.models.convtts import ConvTTS
from ttsfast.models.convtts_config import ConvTTSConfig
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.models.paralleltts_config import ParallelTTSConfig

SYMBOLS, BINS = 11, 6


def assert_same(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Raise AssertionError unless both are finite, of one shape, not all zero and within ``tolerance``."""
    assert actual is not expected
    assert actual.shape == expected.shape
    assert actual.numel() > 0
    assert torch.isfinite(actual).all()
    assert torch.isfinite(expected).all()
    assert expected.abs().max() > 0
    assert (actual - expected).abs().max() <= tolerance


def small_model(n_speakers: int = 1, **changes: Any) -> ConvTTS:
    """A model in ``eval()`` with every parameter random, also those that start at 0."""
    torch.manual_seed(3)
    shape = {
        "channels": 16,
        "text_dilations": (1, 3, 1),
        "mel_dilations": (1, 3),
        "decoder_dilations": (1, 2),
        "latent_dim": 4,
    }
    config = ConvTTSConfig(**{**shape, **changes})
    model = ConvTTS(config, SYMBOLS, BINS, n_speakers, silence=torch.linspace(-2.0, -1.0, BINS))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


STATISTICS = {"pitch": (180.0, 40.0), "energy": (2.0, 0.5)}


def small_parallel(n_speakers: int = 1, **changes: Any) -> ParallelTTS:
    """Likewise the parallel one, with pitch and energy."""
    torch.manual_seed(3)
    shape = {
        "channels": 16,
        "text_dilations": (1, 3),
        "predictor_dilations": (1,),
        "decoder_dilations": (1, 2),
        "aligner_channels": 8,
        "pitch": True,
        "energy": True,
    }
    config = ParallelTTSConfig(**{**shape, **changes})
    silence = torch.linspace(-2.0, -1.0, BINS)
    model = ParallelTTS(config, SYMBOLS, BINS, n_speakers, silence=silence, statistics=STATISTICS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        # Durations of some steps, unlike for every symbol.
        model.durations.output.weight *= 1.5
        model.durations.output.bias += 1.0
    return model.eval()


def random_tracks(lengths: list[int], frames: int) -> dict[str, Tensor]:
    """Pitch, a third of it unvoiced, and energy, each (B, frames), 0 in the padding."""
    generator = torch.Generator().manual_seed(9)
    valid = torch.arange(frames) < torch.tensor(lengths)[:, None]
    pitch = 150 + 80 * torch.rand(len(lengths), frames, generator=generator)
    voiced = torch.rand(len(lengths), frames, generator=generator) > 0.3
    energy = 1 + 2 * torch.rand(len(lengths), frames, generator=generator)
    return {"pitch": torch.where(voiced & valid, pitch, 0.0), "energy": torch.where(valid, energy, 0.0)}


def random_texts(lengths: list[int], longest: int | None = None) -> tuple[Tensor, Tensor]:
    """Symbols (B, N), padded with 0, and their lengths."""
    generator = torch.Generator().manual_seed(5)
    text = torch.zeros(len(lengths), longest or max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        text[row, :length] = torch.randint(1, SYMBOLS, (length,), generator=generator)
    return text, torch.tensor(lengths)


def random_mels(lengths: list[int], frames: int) -> tuple[Tensor, Tensor]:
    """Mels (B, frames, C), padded with zeros, and their lengths."""
    generator = torch.Generator().manual_seed(7)
    mel = torch.zeros(len(lengths), frames, BINS)
    for row, length in enumerate(lengths):
        mel[row, :length] = torch.randn(length, BINS, generator=generator)
    return mel, torch.tensor(lengths)
