"""The C++ backend among autograd's ways of being called."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING, assert_same_bits, cast, run
from loss_checks import assert_close, leaves, make_batch, make_loss
from torch import Tensor

from ttsfast import native
from ttsfast.losses import backend as backends
from ttsfast.losses.checks import check_inputs

pytestmark = pytest.mark.skipif(MISSING, reason=WHY_MISSING)


def make(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    batch = make_batch([37, 12, 0], [5, 4, 3], per_frame=True, prior=True, pair=True, heads=2, dtype=dtype)
    batch["mel_target"].requires_grad_()
    return batch


def total(batch: dict[str, Any], **options: Any) -> Tensor:
    call = {"grad_scale": options.pop("grad_scale")} if "grad_scale" in options else {}
    return make_loss(backend="cpp", **options)(**batch, **call).total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("applied", [None, 1.0, 1024.0, 0.1, 0.0, float("inf"), torch.tensor(8.0)])
@pytest.mark.parametrize("arriving", [1.0, 1024.0, 0.1])
def test_any_incoming_gradient(dtype: torch.dtype, applied: Any, arriving: float) -> None:
    batch = make(dtype)
    expected = run(batch, "torch", arriving)
    result = run(batch, "cpp", arriving, grad_scale=applied)
    for name in expected:
        rtol = {torch.bfloat16: 8e-3, torch.float16: 2e-3, torch.float64: 1e-7}.get(dtype, 2e-6)
        scale = float(expected[name].double().abs().max())
        assert_close(result[name], expected[name], rtol=rtol, atol=1e-6 * scale)


def test_half_precision_is_not_rounded_twice() -> None:
    batch = make(torch.float16)
    for smoothing in ("mean", "noise"):
        right, late = (
            run(batch, "cpp", 65536.0, grad_scale=scale, mel_smoothing=smoothing) for scale in (65536.0, None)
        )
        assert_same_bits(right, late)
        assert right["grad posterior.0"].isfinite().all()


def test_retain_graph_gives_the_same_gradients_again() -> None:
    batch = make()
    value = total(batch)
    inputs = list(leaves(batch).values())
    first = torch.autograd.grad(value, inputs, retain_graph=True)
    kept = [grad.clone() for grad in first]
    for grad in first:
        grad.mul_(7)
    second = torch.autograd.grad(value, inputs, retain_graph=True)
    tripled = [
        torch.autograd.grad(value, inputs, torch.tensor(3.0), retain_graph=again) for again in (True, False)
    ]
    for a, b, c, d in zip(kept, second, *tripled, strict=True):
        assert_close(b, a, rtol=0, atol=0)
        assert_close(c, 3 * a, rtol=1e-6)
        assert_close(d, c, rtol=0, atol=0)


def test_backward_into_leaves_accumulates() -> None:
    batch = make()
    expected = run(batch, "torch")
    value = total(batch)
    value.backward(retain_graph=True)
    value.backward()
    for name, leaf in leaves(batch).items():
        assert leaf.grad is not None
        assert_close(leaf.grad, 2 * expected[f"grad {name}"], rtol=2e-5, atol=1e-9)


def test_a_leaf_takes_the_gradient_without_a_copy() -> None:
    batch = make()
    value = total(batch)
    gradients = value.grad_fn.written.gradients  # type: ignore[union-attr]
    written = {gradient.data_ptr() for gradient in gradients}
    del gradients
    value.backward()
    taken = {leaf.grad.data_ptr() for leaf in leaves(batch).values() if leaf.grad is not None}
    assert taken == written


def test_a_loss_that_is_let_go_takes_its_gradients_along() -> None:
    batch = make()

    def watched(value: Tensor) -> list[weakref.ref[Tensor]]:
        return [weakref.ref(gradient) for gradient in value.grad_fn.written.gradients]  # type: ignore[union-attr]

    gc.disable()
    try:
        value = total(batch)
        gradients = watched(value)
        assert all(gradient() is not None for gradient in gradients)
        del value
        # At once, not when the garbage collector comes by.
        assert all(gradient() is None for gradient in gradients)
        value = total(batch)
        gradients = watched(value)
        value.backward()
        for leaf in leaves(batch).values():
            leaf.grad = None
        assert all(gradient() is None for gradient in gradients)
    finally:
        gc.enable()


def test_the_same_tensor_twice() -> None:
    batch = make()
    batch["mel_pred"] = (batch["mel_pred"][0],) * 2
    both = torch.autograd.grad(total(batch), batch["mel_pred"][0])[0]
    single = dict(batch, mel_pred=batch["mel_pred"][0])
    expected = 2 * torch.autograd.grad(total(single), batch["mel_pred"][0])[0]
    assert_close(both, expected, rtol=1e-6, atol=1e-8)


def test_a_second_backward_without_the_graph_raises() -> None:
    value = total(make())
    value.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        value.backward()


def test_double_backward_raises() -> None:
    batch = make()
    inputs = list(leaves(batch).values())
    grads = torch.autograd.grad(total(batch), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        sum(grad.square().sum() for grad in grads).backward()
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(grads[0].square().sum(), inputs[1], allow_unused=True)


def test_inputs_changed_in_place_before_a_recomputation_raise() -> None:
    batch = make(torch.bfloat16)
    value = total(batch)
    with torch.no_grad():
        batch["stop_logits"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward(torch.tensor(2.0))


def test_the_total_may_be_changed_in_place() -> None:
    batch = make()
    loss = make_loss(backend="cpp")
    out = loss(**batch)
    value = out.total
    mel = out.mel.clone()
    value *= 2
    value += 1
    value.backward()
    assert_close(out.mel, mel, rtol=0, atol=0)
    expected = run(batch, "torch")
    for name, leaf in leaves(batch).items():
        assert leaf.grad is not None
        assert_close(leaf.grad, 2 * expected[f"grad {name}"], rtol=2e-5, atol=1e-9)


def test_value_only_passes_write_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: Tensor) -> Tensor:
        raise AssertionError("a gradient was allocated")

    batch = make()
    expected = run(batch, "cpp")
    monkeypatch.setattr(torch, "empty_like", refuse)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            value = total(batch)
        assert_close(value, expected["total"], rtol=0, atol=0)
        assert not value.requires_grad
    detached = cast(batch, torch.float32)
    for leaf in leaves(detached).values():
        leaf.requires_grad_(False)
    assert not total(detached).requires_grad


def test_only_wanted_gradients_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make()
    for name, leaf in leaves(batch).items():
        leaf.requires_grad_(name in ("mel_pred.1", "prior.0"))
    made = []
    usual = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda tensor: made.append(tensor) or usual(tensor))
    total(batch).backward()
    assert len(made) == 2
    assert batch["mel_pred"][1].grad is not None
    assert batch["mel_pred"][0].grad is None


def test_inputs_are_not_changed() -> None:
    batch = make()
    before = cast(batch, torch.float32)
    total(batch).backward()
    for name, leaf in leaves(batch).items():
        assert torch.equal(leaf, leaves(before)[name])


def test_autocast_and_grad_scaler() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 80)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss = make_loss(backend="cpp", kl_weight=0, stop_weight=0, attention_weight=0)
    x, target, lengths = torch.randn(3, 11, 8), torch.randn(3, 11, 80), torch.tensor([11, 5, 0])
    seen = []
    for hint in (None, 1024.0, 3.0):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prediction = layer(x)
            assert prediction.dtype == torch.bfloat16
            value = loss(prediction, target, lengths, grad_scale=hint).total
        assert value.dtype == torch.float32
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        assert layer.weight.grad is not None
        seen.append(layer.weight.grad.clone())
        scaler.update()
    assert_close(seen[1], seen[0], rtol=0, atol=0)
    assert_close(seen[2], seen[0], rtol=0, atol=0)


def test_gradcheck() -> None:
    batch = make_batch([5, 2, 0], [3, 2, 1], frames=8, bins=3, latents=2, per_frame=True, prior=True, heads=2)
    inputs = leaves(batch)
    loss = make_loss(backend="cpp", kl_free_bits=0.7)

    def value(*tensors: Tensor) -> Tensor:
        call = dict(batch)
        for (name, _), tensor in zip(inputs.items(), tensors, strict=True):
            key, index = name.rsplit(".", 1)
            pair = isinstance(call[key], tuple)
            parts = [*call[key]] if pair else [call[key]]
            parts[int(index)] = tensor
            call[key] = tuple(parts) if pair else parts[0]
        return loss(**call).total

    assert torch.autograd.gradcheck(value, list(inputs.values()), eps=1e-6, atol=1e-7)


def test_auto_picks_it_on_the_cpu() -> None:
    missing = dict.fromkeys(("step_lengths", "truncated", "mel_mean", "mel_std", "prior"))
    assert backends.choose("auto", make_loss().spec, check_inputs(**{**missing, **make()})).name == "cpp"


def test_other_tensors_are_declined() -> None:
    class Tagged(Tensor):
        pass

    batch = make()
    batch["mel_target"] = batch["mel_target"].detach().as_subclass(Tagged)
    with pytest.raises(RuntimeError, match="plain tensors, not Tagged"):
        total(batch)
    assert make_loss(backend="auto")(**batch).total.isfinite()


def test_without_the_extension_asking_for_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "core", None)
    monkeypatch.setattr(native, "why_missing", "the C++ extension was not built: install a compiler")
    with pytest.raises(RuntimeError, match="'cpp' is not available: the C\\+\\+ extension was not built"):
        make_loss(backend="cpp")
    assert make_loss(backend="auto")(**make()).total.isfinite()
