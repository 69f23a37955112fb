"""Each term element by element, for ``reduction="none"``: values, or gradients times what arrived at each.

A kernel reads its tensors once and writes every element of its outputs once, 0 in padding, which is never
used, whatever it holds. With ``incoming`` it writes gradients, without it values. Outputs are contiguous.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from ttsfast.kernels.arithmetic import logistic, one_minus_exp
from ttsfast.kernels.counts import clamped, is_truncated, stop_tail
from ttsfast.kernels.latents import divergence
from ttsfast.kernels.memory import load, pointers_at, store


@triton.jit(do_not_specialize=["frames", "blocks"])
def mel_elements(
    x,  # (B, T, C)
    y,  # (B, T, C)
    shift,  # (C,) added to the target, or None
    lengths,  # (B,) any integers
    incoming,  # (B, T, C) or None
    out,  # (B, T, C)
    strides,  # of x, y and incoming, by axis
    frames,
    blocks,  # programs of one utterance
    keep,  # what the target is multiplied by
    delta,
    BINS: tl.constexpr,
    TILE_T: tl.constexpr,
    TILE_C: tl.constexpr,
    ACC: tl.constexpr,
):
    utterance = (tl.program_id(0) // blocks).to(tl.int64)
    t = ((tl.program_id(0) % blocks) * TILE_T + tl.arange(0, TILE_T))[:, None]
    length = clamped(lengths, utterance, True, frames).to(tl.int32)
    rows = (utterance * frames + t) * BINS
    for c0 in range(0, BINS, TILE_C):
        c = (c0 + tl.arange(0, TILE_C))[None, :]
        inside = (t < length) & (c < BINS)
        at = pointers_at(y, utterance, t, c, strides, 1)
        target = load(at, inside, ACC) * keep
        if shift is not None:
            target += tl.load(shift + c, mask=c < BINS, other=0.0).to(ACC)
        at = pointers_at(x, utterance, t, c, strides, 0)
        d = load(at, inside, ACC) - target
        # Comparisons rather than minimum and maximum, which drop NaN.
        slope = tl.where(d > delta, delta, tl.where(d < -delta, -delta, d))
        if incoming is None:
            result = slope * (d - 0.5 * slope)
        else:
            at = pointers_at(incoming, utterance, t, c, strides, 2)
            result = slope * load(at, inside, ACC)
        store(out + rows + c, tl.where(inside, result, 0.0), (t < frames) & (c < BINS))


@triton.jit(do_not_specialize=["frames", "blocks"])
def kl_elements(
    latents,  # (mu, logvar, prior mu, prior logvar), each (B, T, Z); the prior's may be None
    lengths,  # (B,)
    incoming,  # (B, T) or None
    values,  # (B, T), without incoming
    gradients,  # as latents, None where not wanted
    strides,  # of the latents, by axis
    incoming_strides,
    frames,
    blocks,
    free_bits,
    LATENTS: tl.constexpr,
    FREE_BITS: tl.constexpr,
    TILE_T: tl.constexpr,
    TILE_Z: tl.constexpr,
    ACC: tl.constexpr,
):
    utterance = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks) * TILE_T + tl.arange(0, TILE_T)
    t = row[:, None]
    length = clamped(lengths, utterance, True, frames).to(tl.int32)
    nats = tl.zeros([TILE_T], ACC)
    if FREE_BITS or incoming is None:
        for z0 in range(0, LATENTS, TILE_Z):
            z = (z0 + tl.arange(0, TILE_Z))[None, :]
            inside = (t < length) & (z < LATENTS)
            value, _ = divergence(latents, strides, utterance, t, z, inside, ACC)
            nats += tl.sum(tl.where(inside, value, 0.0), 1)
    if incoming is None:
        if FREE_BITS:
            nats = tl.where(nats <= free_bits, free_bits, nats)
        store(values + utterance * frames + row, tl.where(row < length, nats, 0.0), row < frames)
    else:
        at = incoming + utterance * incoming_strides[0] + row.to(tl.int64) * incoming_strides[1]
        arrived = load(at, row < length, ACC)
        if FREE_BITS:
            # Free vectors have finite slopes, so a factor of 0 takes them out.
            arrived = tl.where(nats <= free_bits, 0.0, arrived)
        arrived = arrived[:, None]
        rows = (utterance * frames + t) * LATENTS
        for z0 in range(0, LATENTS, TILE_Z):
            z = (z0 + tl.arange(0, TILE_Z))[None, :]
            inside = (t < length) & (z < LATENTS)
            stored = (t < frames) & (z < LATENTS)
            _, slopes = divergence(latents, strides, utterance, t, z, inside, ACC)
            for k in tl.static_range(4):
                if gradients[k] is not None:
                    store(gradients[k] + rows + z, tl.where(inside, slopes[k] * arrived, 0.0), stored)


@triton.jit(do_not_specialize=["steps", "blocks", "tail_frames"])
def stop_elements(
    logits,  # (B, S)
    lengths,  # (B,)
    truncated,  # (B,) bool or None
    incoming,  # (B, S) or None
    out,  # (B, S)
    batch_strides,  # of logits and incoming, as the next
    step_strides,
    steps,
    blocks,
    tail_frames,
    a0,
    b0,
    a1,
    b1,
    TILE: tl.constexpr,
    ACC: tl.constexpr,
):
    utterance = (tl.program_id(0) // blocks).to(tl.int64)
    t = (tl.program_id(0) % blocks) * TILE + tl.arange(0, TILE)
    length = clamped(lengths, utterance, True, steps)
    cut = is_truncated(truncated, utterance, True)
    end = (length + stop_tail(length, cut, tail_frames, steps)).to(tl.int32)
    inside = t < end
    positive = inside & (t >= length.to(tl.int32) - 1) & (cut == 0)
    x = load(logits + utterance * batch_strides[0] + t.to(tl.int64) * step_strides[0], inside, ACC)
    below, above, down, up = logistic(x)
    a = tl.where(positive, a1, a0).to(ACC)
    b = tl.where(positive, b1, b0).to(ACC)
    if incoming is None:
        # A coefficient of 0 removes its half: it must not meet an infinity.
        result = tl.where(a == 0, 0.0, a * below) + tl.where(b == 0, 0.0, b * above)
    else:
        at = incoming + utterance * batch_strides[1] + t.to(tl.int64) * step_strides[1]
        result = (b * up - a * down) * load(at, inside, ACC)
    store(out + utterance * steps + t, tl.where(inside, result, 0.0), t < steps)


@triton.jit(do_not_specialize=["heads", "steps", "symbols", "blocks"])
def attention_elements(
    factor,  # (B, H, S, N): the weights, or what arrived at their values
    step_lengths,  # (B,)
    text_lengths,  # (B,)
    out,  # (B, H, S, N)
    strides,  # of factor
    heads,
    steps,
    symbols,
    blocks,
    inverse_sigma,
    TILE_S: tl.constexpr,
    TILE_N: tl.constexpr,
    ACC: tl.constexpr,
):
    """The factor times the penalty, which is value and gradient alike: the term is linear."""
    group = (tl.program_id(0) // blocks).to(tl.int64)
    utterance = group // heads
    factor += utterance * strides[0] + (group % heads) * strides[1]
    t = ((tl.program_id(0) % blocks) * TILE_S + tl.arange(0, TILE_S))[:, None]
    length = clamped(step_lengths, utterance, True, steps).to(tl.int32)
    text_length = clamped(text_lengths, utterance, True, symbols).to(tl.int32)
    row = t.to(ACC) / tl.maximum(length, 1).to(ACC)
    for n0 in range(0, symbols, TILE_N):
        n = (n0 + tl.arange(0, TILE_N))[None, :]
        inside = (t < length) & (n < text_length)
        away = (n.to(ACC) / tl.maximum(text_length, 1).to(ACC) - row) * inverse_sigma
        penalty = one_minus_exp(0.5 * away * away)
        at = factor + t.to(tl.int64) * strides[2] + n.to(tl.int64) * strides[3]
        result = tl.where(inside, load(at, inside, ACC) * penalty, 0.0)
        store(out + (group * steps + t) * symbols + n, result, (t < steps) & (n < symbols))
