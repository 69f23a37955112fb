"""Lengths out of range in compiled graphs on a CPU: the same error as in eager, when the graph runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING
from loss_checks import assert_close, make_batch, make_loss
from torch import Tensor

from ttsfast import functional
from ttsfast.terms import length_op

NEEDS_CPP = pytest.mark.skipif(MISSING, reason=WHY_MISSING)
BACKENDS = ["torch", pytest.param("cpp", marks=NEEDS_CPP)]
BAD: list[tuple[dict[str, list[int]], str]] = [
    (
        {"mel_lengths": [9, 4, 99]},
        r"mel_lengths\[2\] is 99, outside 0\.\.\d+, the size of mel_target's axis T",
    ),
    ({"mel_lengths": [-1, 4, 0]}, r"mel_lengths\[0\] is -1"),
    ({"text_lengths": [3, 9999, 1]}, r"text_lengths\[1\] is 9999, outside 0\.\."),
    ({"step_lengths": [9, 4, -3]}, r"step_lengths\[2\] is -3"),
]


def message(call: Callable[[], Any]) -> str:
    with pytest.raises(ValueError) as raised:
        call()
    # Torch 2.6 adds what it was executing on lines of its own.
    return str(raised.value).splitlines()[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_module_raises_as_in_eager(backend: str) -> None:
    torch._dynamo.reset()
    batch = make_batch([9, 4, 0], [3, 2, 1], per_frame=True, heads=2)
    batch["step_lengths"] = batch["mel_lengths"].clone()
    loss = make_loss(backend=backend)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(compiled(**batch).values, loss(**batch).values, rtol=1e-6, atol=0)
    for change, pattern in BAD:
        wrong = batch | {name: torch.tensor(values) for name, values in change.items()}
        found = message(lambda wrong=wrong: compiled(**wrong))
        assert found == message(lambda wrong=wrong: loss(**wrong))
        with pytest.raises(ValueError, match=pattern):
            compiled(**wrong)
    # It goes on as if nothing had been.
    assert_close(compiled(**batch).values, loss(**batch).values, rtol=1e-6, atol=0)


def test_no_state_moves_before_the_check() -> None:
    torch._dynamo.reset()
    batch = make_batch([9, 4, 0], [3, 2, 1])
    loss = make_loss(backend="torch", weighting="dwa")
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    compiled(**batch)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    with pytest.raises(ValueError, match="mel_lengths"):
        compiled(**batch | {"mel_lengths": torch.tensor([99, 4, 0])})
    for name, value in loss.state_dict().items():
        assert torch.equal(value, before[name]), name


FUNCTIONALS: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...]]] = {
    "lengths": (functional.mel_huber_loss, (torch.ones(2, 5, 3), torch.zeros(2, 5, 3))),
    "kl": (functional.gaussian_kl_loss, (torch.ones(2, 5, 3), torch.zeros(2, 5, 3))),
    "stop": (functional.stop_bce_loss, (torch.ones(2, 5),)),
    "attention": (functional.guided_attention_loss, (torch.ones(2, 5, 4), torch.tensor([5, 2]))),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FUNCTIONALS)
def test_functionals_raise_as_in_eager(name: str, backend: str) -> None:
    call, tensors = FUNCTIONALS[name]
    fine, wrong = torch.tensor([4, 0]), torch.tensor([4, 6])
    for reduction in ("mean", "none") if backend == "torch" else ("mean",):
        torch._dynamo.reset()
        options = {"backend": backend, "reduction": reduction}

        def run(lengths: Tensor, options: dict[str, str] = options) -> Tensor:
            return call(*tensors, lengths, **options)

        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        assert_close(compiled(fine), run(fine), rtol=1e-6, atol=0)
        assert message(lambda compiled=compiled: compiled(wrong)) == message(lambda run=run: run(wrong))


def test_inductor_keeps_the_check() -> None:
    """It drops operators without effects whose results nobody uses."""
    torch._dynamo.reset()
    values = torch.ones(2, 5, 3)
    compiled = torch.compile(
        lambda lengths: functional.mel_huber_loss(values, values * 0, lengths, backend="torch"),
        fullgraph=True,
    )
    assert float(compiled(torch.tensor([5, 1]))) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"lengths\[1\] is 6, outside 0\.\.5, the size of target's axis T"):
        compiled(torch.tensor([5, 6]))


@pytest.mark.parametrize("lengths", [torch.tensor([0, 3]), torch.tensor(2).expand(4), torch.empty(0).long()])
def test_operator_rules(lengths: Tensor) -> None:
    torch.library.opcheck(torch.ops.ttsfast.checked_lengths.default, (lengths, 3, "lengths", "axis T"))
    assert length_op.checked(lengths, 3, "lengths", "axis T").tolist() == lengths.tolist()
