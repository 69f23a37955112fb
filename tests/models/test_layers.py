from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_checks import assert_same

from ttsfast.models.layers import ConvCache, GatedConv, GatedStack, SequenceConv
from ttsfast.terms.masks import valid_mask


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (3, 4), (5, 2)])
def test_a_convolution_is_the_sum_over_its_taps(causal: bool, kernel_size: int, dilation: int) -> None:
    conv = SequenceConv(3, 5, kernel_size, dilation, causal=causal)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 7, 3)
    first = (kernel_size - 1) * (1 if causal else 0.5) * dilation
    expected = conv.bias.expand(2, 7, 5).clone()
    for t in range(7):
        for k in range(kernel_size):
            source = t - int(first) + k * dilation
            if 0 <= source < 7:
                expected[:, t] += x[:, source] @ conv.weight[:, :, k].T
    assert_same(conv(x), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_nothing_is_transposed(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library is given, and what comes back to it, has its channels side by side."""
    seen: dict[str, torch.Tensor] = {}

    def convolve(row: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        y = conv2d(row, *arguments, **named)
        seen["given"], seen["made"] = row, y
        y.register_hook(lambda gradient: seen.update(gradient=gradient))
        return y

    conv2d = F.conv2d
    monkeypatch.setattr(F, "conv2d", convolve)
    conv = SequenceConv(4, 6, 3, 2, causal=causal)
    F.glu(conv(torch.randn(3, 7, 4, requires_grad=True)), dim=-1).sum().backward()
    assert all(tensor.stride(1) == 1 for tensor in seen.values())


def test_a_centred_convolution_refuses_an_even_kernel() -> None:
    with pytest.raises(ValueError, match="odd kernel, not 4"):
        SequenceConv(2, 2, 4, 1, causal=False)


@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (2, 3), (3, 1), (3, 5)])
def test_a_cache_continues_a_causal_convolution(kernel_size: int, dilation: int) -> None:
    conv = SequenceConv(4, 6, kernel_size, dilation, causal=True)
    x = torch.randn(3, 23, 4)
    cache = ConvCache(conv, 3)
    steps = [conv(x[:, t : t + 1], cache) for t in range(23)]
    assert_same(torch.cat(steps, dim=1), conv(x))
    assert cache.ring.shape[1] == (kernel_size - 1) * dilation


def test_a_gated_convolution_is_a_residual_glu() -> None:
    layer = GatedConv(4, 3, 2, causal=True, dropout=0.5).eval()
    x = torch.randn(2, 9, 4)
    a, b = layer.conv(F.layer_norm(x, (4,))).chunk(2, dim=-1)
    assert_same(layer(x), x + a * torch.sigmoid(b))


def test_dropout_takes_whole_channels_of_an_utterance() -> None:
    layer = GatedConv(64, 3, 1, causal=True, dropout=0.5)
    x = torch.randn(8, 9, 64)
    dropped = (layer(x) - x) == 0
    assert (dropped.all(dim=1) == dropped.any(dim=1)).all()
    assert 0.4 < dropped[:, 0].float().mean() < 0.6


def test_a_stack_continues_from_its_caches() -> None:
    stack = GatedStack(8, (1, 3, 2), causal=True, dropout=0.1).eval()
    x = torch.randn(2, 15, 8)
    caches = stack.caches(2)
    assert_same(torch.cat([stack(x[:, t : t + 1], caches=caches) for t in range(15)], dim=1), stack(x))


def test_a_centred_stack_reads_nothing_of_the_padding() -> None:
    stack = GatedStack(8, (1, 3), causal=False, dropout=0.0)
    x = torch.randn(1, 12, 8)
    valid = valid_mask(torch.tensor([7]), 12)[..., None]
    assert_same(stack(x, valid)[:, :7], stack(x[:, :7]), 1e-6)
