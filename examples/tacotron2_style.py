"""A Tacotron2-style model: recurrent, one attention that remembers where it has been, a post-net.

After Shen et al. (2018): convolutions and a bidirectional LSTM over the text; a pre-net, an attention LSTM
with location-sensitive attention (Chorowski et al., 2015) and a decoder LSTM that make ``reduction_factor``
frames a step; a convolutional post-net. LayerNorm stands where BatchNorm was, which would mix in padding.

    ttsfast train examples/tacotron2_style.yaml
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ttsfast.config import ModelConfig
from ttsfast.models.decoding import free_run
from ttsfast.models.interface import AcousticOutput, FreeRunning
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.terms.masks import valid_mask


def build(voice: VoiceInfo, options: ModelConfig) -> Tacotron2Style:
    """What ``model.architecture: examples.tacotron2_style:build`` calls."""
    return Tacotron2Style(
        n_symbols=len(voice.symbols),
        n_mels=voice.contract.n_mels,
        n_speakers=len(voice.speakers),
        silence=voice.silence,
        reduction_factor=options.reduction_factor,
        dropout=options.dropout,
        prenet_dropout=options.prenet_dropout,
    )


class MaskedConv(nn.Module):
    """Convolution, LayerNorm, activation and dropout on (B, T, D); padding is zeroed on the way in."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.LayerNorm(outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D), valid (B, T, 1) -> (B, T, D')"""
        return self.dropout(torch.tanh(self.norm(self.conv(torch.where(valid, x, 0.0).mT).mT)))


