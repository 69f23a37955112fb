"""Gradients: against finite differences, through every option, dtype and repeated backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_checks import assert_close, gradients, leaves, make_batch, make_loss
from torch import Tensor

CASES: list[dict[str, Any]] = [
    {},
    {"normalization": "utterance", "mel_loss": "mse", "kl_normalization": "vector"},
    {"mel_smoothing": "noise", "mel_label_smoothing": 0.3, "kl_free_bits": 0.7},
    {"mel_smoothing": "none", "stop_label_smoothing": 0.0, "stop_pos_weight": 1.0, "stop_tail_frames": 0},
]


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize(
    "shape",
    [{}, {"per_frame": True, "prior": True, "pair": True, "heads": 2}, {"reduction": 2, "prior": True}],
)
def test_gradcheck(options: dict[str, Any], shape: dict[str, Any]) -> None:
    batch = make_batch([5, 2, 0], [3, 2, 1], frames=8, bins=3, latents=2, **shape)
    loss = make_loss(**options).train()
    inputs = leaves(batch)

    def total(*tensors: Tensor) -> Tensor:
        loss.noise_step.zero_()
        call = dict(batch)
        for (name, _), tensor in zip(inputs.items(), tensors, strict=True):
            key, index = name.rsplit(".", 1)
            if isinstance(call[key], tuple):
                call[key] = tuple(tensor if i == int(index) else part for i, part in enumerate(call[key]))
            else:
                call[key] = tensor
        return loss(**call).total

    assert torch.autograd.gradcheck(total, list(inputs.values()), eps=1e-6, atol=1e-7)


def test_each_term_sends_gradient_to_its_own_inputs() -> None:
    batch = make_batch([6, 4], [3, 2], prior=True)
    owners = {
        "mel": ["mel_pred"],
        "kl": ["posterior", "prior"],
        "stop": ["stop_logits"],
        "attention": ["attention"],
    }
    everything = gradients(make_loss(), batch)
    for term, names in owners.items():
        weights = {f"{other}_weight": 0.0 for other in owners if other != term}
        loss = make_loss(**weights)
        out = loss(**batch)
        assert all(value is not None and value > 0 for value in (out.mel, out.kl, out.stop, out.attention))
        for name, grad in gradients(loss, batch).items():
            if name.split(".")[0] in names:
                assert_close(grad, everything[name])
            else:
                assert not grad.any(), f"{name} receives gradient from {term}"


def test_a_term_of_weight_zero_cannot_spoil_the_total() -> None:
    batch = make_batch([6, 4], [3, 2])
    with torch.no_grad():
        batch["attention"][0, 0, 0] = torch.nan
    out = make_loss(attention_weight=0.0)(**batch)
    assert out.attention.isnan()
    assert out.total.isfinite()


@pytest.mark.parametrize("grad_scale", [None, 3.0, torch.tensor(65536.0), torch.tensor(0.0)])
def test_grad_scale_is_a_hint(grad_scale: Tensor | float | None) -> None:
    batch = make_batch([6, 4], [3, 2])
    expected = gradients(make_loss(), batch)
    loss = make_loss()
    out = loss(**batch, grad_scale=grad_scale)
    assert_close(out.total.detach(), make_loss()(**batch).total.detach(), rtol=0, atol=0)
    (out.total * 65536.0 / 2).backward()
    for name, leaf in leaves(batch).items():
        assert_close(leaf.grad, expected[name] * 32768)


def test_grad_scaler_and_squared_total() -> None:
    batch = make_batch([6, 4], [3, 2], dtype=torch.float32)
    expected = gradients(make_loss(), batch)
    total = make_loss()(**batch).total
    total.square().backward(retain_graph=True)
    for name, leaf in leaves(batch).items():
        assert_close(leaf.grad, expected[name] * 2 * total.detach(), rtol=1e-5)


def test_retained_graph_gives_the_same_gradient_twice() -> None:
    batch = make_batch([6, 4], [3, 2])
    out = make_loss(weighting="dwa")(**batch)
    inputs = list(leaves(batch).values())
    first = torch.autograd.grad(out.total, inputs, retain_graph=True)
    second = torch.autograd.grad(out.total, inputs)
    for one, two in zip(first, second, strict=True):
        assert_close(one, two, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    low = make_batch([6, 4], [3, 2], dtype=dtype)
    exact = {}
    for name, value in low.items():
        if isinstance(value, tuple):
            exact[name] = tuple(part.detach().double().requires_grad_() for part in value)
        elif value.is_floating_point():
            exact[name] = value.detach().double().requires_grad_(value.requires_grad)
        else:
            exact[name] = value
    assert_close(make_loss()(**low).values, make_loss()(**exact).values, rtol=2e-6)
    expected = gradients(make_loss(), exact)
    half_unit = torch.finfo(dtype).eps / 2
    for name, grad in gradients(make_loss(), low).items():
        assert grad.dtype == dtype
        assert_close(grad, expected[name], rtol=half_unit + 5e-6, atol=1e-6)


def test_mixed_dtypes_and_autocast() -> None:
    batch = make_batch([6, 4], [3, 2], dtype=torch.float32)
    expected = make_loss()(**batch).values
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(make_loss()(**batch).values, expected, rtol=0, atol=0)
    batch["mel_pred"] = batch["mel_pred"].detach().bfloat16().requires_grad_()
    out = make_loss()(**batch)
    out.total.backward()
    assert out.total.dtype == torch.float32
    assert batch["mel_pred"].grad.dtype == torch.bfloat16
    assert batch["stop_logits"].grad.dtype == torch.float32


def test_no_grad_and_inference_mode() -> None:
    batch = make_batch([6, 4], [3, 2])
    loss = make_loss(weighting="dwa").eval()
    expected = loss(**batch).values
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out = loss(**batch)
        assert not out.total.requires_grad
        assert_close(out.values.clone(), expected, rtol=0, atol=0)


def test_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    for options in ({"weighting": "dwa"}, {"mel_smoothing": "noise", "normalization": "utterance"}):
        batch = make_batch([6, 4], [3, 2])
        eager, compiled = make_loss(**options), make_loss(**options)
        run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
        for _ in range(2):
            assert_close(run(**batch).values, eager(**batch).values)
        assert_close(compiled.adaptive.factors, eager.adaptive.factors.clone(), rtol=1e-5)
        grad, expected = (torch.autograd.grad(f(**batch).total, batch["mel_pred"])[0] for f in (run, eager))
        assert_close(grad, expected)
