"""One program's part of the mel term: read a tile once, write its gradients once, return its sum.

Returns the unweighted sum over its elements, to be scaled by the caller, and writes gradients multiplied by
``scale``. Padded elements are never used, and their gradients are 0.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs
# A branch on a constexpr is compiled away only where it stands alone.
# ruff: noqa: RET505

import triton
import triton.language as tl
from ttsfast.kernels.memory import load, pointers_at, rounded_up, store
from ttsfast.kernels.noise import four_normals, interleave_four


@triton.jit
def _distance(d, delta, LOSS: tl.constexpr):
    """(loss, slope) of a difference."""
    if LOSS == "huber":
        # The clamp identity; comparisons rather than minimum and maximum, which drop NaN.
        c = tl.where(d > delta, delta, tl.where(d < -delta, -delta, d))
        return c * (d - 0.5 * c), c
    elif LOSS == "l1":
        return tl.abs(d), tl.where(d > 0, 1.0, tl.where(d < 0, -1.0, 0.0 * d))
    else:
        return d * d, 2.0 * d


@triton.jit
def mel_rows(
    predictions,
    target,
    gradients,
    batch_strides,
    mean,
    std,
    utterance,
    length,
    frames,
    first,
    tiles,
    scale,
    keep,
    amount,
    delta,
    seed,
    step,
    BINS: tl.constexpr,
    LOSS: tl.constexpr,
    SMOOTHING: tl.constexpr,
    ALIGN: tl.constexpr,
    TILE: tl.constexpr,
    ACC: tl.constexpr,
):
    """Tiles ``first .. first + tiles`` of an utterance whose tensors all hold its (T, C) without gaps.

    ALIGN divides T * C and every stride between utterances.
    """
    lane = tl.arange(0, TILE)
    valid = length * BINS
    loaded = rounded_up(valid, ALIGN)
    size = rounded_up(frames.to(tl.int64) * BINS, ALIGN)
    y0 = predictions[0] + tl.multiple_of(utterance * batch_strides[0], ALIGN)
    target += tl.multiple_of(utterance * batch_strides[2], ALIGN)
    acc = tl.zeros([TILE], ACC)
    for i in range(tiles):
        start = (first + i).to(tl.int64) * TILE
        inside = start + lane < valid
        reached = start + lane < loaded
        y = load(target + start + lane, reached, ACC)
        if SMOOTHING == "noise":
            frame = start // BINS
            position = (start - frame * BINS).to(tl.int32)
            quads = position + 4 * tl.arange(0, TILE // 4)
            a, b, c, d = four_normals((quads % BINS) // 4, frame + quads // BINS, utterance, seed, step, ACC)
            noise = tl.reshape(interleave_four(a, b, c, d), [TILE])
            if std is not None:
                noise *= tl.load(std + (position + lane) % BINS).to(ACC)
            y += amount * noise
        elif SMOOTHING == "mean":
            y *= keep
            if mean is not None:
                position = (start % BINS).to(tl.int32)
                y += amount * tl.load(mean + (position + lane) % BINS).to(ACC)
        d0 = tl.where(inside, load(y0 + start + lane, reached, ACC) - y, 0.0)
        loss, slope = _distance(d0, delta, LOSS)
        acc += loss
        stored = start + lane < size
        if gradients[0] is not None:
            g0 = gradients[0] + tl.multiple_of(utterance * batch_strides[3], ALIGN)
            store(g0 + start + lane, slope * scale, stored)
        if predictions[1] is not None:
            y1 = predictions[1] + tl.multiple_of(utterance * batch_strides[1], ALIGN)
            d1 = tl.where(inside, load(y1 + start + lane, reached, ACC) - y, 0.0)
            loss, slope = _distance(d1, delta, LOSS)
            acc += loss
            if gradients[1] is not None:
                g1 = gradients[1] + tl.multiple_of(utterance * batch_strides[4], ALIGN)
                store(g1 + start + lane, slope * scale, stored)
    return tl.sum(acc)


@triton.jit
def mel_strided(
    predictions,
    target,
    gradients,
    batch_strides,
    frame_strides,
    bin_strides,
    mean,
    std,
    utterance,
    length,
    frames,
    first,
    tiles,
    scale,
    keep,
    amount,
    delta,
    seed,
    step,
    BINS: tl.constexpr,
    LOSS: tl.constexpr,
    SMOOTHING: tl.constexpr,
    ALIGN: tl.constexpr,
    TILE_T: tl.constexpr,
    TILE_C: tl.constexpr,
    ACC: tl.constexpr,
):
    """The same for any strides, in tiles of (TILE_T, TILE_C); the compiler coalesces each access by itself.

    ALIGN divides T.
    """
    acc = tl.zeros([TILE_T, TILE_C], ACC)
    length = length.to(tl.int32)
    loaded = rounded_up(length, ALIGN)
    frames = rounded_up(frames, ALIGN)
    for i in range(tiles):
        t = ((first + i) * TILE_T + tl.arange(0, TILE_T))[:, None]
        for c0 in range(0, BINS, TILE_C):
            c = (c0 + tl.arange(0, TILE_C))[None, :]
            inside = (t < length) & (c < BINS)
            reached = (t < loaded) & (c < BINS)
            stored = (t < frames) & (c < BINS)
            at = pointers_at(target, utterance, t, c, batch_strides, frame_strides, bin_strides, 2)
            y = load(at, reached, ACC)
            if SMOOTHING == "noise":
                quads = (c0 // 4 + tl.arange(0, TILE_C // 4))[None, :]
                a, b, e, f = four_normals(
                    quads + tl.zeros([TILE_T, 1], tl.int32), t, utterance, seed, step, ACC
                )
                noise = tl.reshape(interleave_four(a, b, e, f), [TILE_T, TILE_C])
                if std is not None:
                    noise *= tl.load(std + c, mask=c < BINS, other=0.0).to(ACC)
                y += amount * noise
            elif SMOOTHING == "mean":
                y *= keep
                if mean is not None:
                    y += amount * tl.load(mean + c, mask=c < BINS, other=0.0).to(ACC)
            for k in tl.static_range(2):
                if predictions[k] is not None:
                    at = pointers_at(
                        predictions[k], utterance, t, c, batch_strides, frame_strides, bin_strides, k
                    )
                    d = tl.where(inside, load(at, reached, ACC) - y, 0.0)
                    loss, slope = _distance(d, delta, LOSS)
                    acc += loss
                    if gradients[k] is not None:
                        g = gradients[k]
                        at = pointers_at(g, utterance, t, c, batch_strides, frame_strides, bin_strides, 3 + k)
                        store(at, slope * scale, stored)
    return tl.sum(acc)
