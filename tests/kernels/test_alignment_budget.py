"""What the compiled alignment kernels take, without a GPU: registers, no stack, no doubles, no atomics."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from interpreter import INTERPRETED

if INTERPRETED:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import kernel_compile as compiled

from ttsfast.kernels import forward_sum, search

REGISTERS = {"search": 50, "sum": 80}
"""Of four symbols a thread: a program waits for its own steps, so what counts is that nothing is spilled and
that several programs find room."""


class Warm:
    """Compiles where a launcher would launch."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.made: list[Any] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *a, **k: self.made.append(self.kernel.warmup(*a, grid=grid, **k))


def compile_alignment(
    monkeypatch: pytest.MonkeyPatch, which: str, symbols: int, dtype: torch.dtype, dense: bool
) -> Any:
    """Through the launcher."""
    frames, batch = 32, 2
    scores = torch.zeros(batch, frames, symbols, dtype=dtype)
    if not dense:
        scores = torch.zeros(batch, symbols, frames, dtype=dtype).transpose(1, 2)
    lengths = torch.full((batch,), frames)
    if which == "search":
        warm = Warm(search.search_paths)
        monkeypatch.setattr(search, "search_paths", warm)
        search.search(scores, lengths, lengths)
    else:
        warm = Warm(forward_sum.forward_sum_of)
        monkeypatch.setattr(forward_sum, "forward_sum_of", warm)
        forward_sum.forward_sum(scores, lengths, lengths, -1.0, torch.ones(batch), which == "sum")
    return warm.made[0]


@pytest.mark.parametrize(
    ("which", "target", "symbols", "dtype", "dense"),
    [
        ("search", "sm_90", 100, torch.float32, True),
        ("search", "gfx942", 1000, torch.float16, False),
        ("sum", "sm_80", 1000, torch.float32, True),
        ("sum", "sm_90", 300, torch.bfloat16, False),
        ("sum", "gfx942", 100, torch.float32, True),
    ],
)
def test_budget(
    which: str,
    target: str,
    symbols: int,
    dtype: torch.dtype,
    dense: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with compiled.compiling_for(compiled.TARGETS[target]):
        used = compiled.usage(compile_alignment(monkeypatch, which, symbols, dtype, dense))
    assert used.stack == 0
    assert used.atomics == ()
    assert not used.has_float64
    assert used.registers <= REGISTERS[which] + compiled.slack()
