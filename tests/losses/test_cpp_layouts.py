"""The C++ backend on every layout of memory, and its writes held to the gradients alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING, assert_accurate, assert_same_bits, run
from loss_checks import leaves, make_batch, make_loss
from strided import sliced, spread, transposed
from torch import Tensor

from ttsfast import native
from ttsfast.losses import backend as backends

pytestmark = pytest.mark.skipif(MISSING, reason=WHY_MISSING)


def misaligned(tensor: Tensor) -> Tensor:
    """One element off every alignment."""
    flat = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    return flat[1:].view(tensor.shape).copy_(tensor)


def batch_first_last(tensor: Tensor) -> Tensor:
    """The batch axis innermost."""
    return tensor.movedim(0, -1).contiguous().movedim(-1, 0)


LAYOUTS = [transposed, sliced, spread, misaligned, batch_first_last]


def laid_out(batch: dict[str, Any], layout: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(one(part) for part in value)
        if isinstance(value, Tensor) and value.is_floating_point():
            return layout(value.detach()).requires_grad_(value.requires_grad)
        return value

    return {name: one(value) for name, value in batch.items()}


def make(dtype: torch.dtype = torch.float32, **shape: Any) -> dict[str, Any]:
    shape = {"per_frame": True, "prior": True, "pair": True, "heads": 2, "bins": 41, "latents": 19, **shape}
    batch = make_batch([37, 12, 1, 0], [5, 4, 3, 2], frames=45, dtype=dtype, **shape)
    batch["mel_target"].requires_grad_()
    return batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_layouts(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    assert_accurate(laid_out(make(dtype), layout))


def test_expanded_inputs() -> None:
    batch = make()
    batch["mel_target"] = torch.randn(41).expand(4, 45, 41)
    batch["posterior"] = (torch.randn(4, 1, 19).expand(4, 45, 19), torch.randn(19).expand(4, 45, 19))
    assert_accurate(batch)


def test_mixed_dtypes_and_layouts() -> None:
    batch = make()
    with torch.no_grad():
        batch["mel_pred"] = (batch["mel_pred"][0].bfloat16(), transposed(batch["mel_pred"][1].half()))
        batch["posterior"] = (batch["posterior"][0].bfloat16(), batch["posterior"][1])
    for part in (*batch["mel_pred"], *batch["posterior"]):
        part.requires_grad_()
    result = run(batch, "cpp")
    assert result["grad mel_pred.0"].dtype == torch.bfloat16
    assert result["grad mel_pred.1"].dtype == torch.float16
    assert_accurate(batch)


@pytest.mark.parametrize("target", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("isa", [1, 2, 3])
def test_bfloat_as_it_lies_and_through_a_copy_give_the_same_bits(
    target: torch.dtype, isa: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert native.core is not None
    if not native.core.loss_supports(isa):
        pytest.skip("this processor does not have these instructions")
    monkeypatch.setattr(backends.BACKENDS["cpp"], "isa", isa)
    batch = make(torch.bfloat16)
    # The smallest and largest numbers, infinities and NaN, at every place of a vector.
    odd = torch.tensor([0.0, -0.0, 1e-40, -1e-39, 3e38, torch.inf, -torch.inf, torch.nan]).bfloat16()
    with torch.no_grad():
        batch["mel_pred"][0].view(-1)[: 8 * 41] = odd.repeat(41)
        batch["posterior"][0].view(-1)[: 8 * 19] = odd.repeat(19)
    batch["mel_target"] = batch["mel_target"].detach().to(target).requires_grad_()
    assert_same_bits(run(batch, "cpp", 3.7), run(laid_out(batch, spread), "cpp", 3.7))


@pytest.mark.parametrize("isa", [1, 2, 3])
def test_gradients_are_rounded_to_bfloat_as_torch_rounds(isa: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.core is not None
    if not native.core.loss_supports(isa):
        pytest.skip("this processor does not have these instructions")
    monkeypatch.setattr(backends.BACKENDS["cpp"], "isa", isa)
    draw = torch.Generator().manual_seed(0)
    upper = torch.randint(-(2**15), 2**15, (4096,), generator=draw, dtype=torch.int32) << 16
    # Just below, at and above the middle between two numbers; of NaN, one whose bits a carry would leave.
    lower = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=torch.int32).repeat(683)[:4096]
    target = (upper | lower).view(torch.float32)
    target[:2] = torch.tensor([0x7FFFFFFF, 0x7F800001], dtype=torch.int32).view(torch.float32)
    target = torch.where(target.abs() > 1e38, target.sign(), target).view(1, 512, 8)
    assert target.isnan().sum() > 10
    prediction = torch.zeros(1, 512, 8, dtype=torch.bfloat16, requires_grad=True)
    # Weight over elements times the slope of a square is 1.
    loss = make_loss(
        mel_weight=0.5 * 4096, kl_weight=0, stop_weight=0, attention_weight=0, mel_loss="mse",
        mel_smoothing="none", backend="cpp",
    )  # fmt: skip
    (found,) = torch.autograd.grad(loss(prediction, target, torch.tensor([512])).total, prediction)
    expected = (-target).bfloat16()
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num().view(torch.int16), expected.nan_to_num().view(torch.int16))


def test_a_transposed_input_gets_a_transposed_gradient() -> None:
    batch = laid_out(make(), transposed)
    result = run(batch, "cpp")
    for name, leaf in leaves(batch).items():
        assert result[f"grad {name}"].stride() == leaf.stride(), name


@pytest.mark.parametrize("integer", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_lengths_of_any_integer_type_and_stride(integer: torch.dtype) -> None:
    batch = make()
    expected = run(batch, "cpp")
    for name in ("mel_lengths", "text_lengths"):
        batch[name] = torch.stack([batch[name], batch[name] + 1], dim=1).to(integer)[:, 0]
    assert_same_bits(expected, run(batch, "cpp"))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("layout", [None, transposed, misaligned])
def test_gradients_are_written_whole_and_nothing_else(
    layout: Callable[[Tensor], Tensor] | None, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    borders: list[Tensor] = []
    usual = torch.empty_like

    def poisoned(tensor: Tensor) -> Tensor:
        like = usual(tensor)
        # An odd border on either side, so that the gradient starts and ends in the middle of a register.
        outer = torch.full((like.numel() + 14,), 12345.0, dtype=like.dtype)
        inner = outer[7 : 7 + like.numel()].as_strided(like.shape, like.stride(), 7)
        inner.fill_(float("nan"))
        borders.append(outer)
        return inner

    batch = make(bins=80, latents=64) if not large else large_batch()
    batch = batch if layout is None else laid_out(batch, layout)
    expected = run(batch, "cpp")
    monkeypatch.setattr(torch, "empty_like", poisoned)
    result = run(batch, "cpp")
    for name in expected:
        torch.testing.assert_close(result[name], expected[name], rtol=1e-6, atol=1e-9, equal_nan=False)
    assert len(borders) == len(leaves(batch))
    for outer in borders:
        assert (outer[:7] == 12345.0).all()
        assert (outer[-7:] == 12345.0).all()


def large_batch(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Enough gradients for streaming stores."""
    batch = make_batch(
        [1000, 1511, 77, 1512] * 2, [5, 4, 3, 9] * 2, frames=1520, bins=100, latents=160, per_frame=True,
        pair=True, dtype=dtype,
    )  # fmt: skip
    batch["mel_target"].requires_grad_()
    return batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("target", [torch.float32, torch.bfloat16], ids=str)
def test_streaming_changes_no_bit(
    dtype: torch.dtype, target: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Off a register's boundary nothing is streamed, so these two runs take different paths.
    batch = large_batch(dtype)
    batch["mel_target"] = batch["mel_target"].detach().to(target).requires_grad_()
    expected = run(batch, "cpp")
    usual = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda tensor: misaligned(usual(tensor)))
    result = run(batch, "cpp")
    for name in expected:
        torch.testing.assert_close(result[name], expected[name], rtol=2e-7, atol=0, equal_nan=False)
    assert all(result[f"grad {name}"].data_ptr() % 16 for name in leaves(batch))
