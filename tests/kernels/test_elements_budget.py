"""What the compiled element-wise kernels take, without a GPU: no stack, doubles or atomics, wide offsets."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from kernel_files import INTERPRETED

if INTERPRETED:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import kernel_compile as compiled
from torch import Tensor

from ttsfast.kernels import elements, elements_launch
from ttsfast.losses.elements import ElementCall

REGISTERS = {"sm_90": 64, "gfx942": 64}
"""Sixty-four leave eight programs of four warps on a multiprocessor, half of what it can hold."""
LENGTHS = torch.zeros(2, dtype=torch.int64)


def real(*shape: int) -> Tensor:
    return torch.zeros(shape)


CALLS: dict[str, tuple[list[Tensor], list[Tensor], tuple[float, ...]]] = {
    "mel": ([real(2, 16, 80)] * 2, [LENGTHS, real(80)], (0.9, 0.6)),
    "kl": ([real(2, 16, 64)] * 4, [LENGTHS], (0.5,)),
    "stop": ([real(2, 16)], [LENGTHS, torch.zeros(2, dtype=torch.bool)], (0.0, 1.0, 4.0, 0.0, 8.0)),
    "attention": ([real(2, 2, 16, 8)], [LENGTHS, LENGTHS], (0.2,)),
}


class Warm:
    """Compiles where the launcher would launch."""

    def __init__(self, kernel: Any, made: list[Any]) -> None:
        self.kernel, self.made = kernel, made

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *a, **k: self.made.append(self.kernel.warmup(*a, grid=grid, **k))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    kernels: list[Any] = []
    for term in CALLS:
        name = f"{term}_elements"
        monkeypatch.setattr(elements, name, Warm(getattr(elements, name), kernels))
    return kernels


@pytest.mark.parametrize("target", list(REGISTERS))
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("term", list(CALLS))
def test_budget(term: str, backward: bool, target: str, made: list[Any]) -> None:
    reals, vectors, numbers = CALLS[term]
    shape = reals[0].shape[:-1] if term == "kl" else reals[0].shape
    outputs = [torch.empty_like(tensor) for tensor in reals] if backward else [real(*shape)]
    arrived = real(*shape) if backward else None
    with compiled.compiling_for(compiled.TARGETS[target]):
        elements_launch.run(ElementCall(term, reals, vectors, numbers, arrived, outputs))
    (kernel,) = made
    used = compiled.usage(kernel)
    assert used.stack == 0
    assert used.atomics == ()
    assert not used.has_float64
    assert used.registers <= REGISTERS[target] + compiled.slack()
    for line in re.findall(
        r"tt\.addptr %(?:x|y|out|logits|incoming|factor|values)\S*, .*", kernel.asm["ttir"]
    ):
        # To an utterance 64 bits wide.
        assert ", i64" in line or "xi64>" in line, line
