"""The functionals on a fused backend: C++ here, Triton's interpreter in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING
from functional_cases import (
    BACKEND,
    INTERPRETED,
    TERMS,
    Case,
    arriving_at,
    assert_accurate,
    evaluate,
    make_case,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_checks import assert_close
from torch import Tensor

from ttsfast.functional import gaussian_kl_loss, guided_attention_loss, mel_huber_loss, stop_bce_loss
from ttsfast.losses import elements

pytestmark = pytest.mark.skipif(MISSING and not INTERPRETED, reason=WHY_MISSING)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)[: 3 if INTERPRETED else 4]
REDUCTIONS = ("none", "sum", "mean")
# Interpreted, each program takes milliseconds; tests/kernels has the kernel of the sums on more than this.
SHAPE = ((9, 4, 0), 12, 8) if INTERPRETED else ((70, 31, 0), 80, 40)
both = pytest.mark.parametrize("variant", [0, 1])
terms = pytest.mark.parametrize("term", TERMS)
reductions = pytest.mark.parametrize("reduction", REDUCTIONS[:1] if INTERPRETED else REDUCTIONS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@reductions
@terms
@both
def test_accuracy(term: str, reduction: str, dtype: torch.dtype, variant: int) -> None:
    assert_accurate(make_case(term, *SHAPE, variant=variant), dtype, reduction)


@pytest.mark.skipif(not INTERPRETED, reason="the test above has them")
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@terms
def test_accuracy_of_sums(term: str, reduction: str) -> None:
    assert_accurate(make_case(term, *SHAPE, variant=1), torch.float32, reduction)


@pytest.mark.parametrize(
    ("lengths", "frames", "width"),
    [
        ((1,), 1, 1),
        ((0, 0), 5, 3),
        ((), 4, 3),
        ((0,), 0, 3),
        ((17, 11), 17, 63),
        *([] if INTERPRETED else [((16, 3, 16), 16, 80), ((65, 3), 65, 100)]),
        ((3, 5), 6, 300),
    ],
    ids=str,
)
@pytest.mark.parametrize("reduction", ["none"] if INTERPRETED else ["none", "mean"])
@terms
def test_shapes(term: str, reduction: str, lengths: tuple[int, ...], frames: int, width: int) -> None:
    assert_accurate(make_case(term, lengths, frames, width, variant=1), torch.float32, reduction)


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def _sliced(tensor: Tensor) -> Tensor:
    """Inside a larger tensor, so misaligned and with gaps; NaN around it."""
    room = torch.full([size + 3 for size in tensor.shape], float("nan"), dtype=tensor.dtype)
    inside = room[tuple(slice(1, 1 + size) for size in tensor.shape)]
    return inside.copy_(tensor)


def _stepped(tensor: Tensor) -> Tensor:
    room = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"), dtype=tensor.dtype)
    room[..., ::2] = tensor
    return room[..., ::2]


@pytest.mark.parametrize("change", [_transposed, _sliced, _stepped])
@pytest.mark.parametrize(
    "dtype", [torch.float32] if INTERPRETED else [torch.float32, torch.bfloat16], ids=str
)
@pytest.mark.parametrize("reduction", ["none"] if INTERPRETED else ["none", "sum"])
@terms
def test_strides(term: str, reduction: str, dtype: torch.dtype, change: Callable[[Tensor], Tensor]) -> None:
    assert_accurate(make_case(term, (7, 13), 13, 20, variant=1), dtype, reduction, change)


@terms
def test_expanded(term: str) -> None:
    def one_for_all(tensor: Tensor) -> Tensor:
        return tensor[:1].expand_as(tensor)

    case = make_case(term, (6, 6), 6, 5, poison=0.0)
    case = case._replace(inputs=tuple(one_for_all(tensor) for tensor in case.inputs))
    assert_accurate(case, torch.float32, "none", one_for_all)


@terms
@both
def test_what_arrives_in_padding_is_not_used(term: str, variant: int) -> None:
    case = make_case(term, (9, 4, 0), 12, 8, variant=variant)
    inputs = case.leaves(torch.float32)
    clean = arriving_at(case.run(inputs, "torch", "none"))
    padding = case.padding()
    assert padding.any()
    dirty = clean.masked_fill(padding, float("nan"))
    expected, result = (evaluate(case, inputs, BACKEND, "none", arriving) for arriving in (clean, dirty))
    assert not result.values[padding].any()
    for gradient, wanted in zip(result.gradients, expected.gradients, strict=True):
        assert_close(gradient, wanted, rtol=0, atol=0)
        assert not gradient[padding].any()


@terms
def test_what_arrives_may_have_any_strides(term: str) -> None:
    case = make_case(term, (9, 4, 5), 12, 8, variant=1)
    inputs = case.leaves(torch.float32)
    shape = case.run(inputs, "torch", "none").shape
    dense = torch.randn((*shape, 2), generator=torch.Generator().manual_seed(1))
    for arriving in (dense[..., 0], torch.full((), 3.0).expand(shape)):
        assert not arriving.is_contiguous()
        expected, result = (
            evaluate(case, inputs, BACKEND, "none", given) for given in (arriving.contiguous(), arriving)
        )
        for a, b in zip(result.gradients, expected.gradients, strict=True):
            assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    "poison", [float("inf"), 1e30] if INTERPRETED else [float("inf"), float("-inf"), 1e30]
)
@reductions
@terms
def test_padding_may_hold_anything(term: str, reduction: str, poison: float) -> None:
    assert_accurate(make_case(term, (9, 4, 0), 14, 8, poison=poison, variant=1), torch.float32, reduction)


@terms
def test_nan_in_is_nan_out(term: str) -> None:
    case = make_case(term, (5, 2), 12, 4)
    inputs = case.leaves(torch.float32)
    with torch.no_grad():
        inputs[0].view(-1)[0] = float("nan")
    outcome = evaluate(case, inputs, BACKEND, "none")
    assert outcome.values.view(-1)[0].isnan()
    assert outcome.values.isnan().sum() == 1
    if term != "attention":
        # The attention term is linear: its gradient does not look at the weights.
        assert outcome.gradients[0].view(-1)[0].isnan()


@pytest.mark.parametrize("scale", [1e-6, 10.0, 1e4])
@pytest.mark.parametrize("term", ["mel", "stop"])
@both
def test_extreme_values(term: str, scale: float, variant: int) -> None:
    assert_accurate(make_case(term, (9, 4, 0), 13, 8, scale=scale, variant=variant), torch.float32, "none")


def test_infinite_logits_that_are_right_cost_nothing() -> None:
    logits = torch.tensor([[float("-inf"), float("-inf"), float("inf"), float("inf")]], requires_grad=True)
    values = stop_bce_loss(logits, torch.tensor([3]), reduction="none", backend=BACKEND)
    assert values.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert gradient.tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_a_prior_of_infinite_precision_at_equal_means() -> None:
    mu, logvar = torch.ones(1, 3, 4), torch.full((1, 3, 4), -200.0)
    inputs = [part.clone().requires_grad_() for part in (mu, logvar, mu, logvar)]
    nats = gaussian_kl_loss(
        inputs[0], inputs[1], prior=(inputs[2], inputs[3]), reduction="none", backend=BACKEND
    )
    assert not nats.any()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(nats.sum(), inputs))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@terms
def test_lengths_of_any_type_and_stride(term: str, dtype: torch.dtype) -> None:
    case = make_case(term, (9, 4, 0), 12, 8, variant=1)
    if "kl" in term or term == "prior":
        pytest.skip("the case holds its lengths itself")
    expected = evaluate(case, case.leaves(torch.float32), BACKEND, "none")

    def scattered(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.is_floating_point():
            return value
        room = torch.full((2 * len(value),), 77).to(value.dtype)
        room[::2] = value
        return room[::2] if value.dtype == torch.bool else room.to(dtype)[::2]

    other = case._replace(options={name: scattered(value) for name, value in case.options.items()})
    result = evaluate(other, case.leaves(torch.float32), BACKEND, "none")
    assert_close(result.values, expected.values, rtol=0, atol=0)
    assert_close(result.gradients[0], expected.gradients[0], rtol=0, atol=0)


def test_lengths_nobody_looked_at_are_clamped() -> None:
    """As they are in compiled graphs and on GPUs."""
    draw = torch.Generator().manual_seed(0)
    wild, within = torch.tensor([99, -5, 2]), torch.tensor([5, 0, 2])
    x, y = (torch.rand(3, 5, 4, generator=draw) for _ in range(2))
    calls: list[tuple[str, list[Tensor], Callable[[Tensor], list[Tensor]], tuple[float, ...]]] = [
        ("mel", [x, y], lambda n: [n], (1.0, 1.0)),
        ("kl", [x, y], lambda n: [n], (0.0,)),
        ("stop", [x[..., 0]], lambda n: [n], (0.0, 1.0, 1.0, 0.0, 2.0)),
        ("attention", [x.unsqueeze(1)], lambda n: [n, n.clamp(max=4) if n is within else n], (0.2,)),
    ]
    for term, reals, vectors, numbers in calls:
        expected, result = (
            elements.run(BACKEND, term, reals, vectors(lengths), numbers) for lengths in (within, wild)
        )
        assert_close(result, expected, rtol=0, atol=0)


@terms
def test_without_lengths(term: str) -> None:
    if term in ("stop", "attention"):
        pytest.skip("lengths are required")
    case = make_case(term, (7, 7), 7, 5)
    whole = case._replace(options={**case.options, "lengths": None}) if term == "mel" else case
    expected = evaluate(case, case.leaves(torch.float32), "torch", "none").values
    assert_close(whole.run(whole.leaves(torch.float32), BACKEND, "none").detach(), expected, rtol=1e-6)


@reductions
@terms
@both
def test_the_same_bits_again(term: str, reduction: str, variant: int) -> None:
    case = make_case(term, *SHAPE, variant=variant)
    inputs = case.leaves(torch.float32)
    first, second = (evaluate(case, inputs, BACKEND, reduction) for _ in range(2))
    for a, b in zip((first.values, *first.gradients), (second.values, *second.gradients), strict=True):
        assert torch.equal(a, b)


@reductions
@terms
def test_a_kept_graph_gives_the_same_gradients(term: str, reduction: str) -> None:
    case = make_case(term, (9, 4, 0), 12, 8, variant=1)
    inputs = case.leaves(torch.float32)
    wanted = inputs[: case.differentiable]
    values = case.run(inputs, BACKEND, reduction)
    arriving = arriving_at(values).float()
    first = torch.autograd.grad(values, wanted, arriving, retain_graph=True)
    copies = [gradient.clone() for gradient in first]
    for gradient in first:
        gradient.mul_(7)
    for a, b in zip(torch.autograd.grad(values, wanted, arriving), copies, strict=True):
        assert_close(a, b, rtol=0, atol=0)


@reductions
@terms
def test_double_backward_raises(term: str, reduction: str) -> None:
    case = make_case(term, (9, 4), 12, 8)
    inputs = case.leaves(torch.float32)
    values = case.run(inputs, BACKEND, reduction)
    wanted = inputs[: case.differentiable]
    gradients = torch.autograd.grad(values.square().sum(), wanted, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        sum(gradient.square().sum() for gradient in gradients).backward()  # type: ignore[union-attr]


@reductions
@terms
def test_without_gradients(term: str, reduction: str) -> None:
    case = make_case(term, (9, 4, 0), 12, 8)
    inputs = case.leaves(torch.float32)
    expected = case.run(inputs, BACKEND, reduction).detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            values = case.run(inputs, BACKEND, reduction)
        assert not values.requires_grad
        assert_close(values.clone(), expected, rtol=0, atol=0)


def test_only_wanted_gradients_are_made() -> None:
    case = make_case("prior", (9, 4), 9, 8)
    every = evaluate(case, case.leaves(torch.float32), BACKEND, "none").gradients
    inputs = case.leaves(torch.float32)
    for i in (0, 3):
        inputs[i].requires_grad_(False)
    values = case.run(inputs, BACKEND, "none")
    values.backward(arriving_at(values).float())
    assert inputs[0].grad is None
    assert inputs[3].grad is None
    for i in (1, 2):
        gradient = inputs[i].grad
        assert gradient is not None
        assert_close(gradient, every[i], rtol=0, atol=0)


@terms
@both
def test_gradcheck(term: str, variant: int) -> None:
    case = make_case(term, (3, 1, 0), 5, 2, variant=variant, poison=0.5)
    inputs = case.leaves(torch.float64)
    assert torch.autograd.gradcheck(
        lambda *given: case.run((*given, *inputs[case.differentiable :]), BACKEND, "none"),
        inputs[: case.differentiable],
        fast_mode=INTERPRETED,
    )


@terms
@both
def test_operator_rules(term: str, variant: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(term, (5, 3), 6, 4, variant=variant)
    calls: list[Any] = []
    usual = torch.ops.ttsfast.loss_elements
    monkeypatch.setattr(elements, "run", lambda *call: calls.append(call) or usual(*map(_plain, call)))
    case.run(case.leaves(torch.float32), BACKEND, "none")
    (call,) = calls
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    if not INTERPRETED:
        checks += ("test_aot_dispatch_dynamic",)
    torch.library.opcheck(usual.default, tuple(map(_plain, call)), test_utils=checks)


def _plain(argument: Any) -> Any:
    if isinstance(argument, str):
        return argument
    return [part if isinstance(part, Tensor) else float(part) for part in argument]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("term", "reduction"),
    [("prior", "none")]
    if INTERPRETED
    else [("mel", "none"), ("prior", "none"), ("stop", "none"), ("attention", "none"), ("kl", "mean")],
)
def test_one_compiled_graph(term: str, reduction: str) -> None:
    torch._dynamo.reset()
    case = make_case(term, (7, 3), 9, 4, variant=1)
    inputs = case.leaves(torch.float32)
    compiled = torch.compile(
        lambda *given: case.run(given, BACKEND, reduction), fullgraph=True, backend="aot_eager"
    )
    expected, values = case.run(inputs, BACKEND, reduction), compiled(*inputs)
    assert_close(values.detach(), expected.detach(), rtol=1e-6)
    arriving = arriving_at(values).float()
    wanted = inputs[: case.differentiable]
    pairs = (torch.autograd.grad(each, wanted, arriving) for each in (values, expected))
    for a, b in zip(*pairs, strict=True):
        assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_autocast_changes_nothing() -> None:
    case = make_case("mel", (9, 4), 9, 8)
    inputs = case.leaves(torch.bfloat16)
    expected = evaluate(case, inputs, BACKEND, "none")
    with torch.autocast("cpu", torch.bfloat16):
        result = evaluate(case, inputs, BACKEND, "none")
    assert result.values.dtype == torch.float32
    assert_close(result.values, expected.values, rtol=0, atol=0)
    assert_close(result.gradients[0], expected.gradients[0], rtol=0, atol=0)


def test_a_fused_backend_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from ttsfast.losses import reference

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the reference ran")

    for name in ("mel_elements", "kl_vectors", "stop_elements", "attention_elements"):
        monkeypatch.setattr(reference, name, refuse)
    for term in TERMS:
        case = make_case(term, (5, 3), 8, 4)
        for reduction in REDUCTIONS:
            case.run(case.leaves(torch.float32), BACKEND, reduction)
            if not INTERPRETED:
                case.run(case.leaves(torch.float32), "auto", reduction)


class Tagged(Tensor):
    pass


@reductions
@terms
def test_a_name_never_falls_back(term: str, reduction: str) -> None:
    case = make_case(term, (5, 3), 8, 4)
    inputs = tuple(tensor.detach().as_subclass(Tagged) for tensor in case.leaves(torch.float32))
    with pytest.raises(RuntimeError, match=f"'{BACKEND}' cannot serve this call: it reads plain tensors"):
        case.run(inputs, BACKEND, reduction)
    assert case.run(inputs, "auto", reduction).isfinite().all()


def test_backend_names() -> None:
    x, n = torch.zeros(1, 3), torch.tensor([2])
    with pytest.raises(ValueError, match="backend must be one of auto, torch, cpp, triton, got 'cuda'"):
        stop_bce_loss(x, n, backend="cuda")
    if not INTERPRETED and not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="'triton' is not available"):
            stop_bce_loss(x, n, backend="triton")


def test_targets_with_gradients() -> None:
    x, y = (torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in (0, 1))
    for reduction in REDUCTIONS:
        if INTERPRETED:
            with pytest.raises(RuntimeError, match="no gradient to mel_target"):
                mel_huber_loss(x, y, backend=BACKEND, reduction=reduction)
            continue
        ours, theirs = (
            mel_huber_loss(x, y, label_smoothing=0.25, backend=name, reduction=reduction)
            for name in (BACKEND, "torch")
        )
        arriving = arriving_at(ours).float()
        for a, b in zip(*(torch.autograd.grad(v, (x, y), arriving) for v in (ours, theirs)), strict=True):
            assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_the_operator_checks_its_tensors() -> None:
    x, n = torch.zeros(2, 3, 4), torch.tensor([3, 3])
    for reals, vectors in (([x, x[:, :2]], [n]), ([x], [n]), ([x, x], [n[:1]]), ([x, x], [n, x[0, 0, :3]])):
        with pytest.raises(ValueError, match="loss_elements"):
            elements.run(BACKEND, "mel", reals, vectors, (1.0, 1.0))


@pytest.mark.skipif(INTERPRETED, reason="threads and instruction sets are the C++ backend's")
@terms
def test_every_instruction_set_and_thread_count(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ttsfast import native

    assert native.core is not None
    case = make_case(term, (300, 111, 0), 400, 80, variant=1)
    inputs = case.leaves(torch.float32)
    threads = torch.get_num_threads()
    try:
        for isa in (isa for isa in (1, 2, 3) if native.core.loss_supports(isa)):
            monkeypatch.setattr(elements, "BEST_ISA", isa)
            assert_accurate(case, torch.float32, "none")
            results = []
            for count in (1, 3):
                torch.set_num_threads(count)
                results.append(evaluate(case, inputs, BACKEND, "none"))
            for a, b in zip(results[0].gradients, results[1].gradients, strict=True):
                assert torch.equal(a, b)
            assert torch.equal(results[0].values, results[1].values)
    finally:
        torch.set_num_threads(threads)


@settings(max_examples=4 if INTERPRETED else 60, deadline=None)
@given(
    term=st.sampled_from(TERMS),
    lengths=st.lists(st.integers(0, 5 if INTERPRETED else 24), min_size=1, max_size=4),
    extra=st.integers(0, 9),
    width=st.integers(1, 70),
    variant=st.integers(0, 1),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(DTYPES),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_any_call(
    term: str,
    lengths: list[int],
    extra: int,
    width: int,
    variant: int,
    seed: int,
    dtype: torch.dtype,
    reduction: str,
) -> None:
    case = make_case(term, tuple(lengths), max(lengths) + extra, width, variant=variant, seed=seed)
    assert_accurate(case, dtype, reduction)


def test_guided_attention_layouts_agree() -> None:
    weights = torch.rand(2, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    steps, symbols = torch.tensor([5, 2]), torch.tensor([4, 3])
    with_heads = guided_attention_loss(weights, steps, symbols, reduction="none", backend=BACKEND)
    without = guided_attention_loss(weights[:, 0], steps, symbols, reduction="none", backend=BACKEND)
    assert_close(with_heads[:, 0], without, rtol=0, atol=0)


def test_every_case_is_of_its_kind() -> None:
    """The cases hold what the tests above say they hold."""
    for term in TERMS:
        case = make_case(term, (5, 2, 0), 12, 4, variant=1)
        assert isinstance(case, Case)
        values = case.run(case.leaves(torch.float64), "torch", "none")
        assert not values[case.padding()].any()
        assert values[~case.padding()].any()
