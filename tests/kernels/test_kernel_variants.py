"""How many kernels a training run compiles, whose batches differ in every size: each costs a second or more.
Nothing is compiled here: what Triton would keep compiled kernels by is counted."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from interpreter import INTERPRETED

if INTERPRETED:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from kernel_compile import SPEC, TARGETS, launching_for

from ttsfast.kernels import launch
from ttsfast.losses.triton import TritonBackend
from ttsfast.terms.spec import LossInputs
from ttsfast.terms.state import FixedWeights


class _Kernel:
    """Stands in for a compiled one."""

    function = packed_metadata = None

    def launch_metadata(self, *arguments: Any) -> None:
        pass

    def run(self, *arguments: Any) -> None:
        pass


def batch(draw: random.Random, reduction: int, multiple: int, dtype: torch.dtype) -> LossInputs:
    """Of random sizes, frames and symbols padded to a ``multiple``; nothing is in its memory."""
    size = draw.randint(1, 64)
    frames, symbols = (multiple * draw.randint(1, most // multiple) for most in (800, 176))
    steps = -(-frames // reduction)

    def real(*shape: int, kind: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, device="meta")

    lengths = torch.empty(size, dtype=torch.int64, device="meta")
    return LossInputs(
        mel=(real(size, frames, 80).requires_grad_(),),
        target=real(size, frames, 80, kind=torch.float32),
        mel_lengths=lengths,
        step_lengths=lengths,
        text_lengths=lengths,
        truncated=None,
        stop_logits=real(size, steps).requires_grad_(),
        posterior=(real(size, 16).requires_grad_(), real(size, 16).requires_grad_()),
        prior=None,
        attention=(real(size, steps, symbols, kind=torch.float32).requires_grad_(),),
        mel_mean=None,
        mel_std=None,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("reduction", "multiple", "most"),
    [(1, 8, 16), (4, 8, 20), (1, 1, 30)],
    ids=["padded", "padded-r4", "of-any-size"],
)
def test_a_run_compiles_few_kernels(
    reduction: int, multiple: int, most: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()

    def compiled(self: Any, key: Any, *rest: Any) -> _Kernel:
        seen.add(key)
        return _Kernel()

    draw = random.Random(0)
    weights, step = (torch.empty(shape, device="meta") for shape in (4, ()))
    with launching_for(TARGETS["sm_90"]):
        monkeypatch.setattr(type(launch.fused_loss), "_do_compile", compiled)
        for _ in range(200):
            inputs = batch(draw, reduction, multiple, dtype)
            total = TritonBackend().call(SPEC, inputs, FixedWeights(weights, step), None, None).total
            total.backward()
    assert len(seen) <= most, len(seen)
