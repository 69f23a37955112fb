"""Who is spoken when: an alignment that is learned from texts and recordings alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsfast.models.layers import SequenceConv
from ttsfast.terms.masks import valid_mask


class Aligner(nn.Module):
    """How well each symbol fits each decoder step (Badlani et al., 2022).

    Keys are made of symbols and their neighbours, queries of steps of the mel and theirs, both by two small
    convolutions; the score is minus half the squared distance of the two. The forward-sum loss teaches it.

    Args:
        channels: D, of the symbols' embeddings and inside.
        step_size: values of the mel in a step, r * C.
        compared: channels in which symbols and steps are compared.
    """

    def __init__(self, channels: int, step_size: int, compared: int) -> None:
        super().__init__()
        self.symbols = SequenceConv(channels, channels, 3, 1, causal=False)
        self.keys = nn.Linear(channels, compared)
        self.frames = nn.Linear(step_size, channels)
        self.steps = SequenceConv(channels, channels, 3, 1, causal=False)
        self.queries = nn.Linear(channels, compared)

    def forward(self, symbols: Tensor, text_lengths: Tensor, mel: Tensor, step_lengths: Tensor) -> Tensor:
        """Log-probabilities of the symbols at each step, without a prior.

        Args:
            symbols: (B, N, D) embedded; its padding may hold anything.
            text_lengths: (B,) at least 1 each.
            mel: (B, S, r * C); its padding may hold anything.
            step_lengths: (B,)

        Returns:
            (B, S, N) in float32 or wider, minus infinity at the text's padding.
        """
        read = valid_mask(text_lengths, symbols.shape[1])
        spoken = valid_mask(step_lengths, mel.shape[1])
        k = self.keys(F.relu(self.symbols(torch.where(read[..., None], symbols, 0.0))))
        h = torch.where(spoken[..., None], F.relu(self.frames(torch.where(spoken[..., None], mel, 0.0))), 0.0)
        q = self.queries(F.relu(self.steps(h)))
        wide = torch.promote_types(k.dtype, torch.float32)
        with torch.autocast(mel.device.type, enabled=False):
            q, k = q.to(wide), k.to(wide)
            # -|q - k|^2 / 2 without the part that all symbols of a step share.
            scores = q @ k.mT - 0.5 * k.square().sum(-1)[:, None]
            return scores.masked_fill(~read[:, None], -torch.inf).log_softmax(-1)
