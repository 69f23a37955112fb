"""``ParallelTTS``: text to mel in one go, by durations that the model finds in its recordings.

A text encoder of gated convolutions; an aligner (Badlani et al., 2022) whose best monotonic path says how
long each symbol lasts; a predictor that learns these durations for speech (after FastSpeech, Ren et al.,
2019), and on demand predictors of each symbol's pitch and energy (after FastPitch, Łańcucki, 2021); and a
decoder of gated convolutions over the text, spread in time. There is no attention to lose, no stop token to
miss, and nothing waits for the frame before it.

Durations count steps of ``reduction_factor`` frames, and every symbol lasts a step at least. Phonemes, their
stress and length marks among the symbols, last 5 frames of 12 ms on average and many of them 2: at a quarter
of the frame rate (46 ms) nearly every one would last the same single step, and some texts would have more
symbols than their recordings steps. At half of it (23 ms), the presets' choice, that does not happen with
speech at a usual pace, and the decoder still has half of the frames' number of steps to compute.

There is no BatchNorm, and every convolution is masked, so an utterance's result does not depend on its
padding or its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ttsfast.alignment.functional import path_of
from ttsfast.alignment.prior import beta_binomial_prior
from ttsfast.models.aligner import Aligner
from ttsfast.models.arguments import of_size, silent_frame, speaker_ids
from ttsfast.models.durations import found_durations, places, spoken_durations
from ttsfast.models.eval_mode import in_eval
from ttsfast.models.interface import SPEAKERS, STORE, SYMBOLS, AcousticOutput, FreeRunning
from ttsfast.models.layers import GatedStack
from ttsfast.models.paralleltts_config import SIZES, ParallelTTSConfig
from ttsfast.models.predictors import SymbolPredictor, Variances
from ttsfast.terms.masks import valid_mask


class Refiner(nn.Module):
    """Mends a mel frame by frame, by gated convolutions beside it."""

    def __init__(self, config: ParallelTTSConfig, n_mels: int) -> None:
        super().__init__()
        self.read = nn.Linear(n_mels, config.channels)
        self.layers = GatedStack(
            config.channels, config.refiner_dilations, causal=False, dropout=config.dropout
        )
        self.norm = nn.LayerNorm(config.channels)
        self.output = nn.Linear(config.channels, n_mels)

    def forward(self, mel: Tensor, valid: Tensor) -> Tensor:
        """(B, T, C) and (B, T) bool -> (B, T, C)"""
        return mel + self.output(self.norm(self.layers(self.read(mel), valid[..., None])))


class ParallelTTS(nn.Module):
    """The parallel reference model; see the module's docstring.

    Args:
        config: its shape.
        n_symbols: size of the symbol table; symbol 0 is the padding.
        n_mels: C.
        n_speakers: with 2 or more, every speaker has an embedding.
        silence: (C,) a frame of silence in the units of the mels; None: zeros.
        statistics: of each track that the config asks for, mean and standard deviation.

    Raises:
        InputError: a count below 1, ``silence`` of another shape, or a track without statistics.
    """

    silence: Tensor

    def __init__(
        self,
        config: ParallelTTSConfig,
        n_symbols: int,
        n_mels: int,
        n_speakers: int = 1,
        silence: Tensor | np.ndarray | None = None,
        statistics: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        frame = silent_frame(self, silence, n_symbols=n_symbols, n_mels=n_mels, n_speakers=n_speakers)
        self.variances = Variances(config, statistics or {})
        self.tracks = tuple(self.variances)
        """what :meth:`forward` wants of a batch beside its mel"""
        self.controls = ("speed", "pitch") if config.pitch else ("speed",)
        """what of its speech may be asked for, by arguments of :meth:`synthesize`"""
        self.config = config
        self.n_mels = n_mels
        self.n_speakers = n_speakers
        self.reduction_factor = config.reduction_factor
        """mel frames per decoder step, by which the trainer counts steps"""
        self.tensors_of_data = {
            "symbols.weight": SYMBOLS,
            "speakers.weight": SPEAKERS,
            "silence": STORE,
            **{f"variances.{name}.statistics": STORE for name in self.tracks},
        }
        """as :mod:`ttsfast.models.transfer` reads it"""
        self.register_buffer("silence", frame)

        width, r = config.channels, config.reduction_factor
        self.symbols = nn.Embedding(n_symbols, width)
        self.speakers = nn.Embedding(n_speakers, width) if n_speakers > 1 else None
        self.text_layers = GatedStack(width, config.text_dilations, causal=False, dropout=config.dropout)
        self.text_norm = nn.LayerNorm(width)
        self.aligner = Aligner(width, r * n_mels, config.aligner_channels)
        self.prior: Callable[..., Tensor] = beta_binomial_prior
        """of the alignment, before anything is heard"""
        self.durations = SymbolPredictor(width, config.predictor_dilations, config.dropout)
        self.place = nn.Linear(2, width)
        dilations = config.decoder_dilations
        self.decoder_layers = GatedStack(width, dilations, causal=False, dropout=config.dropout)
        self.decoder_norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, r * n_mels)
        self.refiner = Refiner(config, n_mels) if config.refiner_dilations else None

    @classmethod
    def from_size(
        cls,
        size: str,
        n_symbols: int,
        n_mels: int,
        n_speakers: int = 1,
        silence: Tensor | np.ndarray | None = None,
        statistics: Mapping[str, Sequence[float]] | None = None,
        **changes: Any,
    ) -> ParallelTTS:
        """A model of a named size, ``nano``, ``small`` or ``base``, with ``changes`` to its config.

        Raises:
            InputError: an unknown size, or a change that :class:`ParallelTTSConfig` does not take.
        """
        config = of_size(cls, SIZES, size, changes)
        return cls(config, n_symbols, n_mels, n_speakers, silence, statistics)

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        speaker: Tensor | None = None,
        pitch: Tensor | None = None,
        energy: Tensor | None = None,
    ) -> AcousticOutput:
        """Mels by the durations, pitch and energy of the recordings.

        Padding may hold anything: text's is replaced by symbol 0, the mel's by silence.

        Args:
            text: (B, N) int64
            text_lengths: (B,) at least 1 each
            mel: (B, T, C) normalised; any T of at least 1.
            mel_lengths: (B,) at most T each
            speaker: (B,) int64; may be None for a model of one speaker.
            pitch: (B, T) Hz, 0 where unvoiced; for a model that learns it.
            energy: (B, T); for a model that learns it.

        Returns:
            ``mel`` (B, T, C), or a pair of them; ``step_lengths`` (B,); ``attention`` (B, S, N), the best
            path; ``alignment_log_probs``, ``alignment_prior`` and ``alignment_path``; and as ``auxiliary``
            the errors of the predictors.

        Raises:
            ValueError: no speaker for a model of several, or no track that it learns.
        """
        r = self.config.reduction_factor
        batch, frames, _ = mel.shape
        steps, step_lengths = -(-frames // r), -(-mel_lengths // r)
        valid = valid_mask(text_lengths, text.shape[1])
        symbols, encoded = self.encode_text(text, text_lengths, speaker_ids(speaker, text, self.n_speakers))
        heard = torch.where(valid_mask(mel_lengths, frames)[..., None], mel, self.silence.to(mel.dtype))
        heard = torch.cat([heard, self.silence.to(mel.dtype).expand(batch, steps * r - frames, -1)], dim=1)
        grouped = heard.reshape(batch, steps, r * self.n_mels)
        log_probs = self.aligner(symbols, text_lengths, grouped, step_lengths)
        prior = self.prior(text_lengths, step_lengths, frames=steps, symbols=text.shape[1])
        durations, alignable = found_durations(log_probs.detach() + prior, text_lengths, step_lengths)

        known = valid & alignable[:, None]
        target = durations.clamp(min=1).float()
        predicted = self.durations(encoded.detach(), valid)
        # Half the Poisson distribution's deviance: what is learnt is the mean, so that the sum over a text,
        # its length, is right on average.
        errors = predicted.exp() - target + target * (target.log() - predicted)
        auxiliary = torch.where(known, errors, 0.0).sum()
        spoken, tracks = valid_mask(mel_lengths, frames), {"pitch": pitch, "energy": energy}
        told, errors = self.variances.heard(encoded, valid, tracks, spoken, durations, r)
        auxiliary = auxiliary + torch.where(known, errors, 0.0).sum()
        path = path_of(durations, steps)
        mel = self.decode(told, durations, path, step_lengths)[:, :frames]
        refined = None if self.refiner is None else self.refiner(mel, spoken)
        return AcousticOutput(
            mel=mel if refined is None else (mel, refined),
            step_lengths=step_lengths,
            attention=path.to(log_probs.dtype),
            auxiliary=auxiliary,
            alignment_log_probs=log_probs,
            alignment_prior=prior,
            alignment_path=path,
        )

    @torch.no_grad()
    def synthesize(
        self,
        text: Tensor,
        text_lengths: Tensor,
        speaker: Tensor | None = None,
        *,
        max_frames: int,
        stop_threshold: float = 0.5,
        speed: float = 1.0,
        pitch: float = 0.0,
    ) -> FreeRunning:
        """Speak a batch of texts, always as in ``eval()``.

        Args:
            text: (B, N) int64
            text_lengths: (B,)
            speaker: (B,) int64; may be None for a model of one speaker.
            max_frames: where longer speech is cut.
            stop_threshold: ignored: durations say where the end is.
            speed: of reading; 2 is twice as fast.
            pitch: semitones by which the voice is higher; for a model that learnt its pitch.

        Returns:
            ``mel`` (B, T, C), ``mel_lengths`` (B,) in whole steps of r frames or ``max_frames``,
            ``attention`` (B, S, N), 1 at the symbol that is spoken, ``stopped`` (B,): the end came within
            ``max_frames``.

        Raises:
            ValueError: ``max_frames`` below 1, no speaker for a model of several, or a pitch for one that has
            none.
        """
        if max_frames < 1:
            raise ValueError(f"max_frames is {max_frames}; allow 1 frame or more")
        if pitch and "pitch" not in self.tracks:
            raise ValueError("this model has learnt no pitch, so that there is none to change")
        with in_eval(self):
            limit = torch.tensor(max_frames, device=text.device)
            encoded, durations, lengths, ended = self.plan(
                text, text_lengths, speaker_ids(speaker, text, self.n_speakers), limit, speed, pitch
            )
            longest = int(lengths.max())
            path = path_of(durations, -(-longest // self.config.reduction_factor))
            mel = self.spoken(encoded, durations, path, lengths)[:, :longest]
            return FreeRunning(mel=mel, mel_lengths=lengths, attention=path.to(mel.dtype), stopped=ended)

    def plan(
        self,
        text: Tensor,
        text_lengths: Tensor,
        speaker: Tensor,
        max_frames: Tensor,
        speed: Tensor | float = 1.0,
        pitch: Tensor | float = 0.0,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is spoken when: arguments as :meth:`synthesize` takes them, ``max_frames`` ().

        Returns:
            The encoded text with pitch and energy (B, N, D), durations (B, N) in steps, lengths (B,) in
            frames, and (B,) bool, whether they hold the whole text.
        """
        r = self.config.reduction_factor
        valid = valid_mask(text_lengths, text.shape[1])
        _, encoded = self.encode_text(text, text_lengths, speaker)
        log_durations = self.durations(encoded, valid)
        durations = spoken_durations(log_durations, valid, speed, (max_frames + r - 1) // r)
        total = durations.sum(1) * r
        return (
            self.variances.predicted(encoded, valid, pitch),
            durations,
            total.minimum(max_frames),
            total <= max_frames,
        )

    def spoken(self, encoded: Tensor, durations: Tensor, path: Tensor, mel_lengths: Tensor) -> Tensor:
        """The mel (B, S * r, C) of a :meth:`plan` whose ``path`` (B, S, N) is."""
        r = self.config.reduction_factor
        mel = self.decode(encoded, durations, path, (mel_lengths + r - 1) // r)
        return mel if self.refiner is None else self.refiner(mel, valid_mask(mel_lengths, mel.shape[1]))

    def encode_text(self, text: Tensor, text_lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) symbols, embedded and encoded, each (B, N, D)."""
        valid = valid_mask(text_lengths, text.shape[1])
        symbols = self.symbols(torch.where(valid, text, 0))
        if self.speakers is not None:
            symbols = symbols + self.speakers(speaker)[:, None]
        return symbols, self.text_norm(self.text_layers(symbols, valid[..., None]))

    def decode(self, encoded: Tensor, durations: Tensor, path: Tensor, step_lengths: Tensor) -> Tensor:
        """The text spread in time, as a mel.

        Args:
            encoded: (B, N, D)
            durations: (B, N) in steps.
            path: (B, S, N) bool, of ``durations``.
            step_lengths: (B,)

        Returns:
            (B, S * r, C)
        """
        spoken = valid_mask(step_lengths, path.shape[1])[..., None]
        h = path.to(encoded.dtype) @ encoded + self.place(places(durations, path).to(self.place.weight.dtype))
        h = self.decoder_norm(self.decoder_layers(h, spoken))
        return self.output(h).reshape(h.shape[0], -1, self.n_mels)

    @torch.no_grad()
    def absorb_speaker(self, embedding: Tensor) -> None:
        """Speak, as a model of one speaker, as the one whose ``embedding`` (D,) a model of several has."""
        self.symbols.weight.add_(embedding)
