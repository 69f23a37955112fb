"""A small voice of two speakers on the 22 kHz contract, with every weight random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.features.contract import MelContract
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.convtts_config import ConvTTSConfig
from ttsfast.models.interface import FreeRunning
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.models.paralleltts_config import ParallelTTSConfig
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


def parallel_voice() -> Voice:
    """The like of :func:`small_voice` whose model is parallel, and which learnt its pitch."""
    voice = replace(small_voice(max_frames=200), tracks={"pitch": (180.0, 40.0)})
    config = ParallelTTSConfig(
        channels=16,
        reduction_factor=3,
        text_dilations=(2,),
        predictor_dilations=(1,),
        decoder_dilations=(1, 2),
        refiner_dilations=(1,),
        aligner_channels=8,
        pitch=True,
    )
    torch.manual_seed(3)
    silence, tracks = voice.silence, voice.tracks
    model = ParallelTTS(config, len(voice.symbols), BINS, 2, silence=silence, statistics=tracks)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        # Durations of some steps, unlike for every symbol.
        model.durations.output.weight *= 1.5
        model.durations.output.bias += 1.0
    return replace(voice, model=model.eval())


class Walker(nn.Module):
    """Reads a symbol a step and utters a frame for each, as it is told.

    Args:
        stop: the step after which the stop fires, given a text's symbols; None: it never does.
        last: the last symbol that attention comes to, from 0.
    """

    def __init__(self, stop: Callable[[int], int | None], last: Callable[[int], int] | None = None) -> None:
        super().__init__()
        self.stop, self.last = stop, last or (lambda symbols: symbols - 1)
        self.calls = 0

    def synthesize(
        self, text: Tensor, text_lengths: Tensor, speaker: Tensor, *, max_frames: int, stop_threshold: float
    ) -> FreeRunning:
        """Louder with every step, so that the frames are told apart."""
        self.calls += 1
        batch, longest = text.shape
        attention = torch.zeros(batch, max_frames, longest)
        lengths, stopped = torch.full((batch,), max_frames), torch.zeros(batch, dtype=torch.bool)
        for row, symbols in enumerate(text_lengths.tolist()):
            at = torch.arange(max_frames).clamp(max=self.last(symbols))
            attention[row, torch.arange(max_frames), at] = 1.0
            steps = self.stop(symbols)
            if steps is not None and stop_threshold < 1.0:
                lengths[row], stopped[row] = steps, True
        mel = (0.01 * torch.arange(max_frames))[None, :, None].expand(batch, max_frames, BINS)
        return FreeRunning(mel=mel, mel_lengths=lengths, attention=attention, stopped=stopped)


def walking_voice(
    stop: Callable[[int], int | None],
    last: Callable[[int], int] | None = None,
    *,
    characters: str = "abcdefghijklmnopqrstuvwxyz .,",
    language: str = "en",
) -> Voice:
    """A voice whose model is a :class:`Walker`."""
    voice = small_voice(max_frames=200)
    return replace(
        voice,
        model=Walker(stop, last),
        symbols=Symbols.of([characters]),
        frontend=TextFrontend(language),
    )
