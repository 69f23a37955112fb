"""Whole calls in the extension: it takes only what the checks in Python take, with the same results."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING, assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_checks import leaves, make_batch, make_loss
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.dlpack import from_dlpack, to_dlpack

from ttsfast import native
from ttsfast.losses import backend as backends
from ttsfast.losses import module
from ttsfast.losses.cpp import CppBackend
from ttsfast.losses.module import TTSLoss
from ttsfast.terms.counts import Counts

pytestmark = pytest.mark.skipif(MISSING, reason=WHY_MISSING)

Batch = dict[str, Any]


class Tagged(Tensor):
    pass


def parts_of(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def lazily_negative(tensor: Tensor) -> Tensor:
    return torch.complex(tensor.detach().float(), tensor.detach().float()).conj().imag


def wrapped(tensor: Tensor) -> Tensor:
    kept: list[Tensor] = []
    torch.func.grad(lambda x: (kept.append(x), x.float().sum())[1])(tensor.detach().float())
    try:
        to_dlpack(kept[0])
    except RuntimeError:
        return kept[0]
    # As torch 2.6 has it; there the fused loss gives the gradient that plain torch loses.
    raise RuntimeError("what outlives a transform of torch.func is exported as a plain tensor")


def fake(tensor: Tensor) -> Tensor:
    return FakeTensorMode().from_tensor(tensor.detach())


def inference(tensor: Tensor) -> Tensor:
    with torch.inference_mode():
        return tensor.detach().clone()


def without_memory(tensor: Tensor) -> Tensor:
    taken = tensor.detach().clone()
    taken.untyped_storage().resize_(0)
    return taken


def with_first(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.detach().clone()
        changed.reshape(-1)[:1] = value
        return changed

    return change


def to(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.detach().to(dtype)


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    **{str(dtype): to(dtype) for dtype in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn,
        torch.bool, torch.uint8, torch.uint16, torch.int8, torch.int32, torch.int64,
    )},
    "shorter": lambda tensor: tensor.detach()[:-1],
    "narrower": lambda tensor: tensor.detach()[..., :-1],
    "wider": lambda tensor: torch.cat([tensor.detach(), tensor.detach()[..., :1]], -1),
    "one axis more": lambda tensor: tensor.detach().unsqueeze(1),
    "two axes more": lambda tensor: tensor.detach()[None, None],
    "one axis less": lambda tensor: tensor.detach()[0],
    "nothing": lambda tensor: tensor.detach()[:, :0] if tensor.dim() > 1 else tensor.detach()[:0],
    "transposed": lambda tensor: tensor.detach().transpose(-1, -2).contiguous().transpose(-1, -2)
    if tensor.dim() > 1 else tensor.detach(),
    "reversed in memory": lambda tensor: torch.stack([tensor.detach(), tensor.detach()], -1)[..., 0],
    "expanded": lambda tensor: tensor.detach()[:1].expand(tensor.shape),
    "negative": with_first(-1),
    "large": with_first(99),
    "NaN": with_first(float("nan")),
    "parameter": lambda tensor: torch.nn.Parameter(tensor.detach(), requires_grad=False),
    "subclass": lambda tensor: tensor.detach().as_subclass(Tagged),
    "sparse": lambda tensor: tensor.detach().to_sparse(),
    "meta": lambda tensor: tensor.detach().to("meta"),
    "fake": fake,
    "lazily negative": lazily_negative,
    "zero": lambda tensor: torch._efficientzerotensor(tensor.shape),
    "wrapped": wrapped,
    "inference": inference,
    "no memory": without_memory,
    "a list": lambda tensor: tensor.tolist(),
    "an array": lambda tensor: tensor.detach().float().numpy(),
    "a packed tensor": lambda tensor: (tensor.data_ptr(), 0, tuple(tensor.shape), tensor.stride()),
    "None": lambda tensor: None,
    "a tuple of it": lambda tensor: (tensor,),
    "a list of three": lambda tensor: [tensor] * 3,
    "an empty tuple": lambda tensor: (),
}  # fmt: skip


WHOLE: dict[str, Callable[[Any], Any]] = {
    "absent": lambda value: None,
    "as a list": lambda value: parts_of(value),
    "one more": lambda value: (*parts_of(value), parts_of(value)[0]),
    "one less": lambda value: tuple(parts_of(value)[:-1]),
    "a number": lambda value: 3.0,
    "a text": lambda value: "text",
}
"""Of an argument, where :data:`CHANGES` are of one tensor in it."""


def call_of(seed: int) -> Batch:
    batch = make_batch(
        [7, 3], [4, 2], bins=5, per_frame=seed % 2 == 0, prior=seed % 3 == 0, pair=seed % 5 == 0,
        heads=2 if seed % 7 == 0 else None, dtype=torch.float32, seed=seed,
    )  # fmt: skip
    if seed % 2:
        batch["step_lengths"] = batch["mel_lengths"].clone()
    if seed % 3 == 1:
        batch["truncated"] = torch.tensor([False, True])
    return batch


def outcome(loss: TTSLoss, batch: Batch, call: dict[str, Any]) -> Any:
    """Everything that can be seen of a call: results, gradients and state, or the error."""
    try:
        out = loss(**batch, **call)
        inputs = leaves(batch)
        grads = torch.autograd.grad(out.total, list(inputs.values()), allow_unused=True)
    except Exception as error:
        return type(error), str(error), {n: b.clone() for n, b in loss.named_buffers()}
    found = {f"grad {n}": g for n, g in zip(inputs, grads, strict=True) if g is not None}
    found |= {n: getattr(out, n) for n in ("total", "values", "floor_values", "weight_values", "frames")}
    return {n: t.detach().clone() for n, t in {**found, **dict(loss.named_buffers())}.items()} | {
        "present": torch.tensor(out.present),
        "grads": torch.tensor([g is None for g in grads]),
    }


def assert_alike(batch: Batch, options: dict[str, Any], call: dict[str, Any]) -> None:
    """The same with and without the call being offered to the extension as a whole."""
    direct = outcome(make_loss(**options), batch, call)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CppBackend, "accepts_unchecked", lambda *_: False)
        checked = outcome(make_loss(**options), batch, call)
    assert type(direct) is type(checked), (direct, checked)
    if isinstance(direct, dict):
        assert_same_bits(direct, checked)
        assert {n: t.dtype for n, t in direct.items()} == {n: t.dtype for n, t in checked.items()}
    else:
        assert direct[:2] == checked[:2]
        for name, buffer in checked[2].items():
            torch.testing.assert_close(direct[2][name], buffer, rtol=0, atol=0, equal_nan=True)


OPTIONS: list[dict[str, Any]] = [
    {"weighting": "dwa"},
    {"kl_weight": 0.0, "stop_weight": 0.0, "attention_weight": 0.0, "mel_mean": [0.5] * 5},
    {"mel_smoothing": "noise", "kl_normalization": "vector", "normalization": "utterance"},
]

# torch itself crashes where another change sends a tensor without memory to the reference.
COMBINED = sorted({*CHANGES, *WHOLE} - {"no memory"})
hostile = st.tuples(st.integers(0, 20), st.integers(0, 3), st.sampled_from(COMBINED))


@pytest.mark.filterwarnings("ignore")
@given(
    st.integers(0, 30),
    st.lists(hostile, max_size=2),
    st.sampled_from(OPTIONS),
    st.sampled_from(["auto", "cpp"]),
    st.sampled_from(
        [None, 2.0, torch.tensor(4.0), Counts(9, 9.0, torch.tensor(8), 2), (1.0,), "text", [1.0]]
    ),
)
@settings(max_examples=250, deadline=None)
def test_any_call_ends_as_the_checks_in_python_have_it(
    seed: int, changes: list[tuple[int, int, str]], options: dict[str, Any], backend: str, normalizer: Any
) -> None:
    batch = call_of(seed)
    for which, part, change in changes:
        name = sorted(batch)[which % len(batch)]
        parts = parts_of(batch[name])
        if change in WHOLE and parts:
            batch[name] = WHOLE[change](batch[name])
            continue
        index = part % max(len(parts), 1)
        if not parts or type(parts[index]) is not Tensor:
            continue
        try:
            parts[index] = CHANGES[change](parts[index])
        except (RuntimeError, IndexError, ValueError):
            continue
        batch[name] = tuple(parts) if isinstance(batch[name], tuple) else parts[0]
    assert_alike(batch, {**options, "backend": backend}, {"normalizer": normalizer, "grad_scale": None})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted({**call_of(0), **call_of(1), **call_of(4)}))
@pytest.mark.parametrize("change", sorted({*CHANGES, *WHOLE}))
def test_one_hostile_argument(name: str, change: str) -> None:
    batch = next(call for call in map(call_of, (0, 1, 4)) if name in call)
    parts = parts_of(batch[name])
    if change in WHOLE:
        batch[name] = WHOLE[change](batch[name])
    else:
        try:
            parts[-1] = CHANGES[change](parts[-1])
        except (RuntimeError, IndexError) as error:
            pytest.skip(f"torch makes no such tensor: {error}")
        batch[name] = tuple(parts) if isinstance(batch[name], tuple) else parts[0]
    for options in OPTIONS[:2]:
        assert_alike(batch, {**options, "backend": "auto"}, {})


@pytest.mark.parametrize(
    "change",
    [
        {"attention": (), "text_lengths": None},
        {"attention": None, "text_lengths": None},
        {"stop_logits": None, "attention": None, "text_lengths": None, "step_lengths": torch.tensor([99, 3])},
        {"stop_logits": None, "attention": None, "text_lengths": None, "step_lengths": torch.tensor([7, -3])},
        {"posterior": None, "prior": call_of(0)["prior"]},
        {"mel_pred": torch.zeros(2, 15, 0), "mel_target": torch.zeros(2, 15, 0)},
        {"mel_pred": (), "mel_target": None},
        {"attention": [call_of(0)["attention"], call_of(7)["attention"]]},
        {"attention": [call_of(0)["attention"], call_of(0)["attention"][..., :3]]},
        {"step_lengths": call_of(0)["mel_lengths"], "stop_logits": call_of(0)["stop_logits"][:, :9]},
    ],
    ids=lambda change: "+".join(change),
)
def test_arguments_that_do_not_belong_together(change: Batch) -> None:
    for seed in (0, 1):
        for options in OPTIONS[:2]:
            assert_alike({**call_of(seed), **change}, options, {})


@pytest.fixture
def _through_capsules() -> Iterator[None]:
    """As before torch 2.10, which has no table to read tensors through."""
    kinds = [Tensor, torch.nn.Parameter]
    native.with_torch().use_tensors(kinds, None, to_dlpack, from_dlpack)
    yield
    native.with_torch.cache_clear()
    native.with_torch()


@pytest.mark.usefixtures("_through_capsules")
@pytest.mark.filterwarnings("ignore")
def test_tensors_read_through_capsules_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    core = native.with_torch()
    seen = taken(monkeypatch)
    for seed in range(30):
        for options in OPTIONS[:: 1 if seed % 3 else 2]:
            batch, loss = call_of(seed), make_loss(**options)
            found = outcome(loss, batch, {})
            native.with_torch.cache_clear()
            assert native.with_torch() is core
            expected = outcome(make_loss(**options), batch, {})
            core.use_tensors([Tensor, torch.nn.Parameter], None, to_dlpack, from_dlpack)
            assert isinstance(found, dict)
            assert_same_bits(found, expected)
    assert all(seen)
    for change in CHANGES:
        batch = call_of(1)
        try:
            batch["mel_pred"] = CHANGES[change](batch["mel_pred"])
        except (RuntimeError, IndexError):
            continue
        assert_alike(batch, {}, {})


def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call to come was served in one call of the extension."""
    seen: list[bool] = []
    usual, checked = backends.BACKENDS["cpp"].call, module.check_inputs

    def watched(*arguments: Any) -> Any:
        seen.append(True)
        return usual(*arguments)

    def after_all(*arguments: Any, **named: Any) -> Any:
        seen[-1:] = [False]
        return checked(*arguments, **named)

    monkeypatch.setattr(backends.BACKENDS["cpp"], "call", watched)
    monkeypatch.setattr(module, "check_inputs", after_all)
    return seen


