"""Tensors, scales and states that a fused backend must not misread: right, or refused in words."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING
from torch import Tensor
from torch.autograd import forward_ad

from ttsfast import functional
from ttsfast.losses.cpp import CppBackend
from ttsfast.losses.module import TTSLoss

pytestmark = pytest.mark.skipif(MISSING, reason=WHY_MISSING)

LENGTHS = torch.tensor([5, 3])


def mel_loss(backend: str, **options: Any) -> TTSLoss:
    only_mel = {"kl_weight": 0, "stop_weight": 0, "attention_weight": 0, "weighting": "fixed"}
    return TTSLoss(**{**only_mel, **options}, backend=backend)


def frames(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gradient(backend: str, dtype: torch.dtype, incoming: float, **call: Any) -> Tensor:
    x = frames(1, dtype).requires_grad_()
    total = mel_loss(backend)(x, frames(2, dtype), LENGTHS, **call).total
    (found,) = torch.autograd.grad(total, x, torch.tensor(incoming))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("incoming", [0.0, math.inf, -math.inf, math.nan])
def test_what_arrives_is_never_taken_for_one(dtype: torch.dtype, incoming: float) -> None:
    """A loss switched off by a factor of 0 must not train, and an overflow must show; padding stays 0."""
    ours, reference = gradient("cpp", dtype, incoming), gradient("torch", dtype, incoming)
    assert torch.equal(ours.isnan(), reference.isnan())
    assert torch.equal(ours.nan_to_num(), reference.nan_to_num())
    assert (ours[1, 3:] == 0).all()


@pytest.mark.parametrize("grad_scale", [1e-46, 1e-44, 1e-20, -3.0, 1e20, 1e38, 1e39, math.inf, math.nan, 0.0])
def test_a_hint_changes_no_result(grad_scale: float) -> None:
    expected = gradient("cpp", torch.float32, 1.0)
    found = gradient("cpp", torch.float32, 1.0, grad_scale=grad_scale)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert expected.any()


@pytest.mark.parametrize("change", ["lengths", "prediction"])
def test_what_a_second_pass_reads_must_not_have_changed(change: str) -> None:
    x, lengths = frames(1, torch.bfloat16).requires_grad_(), LENGTHS.clone()
    out = mel_loss("cpp")(x, frames(2, torch.bfloat16), lengths)
    with torch.no_grad():
        {"lengths": lengths, "prediction": x}[change].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (2 * out.total).backward()


@pytest.mark.parametrize("smoothing", ["mean", "noise"])
def test_a_loss_may_be_gone_before_its_second_pass(smoothing: str) -> None:
    """The statistics are its own, and a second pass reads them."""
    mean, std = torch.linspace(-3.0, 3.0, 8), torch.linspace(0.5, 2.0, 8)
    options = {"mel_loss": "mse", "mel_smoothing": smoothing, "mel_label_smoothing": 0.5}
    found = []
    for backend in ("cpp", "torch"):
        x = frames(1, torch.bfloat16).requires_grad_()
        loss = mel_loss(backend, **options, mel_mean=mean, mel_std=std)
        total = loss(x, frames(2), LENGTHS).total
        del loss
        # Memory that was given back is given out again.
        held = [torch.full((8,), 1e3) for _ in range(2000)]
        found.append(torch.autograd.grad(3 * total, x)[0].float())
        del held
    torch.testing.assert_close(*found, rtol=2**-7, atol=0)


@pytest.fixture(params=["at once", "after the checks"])
def _served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the extension is offered a whole call, or what the checks in Python made of it."""
    if request.param == "after the checks":
        monkeypatch.setattr(CppBackend, "accepts_unchecked", lambda *_: False)


@pytest.mark.usefixtures("_served")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_second_pass_reads_the_statistics_of_the_first(dtype: torch.dtype) -> None:
    found = []
    for changed in (False, True):
        x = frames(1, torch.bfloat16).requires_grad_()
        loss = mel_loss("cpp", mel_mean=torch.linspace(-1.0, 1.0, 8).to(dtype), mel_label_smoothing=0.5)
        out = loss(x, frames(2), LENGTHS)
        assert loss.mel_mean is not None
        assert loss.mel_mean.dtype == dtype
        if changed:
            loss.mel_mean.fill_(100.0)
        (2 * out.total).backward()
        found.append(x.grad)
    assert found[0] is not None
    assert found[1] is not None
    assert torch.equal(*found)
    assert found[0].any()


@pytest.mark.usefixtures("_served")
def test_a_second_pass_reads_no_memory_that_was_exchanged() -> None:
    x = frames(1, torch.bfloat16).requires_grad_()
    out = mel_loss("cpp")(x, frames(2, torch.bfloat16), LENGTHS)
    x.data = frames(3, torch.bfloat16)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (2 * out.total).backward()


def test_what_a_call_reports_may_be_changed() -> None:
    x = frames(1, torch.bfloat16).requires_grad_()
    out = mel_loss("cpp")(x, frames(2, torch.bfloat16), LENGTHS)
    for reported in (out.values, out.floor_values, out.weight_values, out.frames):
        reported.mul_(3)
    (2 * out.total).backward()
    assert x.grad is not None
    assert torch.equal(x.grad, gradient("cpp", torch.bfloat16, 2.0))


