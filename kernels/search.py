"""Monotonic alignment search, one program for each utterance: a lane for each symbol, frame after frame.

Which lanes moved is kept as one bit for each cell, 32 frames to a word of each lane; the way back reads them.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttsfast.kernels import settings
from ttsfast.kernels.counts import clamped
from ttsfast.kernels.lanes import from_left

FRAMES = 32
"""Of a word."""

# They differ from batch to batch; see kernels/gather.py.
_VARYING = ["frames", "symbols", "batch_stride", "frame_stride", "symbol_stride"]


@triton.jit(do_not_specialize=_VARYING)
def search_paths(
    scores,
    text_lengths,
    mel_lengths,
    durations,
    words,
    batch_stride,
    frame_stride,
    symbol_stride,
    frames,
    symbols,
    DENSE: tl.constexpr,
    WIDTH: tl.constexpr,
    FRAMES: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write the durations; :func:`search` launches it.

    Args:
        scores: (B, T, N) of any floating type, with these strides in elements.
        text_lengths, mel_lengths: (B,) integers, clamped to their axes.
        durations: (B, N) int64, dense.
        words: (B, ceil(T / FRAMES), WIDTH) int32, scratch.
        DENSE: whether ``symbol_stride`` is 1.
        WIDTH: at least N, a power of two.
    """
    utterance = tl.program_id(0).to(tl.int64)
    wide = clamped(text_lengths, utterance, True, symbols).to(tl.int32)
    long = clamped(mel_lengths, utterance, True, frames).to(tl.int32)
    lane = tl.arange(0, WIDTH)
    out = durations + utterance * symbols
    tl.store(out + lane, tl.zeros([WIDTH], tl.int64), mask=lane < symbols)
    # The same memory is written again below, by whichever thread.
    tl.debug_barrier()
    if (wide > 0) & (long >= wide):
        at = scores + utterance * batch_stride
        at += lane if DENSE else lane.to(tl.int64) * symbol_stride
        inside = lane < wide
        best = tl.load(at, mask=lane == 0, other=float("-inf")).to(ACC)
        own = words + utterance * tl.cdiv(frames, FRAMES) * WIDTH
        word = tl.zeros([WIDTH], tl.int32)
        for t in range(1, long):
            at += frame_stride
            row = tl.load(at, mask=inside, other=float("-inf")).to(ACC)
            shifted = from_left(best, float("-inf"), WIDTH)
            # Where the symbol cannot have been reached earlier, nothing is compared.
            moved = (shifted > best) | (lane == t)
            best = tl.where(lane <= t, row + tl.where(moved, shifted, best), float("-inf"))
            word |= moved.to(tl.int32) << (t % FRAMES)
            if (t % FRAMES == FRAMES - 1) | (t == long - 1):
                tl.store(own + t // FRAMES * WIDTH + lane, word)
                word = tl.zeros([WIDTH], tl.int32)
        tl.debug_barrier()
        n = wide - 1
        end = long
        for back in range(1, long):
            t = long - back
            bits = tl.load(own + t // FRAMES * WIDTH + n)
            if (n == t) | (((bits >> (t % FRAMES)) & 1) != 0):
                tl.store(out + n, (end - t).to(tl.int64))
                end = t
                n -= 1
        tl.store(out, end.to(tl.int64))


def search(scores: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor:
    """Launch on the current stream: durations (B, N) int64 of scores (B, T, N)."""
    batch, frames, symbols = scores.shape
    durations = torch.empty(batch, symbols, dtype=torch.int64, device=scores.device)
    if durations.numel() == 0:
        return durations
    width = settings.lanes(symbols)
    words = torch.empty(batch, -(-frames // FRAMES), width, dtype=torch.int32, device=scores.device)
    with torch.cuda.device_of(scores):
        search_paths[(batch,)](
            scores,
            text_lengths.contiguous(),
            mel_lengths.contiguous(),
            durations,
            words,
            *scores.stride(),
            frames,
            symbols,
            DENSE=scores.stride(2) == 1,
            WIDTH=width,
            FRAMES=FRAMES,
            ACC=tl.float64 if scores.dtype == torch.float64 else tl.float32,
            **settings.options_of_lanes(width),
        )
    return durations
