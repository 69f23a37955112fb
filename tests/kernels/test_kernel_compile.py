"""The operator that compiled graphs call, and what happens around it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_cases import BACKEND, DEVICE, OPTIONS, Reference, leaves, make_inputs, make_spec, rebuilt
from torch import Tensor

from ttsfast.losses import compiled as graphs
from ttsfast.losses.module import TTSLoss
from ttsfast.terms.spec import LossInputs
from ttsfast.terms.state import FixedWeights

# Tracing does not need generated code; on a GPU the whole compiler runs.
COMPILER = "inductor" if DEVICE == "cuda" else "aot_eager"
SPEC = make_spec(kl_free_bits=1.0)


def small() -> LossInputs:
    return make_inputs(lengths=(5, 3), frames=6, bins=8, prior=True, heads=(2,))


def test_the_operator_keeps_its_promises() -> None:
    inputs = small()
    inputs = rebuilt(inputs, lambda t: t if t is inputs.target else t.detach().requires_grad_())
    wanted = [tensor is not inputs.target for tensor in inputs.values()]
    scalars = [
        torch.tensor(SPEC.base_weights, device=DEVICE),
        torch.zeros((), dtype=torch.int64, device=DEVICE),
        torch.tensor(2.0, device=DEVICE),
    ]
    vectors = [inputs.mel_lengths, inputs.step_lengths, inputs.text_lengths]
    layout = [1, 1, 1, 1, 1, 1, 0, 0, 0]
    call: tuple[Any, ...] = (inputs.values(), vectors, [], scalars, wanted, layout, *graphs.encoded(SPEC))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.ttsfast.triton_losses.default, call, test_utils=checks)


def test_the_spec_survives_the_operator() -> None:
    spec = make_spec(seed=7, mel_smoothing="noise", normalization="utterance", kl_normalization="vector")
    assert graphs.decoded(*map(tuple, graphs.encoded(spec))) == spec


@pytest.mark.filterwarnings("ignore")
def test_one_graph() -> None:
    options = {k: v for k, v in OPTIONS.items() if k not in ("base_weights", "mel_floor")}
    loss = TTSLoss(**options, weighting="dwa", backend="triton").to(DEVICE)
    plain = TTSLoss(**options, weighting="dwa", backend="torch").to(DEVICE)

    def total(module: Any, mel: Tensor, inputs: LossInputs) -> Tensor:
        return module(
            mel * 2,
            inputs.target,
            inputs.mel_lengths,
            stop_logits=inputs.stop_logits,
            posterior=inputs.posterior,
            prior=inputs.prior,
            attention=inputs.attention,
            text_lengths=inputs.text_lengths,
        ).total

    compiled = torch.compile(lambda mel, inputs: total(loss, mel, inputs), fullgraph=True, backend=COMPILER)
    for seed in range(2):
        inputs = make_inputs(lengths=(5, 3), frames=6, bins=8, prior=True, heads=(2,), seed=seed)
        mel = inputs.mel[0].requires_grad_()
        ours, truth = compiled(mel, inputs), total(plain, mel, inputs)
        torch.testing.assert_close(ours, truth, rtol=1e-5, atol=0)
        a, b = (torch.autograd.grad(each * 3, mel)[0] for each in (ours, truth))
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.adaptive.fast, plain.adaptive.fast, rtol=1e-5, atol=1e-6)


def compiled_mel_loss() -> Any:
    torch._dynamo.reset()
    others = {"kl_weight": 0.0, "stop_weight": 0.0, "attention_weight": 0.0}
    loss = TTSLoss(**others, weighting="fixed", backend="triton").to(DEVICE)  # type: ignore[arg-type]
    # What is asked is what the graph does, not what code becomes of it, which takes a GPU's compiler long.
    return torch.compile(loss, fullgraph=True, backend="aot_eager")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("grad_scale", [1e-40, 1e30, 0.0, float("nan")])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_hint_changes_no_result(grad_scale: float, as_tensor: bool) -> None:
    inputs, loss = small(), compiled_mel_loss()
    mel = inputs.mel[0].requires_grad_()
    hint = torch.tensor(grad_scale, device=DEVICE) if as_tensor else grad_scale
    totals = [loss(mel, inputs.target, inputs.mel_lengths, grad_scale=each).total for each in (None, hint)]
    wanted, found = (torch.autograd.grad(total * 3, mel)[0] for total in totals)
    assert wanted.any()
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("ignore")
def test_padding_is_zero_whatever_arrives() -> None:
    inputs, loss = small(), compiled_mel_loss()
    mel = inputs.mel[0].requires_grad_()
    total = loss(mel, inputs.target, inputs.mel_lengths).total
    (slope,) = torch.autograd.grad(total, mel, torch.tensor(float("nan"), device=DEVICE))
    assert not slope[1, 3:].any()
    assert slope[0, :5].isnan().all()


def test_the_operator_is_differentiable_once() -> None:
    inputs = small()
    mel = inputs.mel[0].requires_grad_()
    weights = torch.tensor(SPEC.base_weights, device=DEVICE)
    step = torch.zeros((), dtype=torch.int64, device=DEVICE)
    operator, given = torch.ops.ttsfast.triton_losses, inputs._replace(mel=(mel,))
    total = graphs.call(operator, SPEC, given, FixedWeights(weights, step), None, None).total
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(total, mel, create_graph=True)


def test_autocast_and_scaler() -> None:
    """As a training step has it: half precision from a layer, a scaled total, one unscaled gradient."""
    inputs = small()
    layer = torch.nn.Linear(8, 8, device=DEVICE)
    weights = torch.tensor(SPEC.base_weights, device=DEVICE)
    step = torch.zeros((), dtype=torch.int64, device=DEVICE)
    source = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    gradients = []
    for backend in (BACKEND, Reference(None)):
        with torch.autocast(DEVICE, torch.bfloat16):
            mel = layer(source)
            assert mel.dtype == torch.bfloat16
            given, state = inputs._replace(mel=(mel,)), FixedWeights(weights, step)
            total = backend.call(SPEC, given, state, None, None).total
        scale = 1024.0
        gradients.append([g / scale for g in torch.autograd.grad(total * scale, list(layer.parameters()))])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02 * b.abs().max().item())


def test_a_target_that_needs_a_gradient_is_declined() -> None:
    inputs = small()
    inputs = inputs._replace(target=inputs.target.requires_grad_())
    assert "mel_target" in (BACKEND.declines(SPEC, inputs) or "")
    with torch.no_grad():
        assert BACKEND.declines(SPEC, inputs) is None


def test_subclasses_are_declined() -> None:
    class Odd(Tensor):
        pass

    inputs = small()
    odd = inputs.mel[0].as_subclass(Odd)
    assert "Odd" in (BACKEND.declines(SPEC, inputs._replace(mel=(odd,))) or "")


def test_every_leaf_is_connected() -> None:
    inputs = small()
    inputs = rebuilt(inputs, lambda t: t if t is inputs.target else t.detach().requires_grad_())
    weights = torch.tensor(SPEC.base_weights, device=DEVICE)
    step = torch.zeros((), dtype=torch.int64, device=DEVICE)
    BACKEND.call(SPEC, inputs, FixedWeights(weights, step), None, None).total.backward()
    assert all(tensor.grad is not None for tensor in leaves(inputs))
