"""HiFi-GAN's generator as the published code lays it out (Kong et al., 2020), with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

CONTRACT = {"sampling_rate": 22050, "n_fft": 1024, "hop_size": 256, "win_size": 1024, "num_mels": 80}
CONTRACT |= {"fmin": 0, "fmax": 8000}
_LARGE: dict[str, Any] = {
    **CONTRACT,
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
}
CONFIGS: dict[str, dict[str, Any]] = {
    "V1": {**_LARGE, "upsample_initial_channel": 512},
    "V2": {**_LARGE, "upsample_initial_channel": 128},
    "V3": {
        **CONTRACT,
        "resblock": "2",
        "upsample_rates": [8, 8, 4],
        "upsample_kernel_sizes": [16, 16, 8],
        "upsample_initial_channel": 256,
        "resblock_kernel_sizes": [3, 5, 7],
        "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]],
    },
}


class PublishedGenerator(nn.Module):
    """The names and shapes of its state dict are those of the published checkpoints.

    ``norm`` wraps each convolution: torch's weight norm, old or new, or nothing for one already folded.
    """

    def __init__(self, config: dict[str, Any], norm: Any = parametrizations.weight_norm) -> None:
        super().__init__()
        self.config, width = config, config["upsample_initial_channel"]
        self.conv_pre = norm(nn.Conv1d(config["num_mels"], width, 7, padding=3))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(config["upsample_rates"], config["upsample_kernel_sizes"], strict=True):
            up = nn.ConvTranspose1d(width, width // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(norm(up))
            width //= 2
            shapes = zip(config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True)
            for size, dilations in shapes:
                self.resblocks.append(_block(config["resblock"], width, size, dilations, norm))
        self.conv_post = norm(nn.Conv1d(width, 1, 7, padding=3))

    def forward(self, mel: Tensor) -> Tensor:
        """(B, C, T) to (B, 1, samples)."""
        x, kinds = self.conv_pre(mel), len(self.config["resblock_kernel_sizes"])
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            x = sum(block(x) for block in self.resblocks[stage * kinds : (stage + 1) * kinds]) / kinds
        return torch.tanh(self.conv_post(F.leaky_relu(x)))


class _Pairs(nn.Module):
    def __init__(self, width: int, kernel: int, dilations: list[int], norm: Any) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same(width, kernel, dilation, norm) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same(width, kernel, 1, norm) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, 0.1)), 0.1))
        return x


class _Singles(nn.Module):
    def __init__(self, width: int, kernel: int, dilations: list[int], norm: Any) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_same(width, kernel, dilation, norm) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convs:
            x = x + convolution(F.leaky_relu(x, 0.1))
        return x


def _block(kind: str, width: int, kernel: int, dilations: list[int], norm: Any) -> nn.Module:
    return (_Pairs if kind == "1" else _Singles)(width, kernel, dilations, norm)


def _same(width: int, kernel: int, dilation: int, norm: Any) -> nn.Module:
    padding = dilation * (kernel - 1) // 2
    return norm(nn.Conv1d(width, width, kernel, dilation=dilation, padding=padding))
