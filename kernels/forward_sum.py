"""The forward-sum loss and its gradient, one program for each utterance: a lane for each symbol, frame after
frame forwards and then backwards, in log space. Steps and names: docs/derivation.md.

The sums of a frame are kept relative to the largest of those that whole paths go through, and these add up
with what rounding leaves off: the precision is that of what matters at the frame, however long the utterance.
What the forward sums leave for the way back lies where the gradient will.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttsfast.kernels import settings
from ttsfast.kernels.arithmetic import exp
from ttsfast.kernels.counts import clamped
from ttsfast.kernels.lanes import from_left, from_right, log_add, two_sum

_VARYING = ["frames", "symbols", "batch_stride", "frame_stride", "symbol_stride"]
_ROWS = tl.constexpr(3)
"""Kept of each frame: its normaliser, and its offset in two parts."""


@triton.jit(do_not_specialize=_VARYING)
def forward_sum_of(
    log_probs,
    text_lengths,
    mel_lengths,
    scale,
    losses,
    gradient,
    kept,
    blank_log_prob,
    batch_stride,
    frame_stride,
    symbol_stride,
    frames,
    symbols,
    DENSE: tl.constexpr,
    WIDTH: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write losses and gradient; :func:`forward_sum` launches it.

    Args:
        log_probs: (B, T, N) of any floating type, with these strides in elements.
        text_lengths, mel_lengths: (B,) integers, clamped to their axes.
        scale: (B,) ACC, what both results are multiplied by.
        losses: (B,) ACC.
        gradient: (B, T, N) ACC, dense, or None.
        kept: (B, T, _ROWS) ACC, scratch.
        blank_log_prob: () ACC.
        DENSE: whether ``symbol_stride`` is 1.
        WIDTH: at least N, a power of two.
    """
    utterance = tl.program_id(0).to(tl.int64)
    wide = clamped(text_lengths, utterance, True, symbols).to(tl.int32)
    long = clamped(mel_lengths, utterance, True, frames).to(tl.int32)
    lane = tl.arange(0, WIDTH)
    alignable = (wide > 0) & (long >= wide)
    rows = tl.where(alignable, long, 0)
    factor = tl.load(scale + utterance)
    inside = lane < wide
    nowhere = tl.full([WIDTH], float("-inf"), ACC)
    at = log_probs + utterance * batch_stride
    at += lane if DENSE else lane.to(tl.int64) * symbol_stride
    own = kept + utterance * frames * _ROWS
    zero = tl.zeros([], ACC)
    blank = tl.load(blank_log_prob)
    if gradient is not None:
        slope = gradient + utterance * frames * symbols + lane

    label = nowhere
    passed = nowhere
    none = zero
    shift = zero
    offset = zero
    lost = zero
    for t in range(rows):
        row = tl.load(at, mask=inside, other=float("-inf")).to(ACC)
        top = tl.maximum(tl.max(row, 0), blank)
        norm = top + tl.log(tl.sum(exp(row - top), 0) + tl.exp(blank - top))
        offset, rest = two_sum(offset, shift)
        lost += rest
        tl.store(own, norm)
        tl.store(own + 1, offset)
        tl.store(own + 2, lost)
        waiting = blank - norm - shift
        label = row - norm - shift + log_add(label, from_left(passed, none, WIDTH))
        passed = log_add(label, passed + waiting)
        none += waiting
        # Of those that can still reach the end.
        least = wide - rows + t
        shift = tl.max(tl.where(lane >= least, passed, nowhere), 0)
        shift = _level(tl.where(least < 0, tl.maximum(shift, none), shift))
        if gradient is not None:
            tl.store(slope, label, mask=inside)
            slope += symbols
        at += frame_stride
        own += _ROWS
    reached = tl.sum(tl.where(lane == wide - 1, passed, 0.0), 0)
    total, rest = two_sum(offset, reached)
    lost += rest
    tl.store(losses + utterance, tl.where(alignable, -(total + lost) * factor, 0.0))

    if gradient is not None:
        # What one thread has written another may read.
        tl.debug_barrier()
        after = tl.where(lane == wide - 1, 0.0, nowhere)
        ended = after
        offset = zero
        left = zero
        shift = zero
        for back in range(rows):
            at -= frame_stride
            own -= _ROWS
            slope -= symbols
            row = tl.load(at, mask=inside, other=float("-inf")).to(ACC)
            label = tl.load(slope, mask=inside, other=float("-inf"))
            norm = tl.load(own)
            offset, rest = two_sum(offset, shift)
            left += rest
            both, rest = two_sum(tl.load(own + 1), offset)
            level = (both - total) + (rest + tl.load(own + 2) + left - lost)
            after -= shift
            ended -= shift
            emitted = row - norm
            value = factor * (exp(emitted) - exp(label + after + level))
            tl.store(slope, tl.where(inside, value, 0.0), mask=lane < symbols)
            following = emitted + after
            ended = log_add(from_right(following, float("-inf"), WIDTH), ended + (blank - norm))
            after = log_add(following, ended)
            # Of those that the frame before can have reached.
            shift = _level(tl.max(tl.where(lane < rows - 1 - back, after, nowhere), 0))
        slope += rows * symbols
        for _ in range(rows, frames):
            tl.store(slope, tl.zeros([WIDTH], ACC), mask=lane < symbols)
            slope += symbols


@triton.jit
def _level(most):
    """What sums are kept relative to, of which this is the largest; those of probability 0 as they are."""
    return tl.where(most == float("-inf"), 0.0, most)


def forward_sum(
    log_probs: Tensor,
    text_lengths: Tensor,
    mel_lengths: Tensor,
    blank: float,
    scale: Tensor,
    wanted: bool,
) -> tuple[Tensor, Tensor | None]:
    """Launch on the current stream: losses (B,), and where it is ``wanted`` their gradient (B, T, N), both
    times ``scale`` (B,) and in its dtype."""
    batch, frames, symbols = log_probs.shape
    losses = torch.empty_like(scale)
    gradient = torch.empty(log_probs.shape, dtype=scale.dtype, device=scale.device) if wanted else None
    if batch == 0:
        return losses, gradient
    width = settings.lanes(symbols)
    kept = torch.empty(batch, frames, _ROWS.value, dtype=scale.dtype, device=scale.device)
    with torch.cuda.device_of(log_probs):
        forward_sum_of[(batch,)](
            log_probs,
            text_lengths.contiguous(),
            mel_lengths.contiguous(),
            scale,
            losses,
            gradient,
            kept,
            torch.full_like(scale[0], blank),
            *log_probs.stride(),
            frames,
            symbols,
            DENSE=log_probs.stride(2) == 1,
            WIDTH=width,
            ACC=tl.float64 if scale.dtype == torch.float64 else tl.float32,
            **settings.options_of_lanes(width),
        )
    return losses, gradient
