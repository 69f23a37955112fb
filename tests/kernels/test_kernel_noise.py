"""The random words of the kernel, to the last bit."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from kernel_cases import DEVICE

from ttsfast.kernels.noise import four_words
from ttsfast.losses.philox import philox4x32


@triton.jit
def words_kernel(out, steps, utterance, seed):
    quad = tl.arange(0, 16)[None, :]
    frame = tl.arange(0, 8)[:, None]
    words = four_words(quad, frame, tl.zeros([], tl.int64) + utterance, seed, tl.load(steps))
    at = frame * 16 + quad
    for k in tl.static_range(4):
        tl.store(out + k * 128 + at, words[k].to(tl.int64))


@pytest.mark.parametrize("seed", [0, 0x12345678, 0xFFFFFFFF])
@pytest.mark.parametrize("step", [0, 2**32 - 1, 2**40 + 7])
@pytest.mark.parametrize("utterance", [0, 70000])
def test_words(seed: int, step: int, utterance: int) -> None:
    out = torch.full((4, 8, 16), -1, dtype=torch.int64, device=DEVICE)
    signed = seed - (1 << 32) if seed >= 1 << 31 else seed
    words_kernel[(1,)](out, torch.full((), step, device=DEVICE), utterance, signed)
    quad = torch.arange(16).view(1, -1)
    frame = torch.arange(8).view(-1, 1)
    fixed = torch.zeros((), dtype=torch.int64)
    key = (fixed + seed, fixed + (step & 0xFFFFFFFF))
    for ours, wanted in zip(out.cpu(), philox4x32((quad, frame, fixed + utterance, fixed), key), strict=True):
        assert torch.equal(ours, wanted.expand_as(ours))