class LocationAttention(nn.Module):
    """Additive attention that sees its previous and its cumulative weights through a convolution."""

    def __init__(self, query: int, memory: int, width: int = 64, filters: int = 16, kernel: int = 31) -> None:
        super().__init__()
        self.query = nn.Linear(query, width, bias=False)
        self.memory = nn.Linear(memory, width, bias=False)
        self.location = nn.Conv1d(2, filters, kernel, padding=kernel // 2, bias=False)
        self.from_location = nn.Linear(filters, width, bias=False)
        self.energy = nn.Linear(width, 1)

    def forward(self, query: Tensor, keys: Tensor, past: Tensor, valid: Tensor) -> Tensor:
        """query (B, Q), keys (B, N, A) from ``memory``, past (B, 2, N), valid (B, N) -> weights (B, N)"""
        located = self.from_location(self.location(past).mT)
        energies = self.energy(torch.tanh(self.query(query)[:, None] + keys + located))[..., 0].float()
        return energies.masked_fill(~valid, -torch.inf).softmax(-1)


@dataclass
class Decoding:
    """What one step hands to the next, and the text that all of them read."""

    memory: Tensor
    keys: Tensor
    valid: Tensor
    past: Tensor
    """(B, 2, N): the last attention weights, and their sum over all steps"""
    context: Tensor
    attention_state: tuple[Tensor, Tensor]
    decoder_state: tuple[Tensor, Tensor]


class Tacotron2Style(nn.Module):
    """See the module's docstring."""

    silence: Tensor

    def __init__(
        self,
        n_symbols: int,
        n_mels: int,
        silence: np.ndarray,
        n_speakers: int = 1,
        reduction_factor: int = 4,
        width: int = 128,
        dropout: float = 0.05,
        prenet_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.reduction_factor, self.n_mels = reduction_factor, n_mels
        self.prenet_dropout = prenet_dropout
        self.register_buffer("silence", torch.from_numpy(silence).clone())
        self.symbols = nn.Embedding(n_symbols, width)
        self.speakers = nn.Embedding(n_speakers, width) if n_speakers > 1 else None
        self.text_layers = nn.ModuleList(MaskedConv(width, width, 5, dropout) for _ in range(2))
        self.text_lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)
        self.prenet = nn.ModuleList([nn.Linear(n_mels, width), nn.Linear(width, width)])
        self.attention = LocationAttention(width, width)
        self.attention_lstm = nn.LSTMCell(2 * width, width)
        self.decoder_lstm = nn.LSTMCell(2 * width, width)
        self.output = nn.Linear(2 * width, reduction_factor * n_mels + 1)
        self.postnet = nn.ModuleList(
            [MaskedConv(n_mels, width, 5, dropout), MaskedConv(width, width, 5, dropout)]
        )
        self.correction = nn.Linear(width, n_mels)
        # The post-net starts as no change at all.
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        speaker: Tensor | None = None,
    ) -> AcousticOutput:
        """Teacher-forced: each step hears the last true frame before it."""
        r, frames = self.reduction_factor, mel.shape[1]
        steps = -(-frames // r)
        valid = valid_mask(mel_lengths, frames)[..., None]
        heard = torch.where(valid, mel, self.silence)[:, r - 1 : (steps - 1) * r : r]
        heard = torch.cat([self.silence.expand(len(mel), 1, -1).to(heard.dtype), heard], dim=1)
        heard = self._prenet(heard)
        state = self._start(text, text_lengths, speaker)
        made = [self._step(heard[:, step], state) for step in range(steps)]
        groups, stops, weights = (torch.stack(parts, dim=1) for parts in zip(*made, strict=True))
        before = groups.reshape(len(mel), steps * r, self.n_mels)[:, :frames]
        return AcousticOutput(
            mel=(before, before + self._postnet(before, valid)),
            stop_logits=stops,
            step_lengths=-(-mel_lengths // r),
            attention=weights,
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
        """Each step hears what the last one said; an utterance ends when its stop probability is reached."""
        state, whole_text = self._start(text, text_lengths, speaker), text.shape[1]

        def decode(heard: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            group, stop, weights = self._step(self._prenet(heard[:, 0]), state)
            return group.view(len(text), -1, self.n_mels), stop[:, None], weights[:, None]

        spoken = free_run(
            decode,
            self.silence.expand(len(text), 1, -1),
            text_lengths,
            whole_text,
            reduction_factor=self.reduction_factor,
            window_back=whole_text,
            window_ahead=whole_text,
            max_frames=max_frames,
            stop_threshold=stop_threshold,
        )
        valid = valid_mask(spoken.mel_lengths, spoken.mel.shape[1])[..., None]
        return replace(spoken, mel=spoken.mel + self._postnet(spoken.mel, valid))

    def _start(self, text: Tensor, text_lengths: Tensor, speaker: Tensor | None) -> Decoding:
        valid = valid_mask(text_lengths, text.shape[1])
        h = self.symbols(torch.where(valid, text, 0))
        if self.speakers is not None and speaker is not None:
            h = h + self.speakers(speaker)[:, None]
        for layer in self.text_layers:
            h = h + layer(h, valid[..., None])
        packed = pack_padded_sequence(h, text_lengths.cpu(), batch_first=True, enforce_sorted=False)
        memory, _ = pad_packed_sequence(
            self.text_lstm(packed)[0], batch_first=True, total_length=text.shape[1]
        )
        zero = memory.new_zeros(len(text), self.attention_lstm.hidden_size)
        past = memory.new_zeros(len(text), 2, text.shape[1])
        past[:, :, 0] = 1.0
        return Decoding(memory, self.attention.memory(memory), valid, past, zero, (zero, zero), (zero, zero))

    def _prenet(self, heard: Tensor) -> Tensor:
        for layer in self.prenet:
            heard = F.dropout(layer(heard).relu(), self.prenet_dropout, self.training)
        return heard

    def _step(self, heard: Tensor, state: Decoding) -> tuple[Tensor, Tensor, Tensor]:
        """One step from the pre-net's output (B, D): frames (B, r * C), stop logit (B,), weights (B, N)."""
        state.attention_state = self.attention_lstm(
            torch.cat([heard, state.context], dim=-1), state.attention_state
        )
        query = state.attention_state[0]
        weights = self.attention(query, state.keys, state.past, state.valid)
        state.past = torch.stack([weights, state.past[:, 1] + weights], dim=1).to(state.memory.dtype)
        state.context = (weights.to(state.memory.dtype)[:, None] @ state.memory)[:, 0]
        state.decoder_state = self.decoder_lstm(
            torch.cat([query, state.context], dim=-1), state.decoder_state
        )
        made = self.output(torch.cat([state.decoder_state[0], state.context], dim=-1))
        return made[:, :-1], made[:, -1], weights

    def _postnet(self, mel: Tensor, valid: Tensor) -> Tensor:
        h = mel
        for layer in self.postnet:
            h = layer(h, valid)
        return self.correction(h)
