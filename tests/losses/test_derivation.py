"""The closed-form gradients of docs/derivation.md against autograd: what fused kernels implement."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_checks import assert_close, gradients, make_batch, make_loss
from torch import Tensor

from ttsfast.losses.philox import standard_normal

LENGTHS, TEXT, TAIL = [7, 3, 0, 5], [4, 2, 3, 1], 2
UNITS = torch.tensor(LENGTHS, dtype=torch.float64)


def coefficient(counts: Tensor, normalization: str) -> Tensor:
    """k_b of section 1, (B, 1)."""
    if normalization == "frame":
        return torch.full((4, 1), 1 / float(counts.sum()), dtype=torch.float64)
    return 1 / (3 * counts.clamp(min=1))[:, None]


def below(lengths: Tensor, size: int) -> Tensor:
    return torch.arange(size) < lengths[:, None]


@pytest.fixture(params=["frame", "utterance"])
def normalization(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("kind", ["huber", "l1", "mse"])
@pytest.mark.parametrize("smoothing", ["mean", "noise"])
def test_mel(kind: str, smoothing: str, normalization: str) -> None:
    batch = make_batch(LENGTHS, TEXT, pair=True)
    mean, std = torch.linspace(-1, 1, 5).double(), torch.linspace(0.5, 2, 5).double()
    options: dict[str, Any] = {"mel_loss": kind, "mel_smoothing": smoothing, "mel_label_smoothing": 0.3}
    loss = make_loss(**options, mel_mean=mean, mel_std=std, normalization=normalization, seed=3)
    actual = gradients(loss, batch)
    y = batch["mel_target"]
    if smoothing == "mean":
        y = 0.7 * y + 0.3 * mean
    else:
        y = y + 0.3 * std * standard_normal((4, 15, 5), 3, torch.tensor(0), torch.float64)
    k = coefficient(UNITS, normalization)[:, :, None]
    for i, x in enumerate(batch["mel_pred"]):
        d = x.detach() - y
        slope = {"huber": d.clamp(-0.6, 0.6), "l1": d.sign(), "mse": 2 * d}[kind]
        expected = 22.0 / 5 * k * torch.where(below(UNITS, 15)[:, :, None], slope, 0.0)
        assert_close(actual[f"mel_pred.{i}"], expected)


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("kl_normalization", ["elbo", "vector"])
def test_kl(per_frame: bool, kl_normalization: str, normalization: str) -> None:
    batch = make_batch(LENGTHS, TEXT, per_frame=per_frame, prior=True)
    free = 3.0
    loss = make_loss(kl_free_bits=free, kl_normalization=kl_normalization, normalization=normalization)
    actual = gradients(loss, batch)
    (mu, v), (m, u) = ([part.detach() for part in batch[name]] for name in ("posterior", "prior"))
    r, q = v - u, (mu - m) * torch.exp(-u / 2)
    kl = 0.5 * (torch.expm1(r) - r + q.square()).sum(-1, keepdim=True)
    open_ = (kl > free) & (below(UNITS, 15)[:, :, None] if per_frame else (UNITS > 0)[:, None])
    assert open_.any()
    assert not open_.all()
    if kl_normalization == "elbo" or per_frame:
        k = coefficient(UNITS, normalization) / (5 if kl_normalization == "elbo" else 1)
    else:
        k = torch.full((4, 1), 1 / 3, dtype=torch.float64)
    k = 1.8 * (k[:, :, None] if per_frame else k) * open_
    assert_close(actual["posterior.0"], k * q * torch.exp(-u / 2))
    assert_close(actual["prior.0"], -k * q * torch.exp(-u / 2))
    assert_close(actual["posterior.1"], k * 0.5 * torch.expm1(r))
    assert_close(actual["prior.1"], -k * 0.5 * (torch.expm1(r) + q.square()))


@pytest.mark.parametrize("smoothing", [0.0, 0.06])
def test_stop(smoothing: float, normalization: str) -> None:
    batch = make_batch(LENGTHS, TEXT)
    batch["truncated"] = torch.tensor([False, True, False, False])
    loss = make_loss(stop_label_smoothing=smoothing, stop_tail_frames=TAIL, normalization=normalization)
    actual = gradients(loss, batch)["stop_logits.0"]
    tail = torch.tensor([TAIL, 0, 0, TAIL])
    y = (below(UNITS + tail, 15) & ~below(UNITS - 1, 15) & ~batch["truncated"][:, None]).double()
    q = y * (1 - smoothing) + smoothing / 2
    x = batch["stop_logits"].detach()
    slope = (1 - q) * torch.sigmoid(x) - 4.0 * q * torch.sigmoid(-x)
    slope = torch.where(below(UNITS + tail, 15), slope, 0.0)
    assert_close(actual, 1.5 * coefficient(UNITS + tail, normalization) * slope)


def test_attention(normalization: str) -> None:
    batch = make_batch(LENGTHS, TEXT, heads=2, reduction=2)
    actual = gradients(make_loss(normalization=normalization), batch)["attention.0"]
    steps, text = batch["step_lengths"], batch["text_lengths"]
    n = torch.arange(4).double() / text[:, None]
    s = torch.arange(12).double() / steps.clamp(min=1)[:, None]
    w = 1 - torch.exp(-((n[:, None] - s[:, :, None]) ** 2) / (2 * 0.2**2))
    valid = below(steps, 12)[:, :, None] & below(text, 4)[:, None]
    expected = 0.3 / 2 * coefficient(steps.double(), normalization)[:, :, None] * torch.where(valid, w, 0.0)
    assert_close(actual, expected[:, None].expand(-1, 2, -1, -1))
