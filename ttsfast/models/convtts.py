"""``ConvTTS``: text to mel by gated convolutions and one attention, after DC-TTS (Tachibana et al., 2017).

A text encoder gives keys and values. A causal mel encoder looks at the last frame of each group of
``reduction_factor`` frames already spoken and asks for text; a causal decoder turns what it got into the
next group and a stop logit. A posterior encoder supplies one latent vector per utterance, which is the
prior's mean, zero, when there is no recording.

There is no BatchNorm, every convolution over text or over the posterior's mel is masked, and everything on
the decoder's side is causal, so an utterance's result does not depend on its padding or its neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ttsfast.models.arguments import of_size, silent_frame, speaker_ids
from ttsfast.models.attention import TextAttention
from ttsfast.models.convtts_config import SIZES, ConvTTSConfig
from ttsfast.models.decoding import DecoderCaches, free_run, readable
from ttsfast.models.eval_mode import in_eval
from ttsfast.models.interface import SPEAKERS, STORE, SYMBOLS, AcousticOutput, FreeRunning
from ttsfast.models.layers import GatedStack
from ttsfast.models.posterior import PosteriorEncoder
from ttsfast.terms.masks import valid_mask


class Prenet(nn.Sequential):
    """Two small layers with dropout between the last frame and the model (Wang et al., 2017)."""

    def __init__(self, n_mels: int, channels: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(n_mels, channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Dropout(dropout),
        )


class ConvTTS(nn.Module):
    """The reference model; see the module's docstring.

    Args:
        config: its shape.
        n_symbols: size of the symbol table; symbol 0 is the padding.
        n_mels: C.
        n_speakers: with 2 or more, every speaker has an embedding and a pace of reading.
        silence: (C,) a frame of silence in the units of the mels, from which speech starts; None: zeros.

    Raises:
        InputError: a count below 1, or ``silence`` of another shape.
    """

    silence: Tensor

    def __init__(
        self,
        config: ConvTTSConfig,
        n_symbols: int,
        n_mels: int,
        n_speakers: int = 1,
        silence: Tensor | np.ndarray | None = None,
    ) -> None:
        super().__init__()
        frame = silent_frame(self, silence, n_symbols=n_symbols, n_mels=n_mels, n_speakers=n_speakers)
        self.config = config
        self.n_mels = n_mels
        self.tensors_of_data = {
            "symbols.weight": SYMBOLS,
            "speakers.weight": SPEAKERS,
            "attention.log_pace": SPEAKERS,
            "silence": STORE,
        }
        """as :mod:`ttsfast.models.transfer` reads it"""
        self.n_speakers = n_speakers
        self.reduction_factor = config.reduction_factor
        """mel frames per decoder step, by which the trainer counts steps"""
        self.register_buffer("silence", frame)

        width, r = config.channels, config.reduction_factor
        self.symbols = nn.Embedding(n_symbols, width)
        self.speakers = nn.Embedding(n_speakers, width) if n_speakers > 1 else None
        self.text_layers = GatedStack(width, config.text_dilations, causal=False, dropout=config.dropout)
        self.text_norm = nn.LayerNorm(width)
        self.prenet = Prenet(n_mels, width, config.prenet_dropout)
        self.mel_layers = GatedStack(width, config.mel_dilations, causal=True, dropout=config.dropout)
        self.mel_norm = nn.LayerNorm(width)
        self.attention = TextAttention(width, config.symbols_per_frame * r, n_speakers)
        self.join = nn.Linear(2 * width, width)
        self.decoder_layers = GatedStack(width, config.decoder_dilations, causal=True, dropout=config.dropout)
        self.decoder_norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, r * n_mels + 1)
        self.posterior = self.latent = None
        if config.latent_dim:
            self.posterior = PosteriorEncoder(n_mels, width, config.latent_dim, 2 * r, config.dropout)
            self.latent = nn.Linear(config.latent_dim, width)
            # Until the posterior knows something its samples are noise, and should not be heard.
            nn.init.zeros_(self.latent.weight)
            nn.init.zeros_(self.latent.bias)

    @classmethod
    def from_size(
        cls,
        size: str,
        n_symbols: int,
        n_mels: int,
        n_speakers: int = 1,
        silence: Tensor | np.ndarray | None = None,
        **changes: Any,
    ) -> ConvTTS:
        """A model of a named size, ``nano``, ``small`` or ``base``, with ``changes`` to its config.

        Raises:
            InputError: an unknown size, or a change that :class:`ConvTTSConfig` does not take.
        """
        config = of_size(cls, SIZES, size, changes)
        return cls(config, n_symbols, n_mels, n_speakers, silence)

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        speaker: Tensor | None = None,
    ) -> AcousticOutput:
        """Teacher-forced pass: every frame is predicted from the true ones before it.

        Padding in ``text`` and ``mel`` may hold anything: it is replaced by symbol 0 and by silence. In
        ``train()`` the latent is a sample of the posterior, in ``eval()`` its mean.

        Args:
            text: (B, N) int64
            text_lengths: (B,) at least 1 each
            mel: (B, T, C) normalised; any T of at least 1.
            mel_lengths: (B,) at most T each
            speaker: (B,) int64; may be None for a model of one speaker.

        Returns:
            ``mel`` (B, T, C), ``stop_logits`` (B, S) with ``S = ceil(T / r)``, ``step_lengths`` (B,),
            ``attention`` (B, S, N) and, where there is a posterior encoder, ``posterior`` (mu, logvar).

        Raises:
            ValueError: no speaker for a model of several.
        """
        r = self.config.reduction_factor
        batch, frames, _ = mel.shape
        steps = -(-frames // r)
        speaker = speaker_ids(speaker, text, self.n_speakers)
        posterior = None
        latent = None
        if self.posterior is not None:
            posterior = mu, logvar = self.posterior(mel, mel_lengths)
            latent = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu) if self.training else mu
        # Only the last frame of each group is heard, and the last group is not followed by another.
        heard = mel[:, r - 1 : (steps - 1) * r : r]
        heard = torch.where(valid_mask(mel_lengths // r, steps - 1)[..., None], heard, self.silence)
        heard = torch.cat([self.silence.expand(batch, 1, -1).to(heard.dtype), heard], dim=1)
        keys, values = self.encode_text(text, text_lengths, speaker)
        allowed = readable(text_lengths, text.shape[1])[:, None]
        condition = self.condition(latent, speaker)
        predicted, stop_logits, weights = self.decode(heard, keys, values, allowed, condition, speaker)
        return AcousticOutput(
            mel=predicted[:, :frames],
            stop_logits=stop_logits,
            step_lengths=-(-mel_lengths // r),
            attention=weights,
            posterior=posterior,
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
    ) -> FreeRunning:
        """Speak a batch of texts, always as in ``eval()``; see :func:`ttsfast.models.decoding.free_run`.

        Args:
            text: (B, N) int64
            text_lengths: (B,)
            speaker: (B,) int64; may be None for a model of one speaker.
            max_frames: where an utterance that does not stop is cut.
            stop_threshold: a probability.

        Raises:
            ValueError: ``max_frames`` below 1, or no speaker for a model of several.
        """
        with in_eval(self):
            speaker = speaker_ids(speaker, text, self.n_speakers)
            keys, values = self.encode_text(text, text_lengths, speaker)
            condition = self.condition(None, speaker)
            caches = self.caches(len(text))
            return free_run(
                lambda heard, allowed: self.decode(heard, keys, values, allowed, condition, speaker, caches),
                self.silence.expand(len(text), 1, -1),
                text_lengths,
                text.shape[1],
                reduction_factor=self.config.reduction_factor,
                window_back=self.config.window_back,
                window_ahead=self.config.window_ahead,
                max_frames=max_frames,
                stop_threshold=stop_threshold,
            )

    def encode_text(self, text: Tensor, text_lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) symbols -> attention's keys and values, each (B, N, D)."""
        valid = valid_mask(text_lengths, text.shape[1])
        h = self.symbols(torch.where(valid, text, 0))
        if self.speakers is not None:
            h = h + self.speakers(speaker)[:, None]
        h = self.text_layers(h, valid[..., None])
        return self.attention.read(self.text_norm(h))

    def condition(self, latent: Tensor | None, speaker: Tensor) -> Tensor:
        """(B, 1, D): what holds for the whole utterance; a ``latent`` (B, Z) of None is the prior's mean."""
        condition = self.silence.new_zeros(speaker.shape[0], 1, self.config.channels)
        if self.latent is not None:
            if latent is None:
                latent = self.silence.new_zeros(speaker.shape[0], self.config.latent_dim)
            condition = condition + self.latent(latent)[:, None]
        if self.speakers is not None:
            condition = condition + self.speakers(speaker)[:, None]
        return condition

    def decode(
        self,
        heard: Tensor,
        keys: Tensor,
        values: Tensor,
        allowed: Tensor,
        condition: Tensor,
        speaker: Tensor,
        caches: DecoderCaches | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A run of decoder steps: all of an utterance's, or with ``caches`` the one that comes next.

        Args:
            heard: (B, S, C) the frame before each step.
            keys, values: (B, N, D)
            allowed: (B, 1 or S, N) bool, the symbols that a step may attend to.
            condition: (B, 1, D)
            speaker: (B,)
            caches: from :meth:`caches`; S is 1, and the caches move on by one step.

        Returns:
            mel (B, S * r, C), stop logits (B, S), attention (B, S, N).
        """
        first_step = 0 if caches is None else caches.step
        h = self.prenet(heard) + condition
        h = self.mel_norm(self.mel_layers(h, caches=None if caches is None else caches.mel))
        read, weights = self.attention(h, first_step, keys, values, allowed, speaker)
        h = self.join(torch.cat([read, h.to(read.dtype)], dim=-1)) + condition
        h = self.decoder_norm(self.decoder_layers(h, caches=None if caches is None else caches.decoder))
        group = self.output(h)
        if caches is not None:
            caches.step += 1
        mel = group[..., :-1].reshape(heard.shape[0], -1, self.n_mels)
        return mel, group[..., -1], weights

    @torch.no_grad()
    def absorb_speaker(self, embedding: Tensor) -> None:
        """Speak, as a model of one speaker, as the one whose ``embedding`` (D,) a model of several has."""
        self.symbols.weight.add_(embedding)
        if self.latent is not None:
            self.latent.bias.add_(embedding)

    def caches(self, batch: int) -> DecoderCaches:
        """What continues the decoding of ``batch`` utterances, at their start."""
        return DecoderCaches(self.mel_layers.caches(batch), self.decoder_layers.caches(batch))