def test_usual_calls_are_served_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = taken(monkeypatch)
    for seed in range(30):
        make_loss()(**call_of(seed)).total.backward()
        make_loss(mel_mean=[0.1] * 5, mel_std=[1.0] * 5, mel_smoothing="noise")(**call_of(seed))
    with torch.no_grad():
        make_loss().eval()(**call_of(0), normalizer=3.0, grad_scale=torch.tensor(2.0))
    mel = {name: call_of(0)[name] for name in ("mel_pred", "mel_target", "mel_lengths")}
    make_loss(kl_weight=0, stop_weight=0, attention_weight=0)(**mel)
    make_loss()(**{**call_of(0), "attention": [call_of(0)["attention"]] * 2})
    assert len(seen) == 63
    assert all(seen)


def test_a_call_that_is_let_go_lets_go_of_its_tensors() -> None:
    batch = call_of(1)
    watched = [weakref.ref(leaf) for leaf in leaves(batch).values()]
    out = make_loss()(**batch)
    del batch
    assert all(one() is not None for one in watched)
    del out
    assert all(one() is None for one in watched)


@pytest.mark.parametrize("by_parts", [False, True])
def test_a_total_kept_after_backward_keeps_nothing_that_the_model_made(
    by_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_parts:
        monkeypatch.setattr(CppBackend, "accepts_unchecked", lambda *_: False)
    weight = torch.randn(80, 80, requires_grad=True)
    made = torch.randn(2, 30, 80) @ weight
    out = TTSLoss(kl_weight=0.0, stop_weight=0.0, attention_weight=0.0, backend="cpp")(
        made, torch.randn(2, 30, 80), torch.tensor([30, 20])
    )
    watched = weakref.ref(made)
    del made
    assert watched() is not None
    out.total.backward()
    assert watched() is None
    with pytest.raises(RuntimeError, match="second time"):
        out.total.backward()


def test_an_interruption_while_reading_is_not_swallowed() -> None:
    class Interrupting(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal interrupted
            if function is Tensor.is_neg and not interrupted:
                interrupted = True
                raise KeyboardInterrupt
            return function(*args, **(kwargs or {}))

    batch = call_of(0)
    loss, interrupted = make_loss(), False
    with pytest.raises(KeyboardInterrupt), Interrupting():
        loss(**batch)