def test_a_tensor_with_a_lazy_sign_or_no_numbers_is_left_to_the_reference() -> None:
    lazy = torch.randn(2, 5, 8, dtype=torch.complex64).conj().imag
    assert lazy.is_neg()
    zero = torch._efficientzerotensor(2, 5, 8)
    for odd in (lazy, zero):
        expected = mel_loss("torch")(odd.clone(), frames(), LENGTHS).total
        assert torch.equal(mel_loss("auto")(odd, frames(), LENGTHS).total, expected)
        with pytest.raises(RuntimeError, match="lazy view"):
            mel_loss("cpp")(odd, frames(), LENGTHS)
    mean = functional.mel_huber_loss(lazy, frames())
    torch.testing.assert_close(mean, torch.nn.functional.huber_loss(lazy, frames()))


def test_a_tensor_whose_memory_was_taken_away_is_refused() -> None:
    x = frames()
    x.untyped_storage().resize_(0)
    # Torch before 2.10 exports no such tensor, and says so itself.
    with pytest.raises((ValueError, RuntimeError), match=r"no memory|out of bounds for storage of size 0"):
        mel_loss("cpp")(x, frames(), LENGTHS)


def test_scratch_that_no_memory_has_room_for_is_an_error() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(MemoryError):
            TTSLoss(kl_weight=0, attention_weight=0, backend="cpp")(
                torch.zeros(40, 5, 8),
                torch.zeros(40, 5, 8),
                torch.full((40,), 5),
                stop_logits=torch.zeros(1).expand(40, 10**13),
                step_lengths=torch.full((40,), 5),
            )
    finally:
        torch.set_num_threads(before)


def test_forward_mode_is_left_to_the_reference() -> None:
    x, y = frames(1), frames(2)

    def tangent(backend: str) -> Tensor:
        with forward_ad.dual_level():
            total = mel_loss(backend)(forward_ad.make_dual(x, x), y, LENGTHS).total
            found: Tensor = forward_ad.unpack_dual(total).tangent
            return found

    torch.testing.assert_close(tangent("auto"), tangent("torch"))
    with pytest.raises(RuntimeError, match="forward-mode"):
        tangent("cpp")


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_transforms_of_torch_func_are_left_to_the_reference(reduction: str) -> None:
    x, y = frames(1), frames(2)

    def value(part: Tensor) -> Tensor:
        return functional.mel_huber_loss(part, y, reduction=reduction).sum()

    leaf = x.clone().requires_grad_()
    value(leaf).backward()
    torch.testing.assert_close(torch.func.grad(value)(x), leaf.grad)
    _, along = torch.func.jvp(value, (x,), (x,))
    torch.testing.assert_close(along, (leaf.grad * x).sum())
    with pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.grad(lambda part: functional.mel_huber_loss(part, y, backend="cpp"))(x)


def test_another_default_device_changes_nothing() -> None:
    loss, x, y = mel_loss("cpp"), frames(1).requires_grad_(), frames(2)
    expected = loss(x, y, LENGTHS).total
    torch.set_default_device("meta")
    try:
        found = loss(x, y, LENGTHS).total
        found.backward()
    finally:
        torch.set_default_device(None)
    assert torch.equal(found, expected)
    assert x.grad is not None


def test_compiled_calls_refuse_second_derivatives() -> None:
    loss, x = mel_loss("cpp"), frames(1).requires_grad_()
    compiled = torch.compile(lambda a, b, n: loss(a, b, n).total, backend="eager")
    (first,) = torch.autograd.grad(compiled(x, frames(2), LENGTHS), x)
    assert first.any()
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(compiled(x, frames(2), LENGTHS), x, create_graph=True)


@pytest.mark.parametrize("incoming", [math.inf, math.nan])
def test_padding_of_compiled_calls_is_zero_whatever_arrives(incoming: float) -> None:
    torch._dynamo.reset()
    x = frames(1).requires_grad_()
    compiled = torch.compile(mel_loss("cpp"), fullgraph=True, backend="aot_eager")
    (slope,) = torch.autograd.grad(compiled(x, frames(2), LENGTHS).total, x, torch.tensor(incoming))
    assert not slope[1, 3:].any()
    assert not slope[0].isfinite().any()


@pytest.mark.parametrize("seed", [2**64 - 5, -5])
def test_seeds_of_any_width_in_compiled_calls(seed: int) -> None:
    torch._dynamo.reset()
    eager, loss = (mel_loss("cpp", mel_smoothing="noise", seed=seed) for _ in range(2))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = eager(frames(1), frames(2), LENGTHS).total
    assert torch.equal(compiled(frames(1), frames(2), LENGTHS).total, expected)
    other = mel_loss("cpp", mel_smoothing="noise")(frames(1), frames(2), LENGTHS).total
    assert not torch.equal(other, expected)


def stop(**options: Any) -> Tensor:
    return functional.stop_bce_loss(torch.zeros(2, 5), LENGTHS, **options)


def kl(**options: Any) -> Tensor:
    return functional.gaussian_kl_loss(frames(), frames(), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stop(label_smoothing=3.0), "label_smoothing"),
        (lambda: stop(pos_weight=-1.0), "pos_weight"),
        (lambda: stop(tail_frames=-3), "tail_frames"),
        (lambda: stop(tail_frames=2.5), "tail_frames"),
        (lambda: functional.mel_huber_loss(frames(), frames(), label_smoothing=math.nan), "label_smoothing"),
        (lambda: kl(free_bits=-1.0), "free_bits"),
        (lambda: kl(free_bits=math.nan), "free_bits"),
        (lambda: kl(prior=(frames(),) * 3), "prior must be a pair"),
        (lambda: mel_loss("auto", stop_tail_frames=2.7), "stop_tail_frames"),
        (lambda: mel_loss("auto", stop_tail_frames=2**64), "stop_tail_frames"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_named(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
