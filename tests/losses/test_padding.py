"""Padding never matters: not its content, not its amount, not the layout of the tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_checks import assert_close, gradients, leaves, make_batch, make_loss
from torch import Tensor

VARIANTS: list[dict[str, Any]] = [
    {},
    {"per_frame": True, "prior": True, "heads": 2, "pair": True},
    {"reduction": 3, "heads": 1},
]


def poison(batch: dict[str, Any], value: float, tail: int) -> dict[str, Any]:
    """The same call with ``value`` in every element that must not be read."""
    lengths, text = batch["mel_lengths"], batch["text_lengths"]
    steps = batch.get("step_lengths", lengths)

    def fill(tensor: Tensor, keep: Tensor) -> Tensor:
        filled = torch.where(keep, tensor.detach(), torch.full_like(tensor, value))
        return filled.requires_grad_(tensor.requires_grad)

    def below(sizes: Tensor, size: int) -> Tensor:
        return torch.arange(size) < sizes[:, None]

    def frames(tensor: Tensor) -> Tensor:
        return fill(tensor, below(lengths, tensor.shape[1])[:, :, None])

    def latent(tensor: Tensor) -> Tensor:
        return frames(tensor) if tensor.dim() == 3 else fill(tensor, (lengths > 0)[:, None])

    result = dict(batch)
    prediction = batch["mel_pred"]
    result["mel_pred"] = (
        tuple(map(frames, prediction)) if isinstance(prediction, tuple) else frames(prediction)
    )
    result["mel_target"] = frames(batch["mel_target"])
    for name in ("posterior", "prior"):
        if name in batch:
            result[name] = tuple(map(latent, batch[name]))
    with_tail = torch.where(steps > 0, steps + tail, 0)
    result["stop_logits"] = fill(batch["stop_logits"], below(with_tail, batch["stop_logits"].shape[1]))
    attention = batch["attention"]
    keep = below(steps, attention.shape[-2])[:, :, None] & below(text, attention.shape[-1])[:, None]
    result["attention"] = fill(attention, keep[:, None] if attention.dim() == 4 else keep)
    return result


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("normalization", ["frame", "utterance"])
@pytest.mark.parametrize("smoothing", ["mean", "noise"])
def test_content_of_padding(
    value: float, variant: dict[str, Any], normalization: str, smoothing: str
) -> None:
    batch = make_batch([7, 3, 0], [4, 2, 1], frames=21, symbols=6, **variant)
    hostile = poison(batch, value, tail=2)
    options = {"normalization": normalization, "mel_smoothing": smoothing, "stop_tail_frames": 2}
    clean, dirty = make_loss(**options), make_loss(**options)
    assert_close(dirty(**hostile).values, clean(**batch).values, rtol=0, atol=0)
    clean.noise_step.zero_()
    dirty.noise_step.zero_()
    expected = gradients(clean, batch)
    for name, grad in gradients(dirty, hostile).items():
        assert_close(grad, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("smoothing", ["mean", "noise"])
def test_amount_of_padding(smoothing: str) -> None:
    tight = make_batch([7, 3], [4, 2], frames=10, bins=6)
    wide = dict(tight)
    for name, tensor in tight.items():
        if name in ("mel_pred", "mel_target", "stop_logits", "attention"):
            pad = (0, 0, 0, 5) if tensor.dim() == 3 else (0, 5)
            wide[name] = torch.nn.functional.pad(tensor.detach(), pad, value=9.0)
    options = {"mel_smoothing": smoothing, "stop_tail_frames": 3}
    assert_close(make_loss(**options)(**wide).values, make_loss(**options)(**tight).values)


def test_layouts_and_inputs_untouched() -> None:
    batch = make_batch([9, 4], [5, 3], bins=7)
    expected = gradients(make_loss(), batch)

    def spread(tensor: Tensor) -> Tensor:
        """The same values in transposed, strided and offset memory."""
        wide = torch.full([2 * n + 1 for n in tensor.shape][::-1], torch.nan, dtype=tensor.dtype)
        view = wide[tuple(slice(1, None, 2) for _ in tensor.shape)].permute(*reversed(range(tensor.dim())))
        view.copy_(tensor.detach())
        assert not view.is_contiguous()
        return view.detach().requires_grad_(tensor.requires_grad)

    strided = dict(batch)
    for name in ("mel_pred", "mel_target", "stop_logits", "attention"):
        strided[name] = spread(batch[name])
    strided["posterior"] = tuple(map(spread, batch["posterior"]))
    before = {name: leaf.detach().clone() for name, leaf in leaves(strided).items()}
    target = strided["mel_target"].clone()
    for name, grad in gradients(make_loss(), strided).items():
        assert_close(grad, expected[name], rtol=1e-13)
    for name, leaf in leaves(strided).items():
        assert torch.equal(leaf.detach(), before[name]), f"{name} was modified"
    assert torch.equal(strided["mel_target"], target)


def test_expanded_inputs() -> None:
    batch = make_batch([6, 6], [3, 3])
    one = batch["attention"][:1].detach()
    expanded, copied = one.expand(2, -1, -1), one.repeat(2, 1, 1)
    loss = make_loss()
    assert_close(
        loss(**{**batch, "attention": expanded}).values, loss(**{**batch, "attention": copied}).values
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint32, torch.int16, torch.int32, torch.int64])
def test_any_integer_lengths(dtype: torch.dtype) -> None:
    batch = make_batch([250, 3], [4, 2])
    cast = {k: v.to(dtype) if k.endswith("lengths") else v for k, v in batch.items()}
    assert_close(make_loss()(**cast).values, make_loss()(**batch).values, rtol=0, atol=0)
