"""``TTSLoss`` on a fused backend inside what surrounds it in training: scaler, accumulation, modes.

C++ here; ``test_functional_interpreter.py`` runs the same on the Triton kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING
from functional_cases import BACKEND
from interpreter import INTERPRETED
from loss_checks import assert_close
from torch import Tensor, nn
from wired_loss import FRAMES, LENGTHS, Model, call, data, make

from ttsfast import TTSLoss
from ttsfast.terms.counts import sum_counts

pytestmark = pytest.mark.skipif(MISSING and not INTERPRETED, reason=WHY_MISSING)
STEPS = 3 if INTERPRETED else 5


class Run:
    """A few optimizer steps under a scaler, or without one."""

    def __init__(self, backend: str, scaler: torch.amp.GradScaler | None, hint: bool = False) -> None:
        self.model, self.loss, self.scaler, self.hint = Model(), make(backend), scaler, hint
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)

    def step(self, step: int, fault: float = 1.0) -> Any:
        x, y = data(step)
        self.optimizer.zero_grad()
        scaler = self.scaler
        scale = None if scaler is None or not self.hint else scaler.scale(torch.ones(()))
        out = call(self.loss, self.model, x * fault, y, grad_scale=scale)
        if scaler is None:
            out.total.backward()
            self.optimizer.step()
        else:
            scaler.scale(out.total).backward()
            scaler.step(self.optimizer)
            scaler.update()
        return out

    def weights(self) -> Tensor:
        return self.model.layer.weight.detach().clone()


@pytest.mark.parametrize("hint", [False, True])
def test_a_scaler_changes_nothing(hint: bool) -> None:
    # The scale doubles after every second step, so the gradient that arrives is another each time.
    scaled = Run(BACKEND, torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2), hint)
    plain = Run("torch", None)
    for step in range(STEPS):
        ours, theirs = scaled.step(step), plain.step(step)
        assert_close(ours.total.detach(), theirs.total.detach(), rtol=1e-5)
    assert scaled.scaler is not None
    assert scaled.scaler.get_scale() == 2.0 ** (12 + STEPS // 2)
    assert_close(scaled.weights(), plain.weights(), rtol=1e-4, atol=1e-6)
    assert (scaled.weights() - Model().layer.weight).abs().max() > 1e-2, "nothing was trained"


@pytest.mark.parametrize("hint", [False, True])
@pytest.mark.parametrize("fault", [float("inf"), float("nan")])
def test_an_overflow_skips_the_step(fault: float, hint: bool) -> None:
    run = Run(BACKEND, torch.amp.GradScaler("cpu", init_scale=2.0**12), hint)
    assert run.scaler is not None
    run.step(0)
    before, averages = run.weights(), run.loss.adaptive.fast.clone()
    out = run.step(1, fault)
    assert not out.total.isfinite(), "a loss that is not finite is never hidden"
    assert torch.equal(run.weights(), before)
    assert run.scaler.get_scale() == 2.0**11
    # The loss leaves its own averages alone, too, and counts the step.
    assert torch.equal(run.loss.adaptive.fast, averages)
    assert int(run.loss.adaptive.skipped) == 1
    run.step(2)
    assert run.weights().isfinite().all()
    assert not torch.equal(run.weights(), before)


@pytest.mark.parametrize("hint", [False, True])
def test_gradients_that_overflow_by_their_scale(hint: bool) -> None:
    run = Run(BACKEND, torch.amp.GradScaler("cpu", init_scale=2.0**127), hint)
    before = run.weights()
    # Of gradients beyond 2.
    assert run.step(0, fault=6.0).total.isfinite()
    assert run.scaler is not None
    assert torch.equal(run.weights(), before)
    assert run.scaler.get_scale() == 2.0**126


def gradients(model: nn.Module) -> list[Tensor]:
    result = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    return result


def test_accumulation_equals_the_whole_batch() -> None:
    model, loss = Model(), make(weighting="fixed", mel_label_smoothing=0.0)
    x, y = data()
    call(loss, model, x, y).total.backward()
    whole = gradients(model)
    halves = [slice(0, 1), slice(1, 4)]
    counts = sum_counts([loss.counts(LENGTHS[rows], steps=FRAMES) for rows in halves])
    for rows in halves:
        (call(loss, model, x, y, rows, normalizer=counts, grad_scale=8.0).total * 8).backward()
    for part, expected in zip(gradients(model), whole, strict=True):
        assert_close(part / 8, expected, rtol=1e-5, atol=1e-7)


def test_autocast() -> None:
    x, y = data()
    results = []
    for backend in (BACKEND, "torch"):
        model, loss = Model(), make(backend)
        with torch.autocast("cpu", torch.bfloat16):
            out = call(loss, model, x, y)
            assert model(x)["mel_pred"][0].dtype == torch.bfloat16
        assert out.total.dtype == torch.float32
        out.total.backward()
        results.append((out.total.detach(), gradients(model)))
    (ours, own), (theirs, wanted) = results
    assert_close(ours, theirs, rtol=1e-5)
    for a, b in zip(own, wanted, strict=True):
        # The gradients are bfloat16 between the loss and the layer.
        assert_close(a, b, rtol=0.02, atol=0.01 * float(b.abs().max()))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [True, False])
def test_without_gradients(mode: Any, training: bool) -> None:
    x, y = data()
    fused, plain = make(BACKEND).train(training), make("torch").train(training)
    model = Model()
    with mode():
        ours, theirs = (call(loss, model, x, y) for loss in (fused, plain))
        assert_close(ours.values, theirs.values, rtol=1e-5)
        assert_close(ours.total, theirs.total, rtol=1e-5)
    assert not ours.total.requires_grad
    assert int(fused.noise_step) == int(plain.noise_step) == int(training)
    # What such a call leaves behind serves a training step as ever.
    call(fused.train(), model, x, y).total.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model))


def test_a_kept_graph() -> None:
    model, loss = Model(), make()
    total = call(loss, model, *data()).total
    total.backward(retain_graph=True)
    first = gradients(model)
    total.backward()
    for a, b in zip(gradients(model), first, strict=True):
        assert_close(a, b, rtol=0, atol=0)


def test_double_backward_raises() -> None:
    model, loss = Model(), make()
    total = call(loss, model, *data()).total
    grads = torch.autograd.grad(total, list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        sum((gradient.square().sum() for gradient in grads), start=torch.zeros(())).backward()


@pytest.mark.skipif(INTERPRETED, reason="tests/kernels/test_kernel_compile.py has it")
@pytest.mark.filterwarnings("ignore")
def test_one_compiled_graph_of_model_and_loss() -> None:
    torch._dynamo.reset()
    x, y = data()
    results = []
    for compiled in (True, False):
        model, loss = Model(), make()

        def step(x: Tensor, y: Tensor, model: nn.Module = model, loss: TTSLoss = loss) -> Tensor:
            return call(loss, model, x, y).total

        run = torch.compile(step, fullgraph=True, backend="aot_eager") if compiled else step
        for _ in range(2):
            run(x, y).backward()
        results.append((gradients(model), loss.adaptive.fast.clone(), int(loss.noise_step)))
    (ours, fast, steps), (theirs, expected, wanted) = results
    assert steps == wanted == 2
    assert_close(fast, expected, rtol=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-6)
