"""What a recording holds beyond its text, as a Gaussian over one small vector per utterance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsfast.models.layers import GatedStack
from ttsfast.terms.masks import valid_mask


class PosteriorEncoder(nn.Module):
    """Strided convolutions over the mel, then a mean over the valid steps alone.

    The first convolution's stride equals its kernel, so that it is one matrix product over patches of
    ``stride`` frames, and everything behind it costs next to nothing.
    """

    def __init__(self, n_mels: int, channels: int, latent_dim: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        self.patch = nn.Linear(n_mels * stride, channels)
        self.layers = GatedStack(channels, (1, 2), causal=False, dropout=dropout)
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, 2 * latent_dim)
        # It starts at the prior, so that the decoder sees no noise that grows with the random weights.
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, mel: Tensor, mel_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C), whatever the padding holds -> (mu, logvar), each (B, Z) in float32 or wider."""
        batch, frames, bins = mel.shape
        patches = -(-frames // self.stride)
        steps = -(-mel_lengths // self.stride)
        spoken = torch.where(valid_mask(mel_lengths, frames)[..., None], mel, 0.0)
        padded = F.pad(spoken, (0, 0, 0, patches * self.stride - frames))
        valid = valid_mask(steps, patches)[..., None]
        h = self.patch(padded.view(batch, patches, self.stride * bins))
        h = self.norm(self.layers(h, valid)) * valid
        mean = h.sum(dim=1) / steps.clamp(min=1)[:, None]
        mu, logvar = self.project(mean).to(torch.promote_types(mel.dtype, torch.float32)).chunk(2, dim=-1)
        return mu, logvar
