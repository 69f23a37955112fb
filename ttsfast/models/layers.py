"""Gated convolutions over ``(B, T, D)`` sequences, computed whole or continued step by step from a cache."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvCache:
    """The past inputs of one causal convolution, in a ring: what its next output needs and no more."""

    def __init__(self, conv: SequenceConv, batch: int) -> None:
        self.time = 0
        # Zeros, as the convolution pads the start of a whole sequence.
        self.ring = conv.weight.new_zeros(batch, (conv.kernel_size - 1) * conv.dilation, conv.weight.shape[1])
        self.weight = conv.weight.transpose(1, 2).flatten(1)
        """(D_out, K * D): the kernel's taps side by side, so that one product makes a step."""

    def taps(self, x: Tensor, conv: SequenceConv) -> Tensor:
        """Add the input ``x`` (B, 1, D) and return what the kernel sees at this step: (B, 1, K * D)."""
        reach = self.ring.shape[1]
        if reach == 0:
            return x
        past = [self.ring[:, (self.time + i * conv.dilation) % reach] for i in range(conv.kernel_size - 1)]
        taps = torch.cat([*past, x[:, 0].to(self.ring.dtype)], dim=-1)[:, None]
        self.ring[:, self.time % reach] = x[:, 0]
        self.time += 1
        return taps


class SequenceConv(nn.Module):
    """A dilated convolution on ``(B, T, D)`` that keeps the length, centred or causal."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, dilation: int, *, causal: bool) -> None:
        super().__init__()
        if not causal and kernel_size % 2 == 0:
            raise ValueError(f"a centred convolution needs an odd kernel, not {kernel_size}")
        self.kernel_size = kernel_size
        self.dilation = dilation
        reach = (kernel_size - 1) * dilation
        self.past = reach if causal else 0
        """zeros before the first step"""
        self.padding = 0 if causal else reach // 2
        """zeros on both sides"""
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel_size))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=(inputs * kernel_size) ** -0.5)

    def forward(self, x: Tensor, cache: ConvCache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D_out)

        With a ``cache`` the convolution is causal, x is the one next step (B, 1, D), and the result equals
        that step of the whole sequence; the cache moves on.
        """
        if cache is not None:
            return F.linear(cache.taps(x, self), cache.weight, self.bias)
        if self.past:
            x = F.pad(x, (0, 0, self.past, 0))
        x = x.transpose(1, 2)
        if torch.compiler.is_compiling():
            # A compiler chooses layouts by itself, and would make an image's program anew for every length.
            y = F.conv1d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation)
            return y.transpose(1, 2)
        # An image of one row in the layout "channels last", which is x as it lies in memory: nothing is
        # transposed, forward or backward (bench/layout.py).
        padding, dilation = (0, self.padding), (1, self.dilation)
        y = F.conv2d(x[:, :, None], self.weight[:, :, None], self.bias, padding=padding, dilation=dilation)
        return y.squeeze(2).transpose(1, 2)


class GatedConv(nn.Module):
    """Residual gated convolution: ``x + dropout(GLU(conv(LayerNorm(x))))``.

    The gated linear unit (Dauphin et al., 2017) stands in the place of DC-TTS's highway convolution.
    LayerNorm looks at one position at a time: unlike BatchNorm it cannot mix padding into valid frames.
    Dropout takes whole channels of an utterance, which costs T times fewer random numbers (drawing them
    one by one took a tenth of a training step on a CPU).
    """

    def __init__(
        self, channels: int, kernel_size: int, dilation: int, *, causal: bool, dropout: float
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = SequenceConv(channels, 2 * channels, kernel_size, dilation, causal=causal)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None, cache: ConvCache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D).

        ``valid`` (B, T, 1) keeps padding out of a centred convolution; a causal one has it only in its
        future. For ``cache`` see :class:`SequenceConv`.
        """
        h = self.norm(x)
        if valid is not None:
            h = h * valid
        y = F.glu(self.conv(h, cache), dim=-1)
        return x + self.dropout(y.transpose(1, 2)).transpose(1, 2)


class GatedStack(nn.ModuleList):
    """Gated convolutions one after the other, one for each dilation."""

    def __init__(
        self, channels: int, dilations: tuple[int, ...], *, causal: bool, dropout: float, kernel_size: int = 3
    ) -> None:
        super().__init__(
            GatedConv(channels, kernel_size, dilation, causal=causal, dropout=dropout)
            for dilation in dilations
        )

    def forward(
        self, x: Tensor, valid: Tensor | None = None, caches: list[ConvCache] | None = None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); see :class:`GatedConv`."""
        for number, layer in enumerate(self):
            x = layer(x, valid, None if caches is None else caches[number])
        return x

    def caches(self, batch: int) -> list[ConvCache]:
        """Empty caches with which to continue ``batch`` sequences from their first step."""
        return [ConvCache(layer.conv, batch) for layer in self if isinstance(layer, GatedConv)]
