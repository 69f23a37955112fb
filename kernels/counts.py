"""Lengths, counts and divisors: what every program of the forward pass works out for itself."""

# mypy: allow-untyped-defs, allow-incomplete-defs
# A branch on a constexpr is compiled away only where it stands alone.
# ruff: noqa: RET505

import triton
import triton.language as tl


@triton.jit
def clamped(vector, at, mask, limit):
    """Lengths as int64 within 0..limit, 0 where ``mask`` is False."""
    length = tl.load(vector + at, mask=mask, other=0).to(tl.int64)
    return tl.minimum(tl.maximum(length, 0), limit)


@triton.jit
def is_truncated(truncated, at, mask):
    """Flags of clips cut before their end; all False where there are none."""
    if truncated is None:
        return tl.zeros(at.shape, tl.int1)
    else:
        return tl.load(truncated + at, mask=mask, other=0).to(tl.int1)


@triton.jit
def stop_tail(length, truncated, tail_frames, stop_steps):
    """Tail steps after the end: none after an empty or truncated utterance, none past the axis."""
    room = tl.minimum(tl.zeros_like(length) + tail_frames, stop_steps - length)
    return tl.where((length == 0) | truncated, 0, room)


@triton.jit
def stop_lengths(lengths, at, mask, axes):
    """(steps, tail steps after them, whether cut before the end)"""
    length = clamped(lengths.steps, at, mask, axes.steps)
    cut = is_truncated(lengths.truncated, at, mask)
    return length, stop_tail(length, cut, axes.tail_frames, axes.stop_size), cut


@triton.jit
def batch_counts(lengths, axes, OPT: tl.constexpr):
    """(frames, stop steps, attention steps, utterances) of the batch, int64 scalars."""
    BLOCK: tl.constexpr = OPT.BATCH_BLOCK
    frames = tl.zeros([BLOCK], tl.int64)
    stop = tl.zeros([BLOCK], tl.int64)
    attention = tl.zeros([BLOCK], tl.int64)
    utterances = tl.zeros([BLOCK], tl.int64)
    for start in range(0, axes.batch, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < axes.batch
        length = clamped(lengths.mel, at, mask, axes.frames)
        frames += length
        utterances += (length > 0).to(tl.int64)
        if lengths.steps is not None:
            own, tail, _ = stop_lengths(lengths, at, mask, axes)
            attention += own
            stop += own + tail
    return tl.sum(frames), tl.sum(stop), tl.sum(attention), tl.sum(utterances)


@triton.jit
def number(value, ON_DEVICE: tl.constexpr, ACC: tl.constexpr):
    """A scalar that is an argument, or that an argument points to."""
    if ON_DEVICE:
        return tl.load(value).to(ACC)
    else:
        return tl.zeros([], ACC) + value


@triton.jit
def divisors(own_frames, own_stop, own_attention, own_utterances, normalizer, OPT: tl.constexpr):
    """The counts to divide by, each at least 1: own ones, given ones, or own ones grown to a given total."""
    ON_DEVICE: tl.constexpr = OPT.NORMALIZER_ON_DEVICE
    f = own_frames.to(OPT.ACC)
    s = own_stop.to(OPT.ACC)
    a = own_attention.to(OPT.ACC)
    u = own_utterances.to(OPT.ACC)
    if OPT.NORMALIZER == "counts":
        f = number(normalizer[0], ON_DEVICE[0], OPT.ACC)
        s = number(normalizer[1], ON_DEVICE[1], OPT.ACC)
        a = number(normalizer[2], ON_DEVICE[2], OPT.ACC)
        u = number(normalizer[3], ON_DEVICE[3], OPT.ACC)
    elif OPT.NORMALIZER == "scalar":
        total = number(normalizer[0], ON_DEVICE[0], OPT.ACC)
        growth = total / tl.maximum(u if OPT.BY_UTTERANCE else f, 1.0)
        f = f * growth if OPT.BY_UTTERANCE else total
        u = total if OPT.BY_UTTERANCE else u * growth
        s *= growth
        a *= growth
    return tl.maximum(f, 1.0), tl.maximum(s, 1.0), tl.maximum(a, 1.0), tl.maximum(u, 1.0)
