"""What the backward kernel and its autograd glue do with gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_cases import BACKEND, DEVICE, check, leaves, make_inputs, make_spec, only, rebuilt
from torch import Tensor

from ttsfast.kernels import launch
from ttsfast.losses import reference
from ttsfast.terms.spec import LossInputs
from ttsfast.terms.state import FixedWeights

SPEC = make_spec()
WEIGHTS = torch.tensor(SPEC.base_weights, device=DEVICE)
STEP = torch.full((), 5, device=DEVICE)


def small(**options: Any) -> LossInputs:
    """One utterance that is shorter than another: each has a program for each term, and every program takes
    milliseconds. ``test_kernel_forward.py`` has more utterances and more blocks of them."""
    return make_inputs(lengths=(5, 2), frames=6, **options)


def run(inputs: LossInputs, grad_scale: Any = None) -> tuple[Tensor, list[Tensor]]:
    inputs = rebuilt(inputs, lambda t: t if t is inputs.target else t.detach().requires_grad_())
    return BACKEND.call(SPEC, inputs, FixedWeights(WEIGHTS, STEP), None, grad_scale).total, leaves(inputs)


def expected(inputs: LossInputs, incoming: float) -> list[Tensor]:
    inputs = rebuilt(inputs, lambda t: t if t is inputs.target else t.detach().requires_grad_())
    total = reference.run(SPEC, inputs, FixedWeights(WEIGHTS, STEP), None).total
    return list(torch.autograd.grad(total * incoming, leaves(inputs)))


def close(ours: Any, wanted: list[Tensor], rtol: float = 1e-5) -> None:
    for a, b in zip(ours, wanted, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * b.abs().max().item())


def test_agreeing_gradient_is_handed_out_as_it_is() -> None:
    inputs = small(heads=(2, 1))
    scale = torch.tensor(1024.0, device=DEVICE)
    total, tensors = run(inputs, scale)
    close(torch.autograd.grad(total * scale, tensors), expected(inputs, 1024.0))


@pytest.mark.parametrize("grad_scale", [None, 2.0, torch.tensor(8.0), 0.0, float("inf")])
def test_grad_scale_changes_no_result(grad_scale: Any) -> None:
    inputs = small()
    grad_scale = grad_scale.to(DEVICE) if isinstance(grad_scale, Tensor) else grad_scale
    total, tensors = run(inputs, grad_scale)
    wanted = reference.run(SPEC, inputs, FixedWeights(WEIGHTS, STEP), None).total
    torch.testing.assert_close(total.detach(), wanted, rtol=1e-6, atol=0)
    close(torch.autograd.grad(total, tensors), expected(inputs, 1.0))


def test_a_kept_graph_gives_the_same_gradients_twice_and_leaves_the_first_alone() -> None:
    inputs = small()
    total, tensors = run(inputs)
    first = torch.autograd.grad(total * 3.0, tensors, retain_graph=True)
    copies = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(total * 3.0, tensors, retain_graph=True)
    last = torch.autograd.grad(total * -0.5, tensors)
    for a, b, c in zip(first, copies, second, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    close(first, expected(inputs, 3.0))
    close(last, expected(inputs, -0.5))


def test_writing_to_a_gradient_does_not_change_the_next() -> None:
    inputs = small()
    total, tensors = run(inputs)
    for gradient in torch.autograd.grad(total, tensors, retain_graph=True):
        gradient.zero_()
    close(torch.autograd.grad(total, tensors), expected(inputs, 1.0))


def test_accumulation_into_leaves() -> None:
    inputs = small()
    total, tensors = run(inputs)
    total.backward(retain_graph=True)
    total.backward()
    close([tensor.grad for tensor in tensors], [2 * g for g in expected(inputs, 1.0)])


def test_a_second_backward_through_a_freed_graph_raises() -> None:
    total, tensors = run(small())
    total.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        torch.autograd.grad(total, tensors)


def test_double_backward_raises() -> None:
    inputs = small()
    total, tensors = run(inputs)
    gradients = torch.autograd.grad(total, tensors, create_graph=True)
    close([gradient.detach() for gradient in gradients], expected(inputs, 1.0))
    with pytest.raises(RuntimeError, match="differentiable once"):
        gradients[0].square().sum().backward()
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(gradients[0].square().sum(), tensors[1], allow_unused=True)


def test_inputs_are_not_modified() -> None:
    inputs = small(padding=7.0, heads=(2,))
    before = [tensor.clone() for tensor in inputs.values()]
    check(SPEC, inputs)
    assert all(torch.equal(a, b) for a, b in zip(before, inputs.values(), strict=True))


def test_half_gradients_without_a_scale_are_not_lost_to_subnormals() -> None:
    """A GradScaler that nobody announced: float16 cannot hold what it will multiply by 65536."""
    inputs = only(make_inputs(dtype=torch.float16, lengths=(200, 200), frames=200, bins=8))
    inputs = inputs._replace(mel=(inputs.mel[0] * 1e-4,), target=inputs.target * 1e-4)
    total, tensors = run(inputs)
    close(torch.autograd.grad(total * 65536.0, tensors), expected(inputs, 65536.0), rtol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "incoming"), [(torch.float32, 1 / 3), (torch.bfloat16, 3.0), (torch.float16, 1 / 3)]
)
def test_an_unexpected_gradient_is_rounded_once(dtype: torch.dtype, incoming: float) -> None:
    """The very bits of a gradient that was expected, whether the graph is kept or not."""
    inputs = small(dtype=dtype, heads=(2,), prior=True, predictions=2)
    scale = torch.tensor(incoming, device=DEVICE)
    gradients = []
    for hint, kept in ((scale, False), (None, False), (None, True), (2.0, False)):
        total, tensors = run(inputs, hint)
        gradients.append(torch.autograd.grad(total, tensors, scale, retain_graph=kept))
    for other in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True))


def test_float16_gradients_are_right_to_one_rounding() -> None:
    inputs = small(dtype=torch.float16, padding=0.0)
    exact = expected(rebuilt(inputs, torch.Tensor.double), 3.0)
    total, tensors = run(inputs)
    ours = torch.autograd.grad(total * 3.0, tensors)
    for a, b in zip(ours, exact, strict=True):
        # Half a unit in the last place, or of the subnormals; float32 arithmetic takes a little more.
        unit = torch.maximum(b.abs() * 2**-11, torch.full_like(b, 2.0**-25))
        assert ((a.double() - b).abs() <= 1.01 * unit + 1e-7 * b.abs().max()).all()


def test_every_launch_leaves_its_counter_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    word = torch.zeros((), dtype=torch.int32, device=DEVICE)
    monkeypatch.setattr(launch, "counter", lambda device, compiled: word)
    inputs = small()
    first, second = run(inputs)[0], run(inputs)[0]
    assert int(word) == 0
    assert torch.equal(first, second)


def test_an_input_changed_in_place_before_backward_raises() -> None:
    inputs = small()
    total, tensors = run(inputs)
    inputs.target.add_(1.0)
    with pytest.raises(RuntimeError, match="in-place"):
        torch.autograd.grad(total, tensors)


def test_an_input_whose_memory_was_exchanged_before_backward_raises() -> None:
    inputs = small()
    total, tensors = run(inputs)
    inputs.target.data = inputs.target.clone()
    with pytest.raises(RuntimeError, match="in-place"):
        torch.autograd.grad(total, tensors)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Any) -> None:
    inputs = small()
    wanted = reference.run(SPEC, inputs, FixedWeights(WEIGHTS, STEP), None)
    inputs = rebuilt(inputs, lambda t: t if t is inputs.target else t.detach().requires_grad_())
    with mode():
        result = BACKEND.call(SPEC, inputs, FixedWeights(WEIGHTS, STEP), None, None)
    assert not result.total.requires_grad
    torch.testing.assert_close(result.total, wanted.total, rtol=1e-6, atol=0)


def test_some_inputs_need_no_gradient() -> None:
    inputs = small(predictions=2, prior=True, heads=(1, 2))
    _, second = inputs.mel
    assert inputs.posterior is not None
    _, logvar = inputs.posterior
    wanted = [second, logvar, inputs.attention[1]]
    for tensor in wanted:
        tensor.requires_grad_()
    ours = torch.autograd.grad(
        BACKEND.call(SPEC, inputs, FixedWeights(WEIGHTS, STEP), None, None).total, wanted
    )
    truth = torch.autograd.grad(reference.run(SPEC, inputs, FixedWeights(WEIGHTS, STEP), None).total, wanted)
    close(ours, list(truth))


def test_gradcheck_through_the_kernel() -> None:
    inputs = make_inputs(
        lengths=(3,), frames=4, bins=2, latents=2, symbols=2, dtype=torch.float64, prior=True
    )
    inputs = rebuilt(inputs, torch.nan_to_num)
    tensors = [tensor.detach().requires_grad_() for tensor in leaves(inputs)]
    weights = WEIGHTS.double()

    def total(*values: Tensor) -> Tensor:
        names = iter(values)
        given = rebuilt(inputs, lambda t: t if t is inputs.target else next(names))
        return BACKEND.call(make_spec(mel_loss="mse"), given, FixedWeights(weights, STEP), None, None).total

    # One direction in place of every element: each evaluation runs the kernel.
    assert torch.autograd.gradcheck(total, tensors, fast_mode=True)
