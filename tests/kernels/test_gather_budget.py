"""What the compiled gather takes, without a GPU: registers, whole-width accesses, rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from interpreter import INTERPRETED

if INTERPRETED:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import kernel_compile as compiled

from ttsfast.kernels import gather

REGISTERS = {"sm_80": 40, "sm_90": 40, "gfx942": 32}
"""Forty leave twelve programs of four warps on a multiprocessor, three quarters of what it can hold. AMD
gives registers out in eights: the 25 of Triton 3.7 and the 26 of 3.8 cost as much as 32."""


def compile_gather(bins: int, dtype: torch.dtype, tracks: tuple[str, ...] = ()) -> Any:
    """Through the launcher, with a stand-in that compiles where it would launch."""
    batch, frames, symbols = 2, 16, 8

    def whole(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int64)

    corpus = gather.Corpus(
        mel=torch.zeros(64, bins, dtype=torch.float16),
        mel_starts=whole(3),
        text=torch.zeros(64, dtype=torch.int32),
        text_starts=whole(3),
        speaker=whole(2),
        truncated=torch.zeros(2, dtype=torch.bool),
        silence=torch.zeros(bins),
        **{name: torch.zeros(64) for name in tracks},
    )
    out = gather.Gathered(
        mel=torch.zeros(batch, frames, bins, dtype=dtype),
        text=whole(batch, symbols),
        mel_lengths=whole(batch),
        text_lengths=whole(batch),
        speaker=whole(batch),
        truncated=torch.zeros(batch, dtype=torch.bool),
        frame_mask=torch.zeros(batch, frames, dtype=torch.bool),
        stop_targets=torch.zeros(batch, frames),
        **{name: torch.zeros(batch, frames) for name in tracks},
    )
    made = []

    class Warm:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *a, **k: made.append(kernel.warmup(*a, grid=grid, **k))

    kernel, gather.gather_batch = gather.gather_batch, Warm()
    try:
        gather.gather(corpus, whole(2), 0, out)
    finally:
        gather.gather_batch = kernel
    return made[0]


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
@pytest.mark.parametrize(
    ("bins", "dtype", "loads", "stores"),
    [
        # Two 16-byte loads of float16 and four of silence for sixteen values a thread; on AMD for eight.
        (80, torch.float32, 6, 4),
        (80, torch.bfloat16, 6, 2),
        # Not whole 16 bytes of float16 a frame: loads of eight, silence and float32 at full width.
        (100, torch.float32, 4, 4),
    ],
)
def test_budget(target: str, bins: int, dtype: torch.dtype, loads: int, stores: int) -> None:
    with compiled.compiling_for(compiled.TARGETS[target]):
        kernel = compile_gather(bins, dtype)
    used = compiled.usage(kernel)
    assert used.stack == 0
    assert used.atomics == ()
    assert not used.has_float64
    assert used.registers <= REGISTERS[target] + compiled.slack()
    if target.startswith("sm"):
        assert (used.wide_loads, used.wide_stores) == (loads, stores)
        assert ("cvt.rn.bf16" in kernel.asm["ptx"]) == (dtype == torch.bfloat16)
    else:
        assert used.wide_stores == stores // 2


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_tracks_cost_no_registers(target: str) -> None:
    with compiled.compiling_for(compiled.TARGETS[target]):
        kernel = compile_gather(80, torch.float32, ("pitch", "energy"))
    used = compiled.usage(kernel)
    assert used.stack == 0
    assert used.registers <= REGISTERS[target] + compiled.slack()
