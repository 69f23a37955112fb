"""Lengths, counts and divisors: what every program of the forward kernel works out for itself."""

# mypy: allow-untyped-defs, allow-incomplete-defs
# A branch on a constexpr is compiled away only where it stands alone.
# ruff: noqa: RET505

import triton
import triton.language as tl


@triton.jit
def clamped(lengths, at, mask, limit):
    """Lengths as int64 within 0..limit, 0 where ``mask`` is False."""
    length = tl.load(lengths + at, mask=mask, other=0).to(tl.int64)
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
def batch_counts(
    mel_lengths,
    step_lengths,
    truncated,
    batch,
    frames,
    steps,
    stop_steps,
    tail_frames,
    HAS_STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(frames, stop steps, attention steps, utterances) of the batch, int64 scalars."""
    a = tl.zeros([BLOCK], tl.int64)
    b = tl.zeros([BLOCK], tl.int64)
    c = tl.zeros([BLOCK], tl.int64)
    d = tl.zeros([BLOCK], tl.int64)
    for start in range(0, batch, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < batch
        length = clamped(mel_lengths, at, mask, frames)
        a += length
        d += (length > 0).to(tl.int64)
        if HAS_STEPS:
            own = clamped(step_lengths, at, mask, steps)
            c += own
            b += own + stop_tail(own, is_truncated(truncated, at, mask), tail_frames, stop_steps)
    return tl.sum(a), tl.sum(b), tl.sum(c), tl.sum(d)


@triton.jit
def number(value, ON_DEVICE: tl.constexpr, ACC: tl.constexpr):
    """A scalar that is an argument, or that an argument points to."""
    if ON_DEVICE:
        return tl.load(value).to(ACC)
    else:
        return tl.zeros([], ACC) + value


@triton.jit
def divisors(
    own_frames,
    own_stop,
    own_attention,
    own_utterances,
    normalizer,
    NORMALIZER: tl.constexpr,
    ON_DEVICE: tl.constexpr,
    BY_UTTERANCE: tl.constexpr,
    ACC: tl.constexpr,
):
    """The counts to divide by, each at least 1: own ones, given ones, or own ones grown to a given total."""
    f = own_frames.to(ACC)
    s = own_stop.to(ACC)
    a = own_attention.to(ACC)
    u = own_utterances.to(ACC)
    if NORMALIZER == "counts":
        f = number(normalizer[0], ON_DEVICE, ACC)
        s = number(normalizer[1], ON_DEVICE, ACC)
        a = number(normalizer[2], ON_DEVICE, ACC)
        u = number(normalizer[3], ON_DEVICE, ACC)
    elif NORMALIZER == "scalar":
        total = number(normalizer[0], ON_DEVICE, ACC)
        growth = total / tl.maximum(u if BY_UTTERANCE else f, 1.0)
        f = f * growth if BY_UTTERANCE else total
        u = total if BY_UTTERANCE else u * growth
        s *= growth
        a *= growth
    return tl.maximum(f, 1.0), tl.maximum(s, 1.0), tl.maximum(a, 1.0), tl.maximum(u, 1.0)
