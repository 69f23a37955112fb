"""The C++ backend inside compiled graphs, and its operator held to torch's own rules for operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING
from loss_checks import assert_close, leaves, make_batch, make_loss
from torch import Tensor

from ttsfast.losses import compiled as graphs
from ttsfast.losses.checks import check_inputs
from ttsfast.losses.module import Counts

pytestmark = pytest.mark.skipif(MISSING, reason=WHY_MISSING)

CASES: list[dict[str, Any]] = [
    {"weighting": "dwa"},
    {"mel_smoothing": "noise", "normalization": "utterance", "kl_free_bits": 0.5},
    {"mel_mean": [0.5] * 5, "attention_weight": 0.0},
]


def make(dtype: torch.dtype = torch.float32, **shape: Any) -> dict[str, Any]:
    return make_batch([9, 4, 0], [3, 2, 1], dtype=dtype, **shape)


@pytest.mark.parametrize("options", CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("shape", [{}, {"per_frame": True, "prior": True, "pair": True, "heads": 2}])
def test_full_graph(options: dict[str, Any], shape: dict[str, Any]) -> None:
    torch._dynamo.reset()
    batch = make(**shape)
    eager, compiled = (make_loss(backend="cpp", **options) for _ in range(2))
    call = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    inputs = list(leaves(batch).values())
    for arriving in (1.0, 3.0):
        expected, out = eager(**batch), call(**batch)
        assert_close(out.total, expected.total, rtol=0, atol=0)
        assert_close(out.values, expected.values, rtol=0, atol=0)
        assert not out.values.requires_grad
        grads, wanted = (
            torch.autograd.grad(value.total * arriving, inputs, allow_unused=True)
            for value in (out, expected)
        )
        for grad, want in zip(grads, wanted, strict=True):
            assert (grad is None or not grad.any()) if want is None else want is not None
            if want is not None:
                assert_close(grad, want, rtol=1e-6, atol=1e-12)


def test_the_operator_is_what_runs() -> None:
    torch._dynamo.reset()
    graphs = []

    def look(graph: torch.fx.GraphModule, example: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph

    torch.compile(make_loss(backend="cpp"), fullgraph=True, backend=look)(**make())
    assert sum("cpp_losses" in str(node.target) for graph in graphs for node in graph.graph.nodes) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    batch = make(dtype)
    inputs = list(leaves(batch).values())
    call = torch.compile(make_loss(backend="cpp"), fullgraph=True, backend="aot_eager")
    grads = torch.autograd.grad(call(**batch).total * 4096.0, inputs)
    expected = torch.autograd.grad(make_loss(backend="cpp")(**batch).total * 4096.0, inputs)
    for grad, want in zip(grads, expected, strict=True):
        assert grad.dtype == dtype
        assert_close(grad, want, rtol=0, atol=0)


@pytest.mark.parametrize("normalizer", [None, 50.0, Counts(50, 60.0, torch.tensor(50), 4)])
def test_operator_rules(normalizer: Any) -> None:
    batch = make(per_frame=True, prior=True, heads=2)
    loss = make_loss(backend="cpp", mel_mean=[0.1] * 5)
    calls = []
    usual = torch.ops.ttsfast.cpp_losses

    class Recorder:
        def __call__(self, *arguments: Any) -> Any:
            calls.append(arguments)
            return usual(*arguments)

    inputs = check_inputs(
        **{
            **dict.fromkeys(("step_lengths", "truncated", "mel_std", "prior")),
            "mel_mean": loss.mel_mean,
            **batch,
        }
    )
    graphs.call(Recorder(), loss.spec, inputs, loss._step_state(), normalizer, 2.0)
    torch.library.opcheck(usual.default, calls[0])


def test_lengths_that_nobody_checked_touch_no_foreign_memory() -> None:
    batch = make(per_frame=True, heads=2)
    loss = make_loss(backend="cpp")
    none = dict.fromkeys(("step_lengths", "truncated", "mel_mean", "mel_std", "prior"))
    inputs = check_inputs(**{**none, **batch})
    frames, symbols = batch["mel_target"].shape[1], batch["attention"].shape[-1]

    def values(mel: list[int], text: list[int]) -> Tensor:
        lengths = torch.tensor(mel)
        given = inputs._replace(mel_lengths=lengths, step_lengths=lengths, text_lengths=torch.tensor(text))
        operator = torch.ops.ttsfast.cpp_losses
        return graphs.call(operator, loss.spec, given, loss._step_state(), None, None).values

    beyond, within = values([9999, 4, -7], [9999, -1, 1]), values([frames, 4, 0], [symbols, 0, 1])
    assert_close(beyond, within, rtol=0, atol=0)


def test_spec_survives_the_operator() -> None:
    for options in CASES:
        spec = make_loss(**{key: value for key, value in options.items() if key != "weighting"}).spec
        assert graphs.decoded(*map(tuple, graphs.encoded(spec))) == spec
