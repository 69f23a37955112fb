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
def _distance(d, delta, OPT: tl.constexpr):
    """(loss, slope) of a difference."""
    if OPT.LOSS == "huber":
        # The clamp identity; comparisons rather than minimum and maximum, which drop NaN.
        c = tl.where(d > delta, delta, tl.where(d < -delta, -delta, d))
        return c * (d - 0.5 * c), c
    elif OPT.LOSS == "l1":
        return tl.abs(d), tl.where(d > 0, 1.0, tl.where(d < 0, -1.0, 0.0 * d))
    else:
        return d * d, 2.0 * d


@triton.jit
def mel_tiles(mel, utterance, length, frames, first, tiles, scale, numbers, seed, step, OPT: tl.constexpr):
    """Tiles ``first .. first + tiles`` of an utterance."""
    TILE: tl.constexpr = OPT.MEL_TILE
    acc = tl.zeros(TILE, OPT.ACC)
    for i in range(tiles):
        if len(OPT.MEL_TILE) == 1:
            acc += _run(mel, utterance, length, frames, first + i, scale, numbers, seed, step, OPT)
        else:
            bins: tl.constexpr = OPT.MEL_TILE[1]
            for c0 in range(0, OPT.BINS, bins):
                acc += _strided(
                    mel, utterance, length, frames, first + i, c0, scale, numbers, seed, step, OPT
                )
    return tl.sum(acc)


@triton.jit
def _run(mel, utterance, length, frames, tile, scale, numbers, seed, step, OPT: tl.constexpr):
    """A tile of tensors that all hold the utterance's (T, C) without gaps."""
    TILE: tl.constexpr = OPT.MEL_TILE[0]
    ALIGN: tl.constexpr = OPT.MEL_ALIGN
    start = tile.to(tl.int64) * TILE
    at = start + tl.arange(0, TILE)
    valid = length * OPT.BINS
    reached = at < rounded_up(valid, ALIGN)
    stored = at < rounded_up(frames.to(tl.int64) * OPT.BINS, ALIGN)
    base = tl.multiple_of(utterance * mel.strides[0][2], ALIGN)
    y = load(mel.target + base + at, reached, OPT.ACC)
    if OPT.SMOOTHING == "noise":
        frame = start // OPT.BINS
        position = (start - frame * OPT.BINS).to(tl.int32)
        quads = position + 4 * tl.arange(0, TILE // 4)
        quad, t = (quads % OPT.BINS) // 4, frame + quads // OPT.BINS
        c = (position + tl.arange(0, TILE)) % OPT.BINS
        y += numbers.amount * _noise(mel, quad, t, c, utterance, seed, step, OPT)
    elif OPT.SMOOTHING == "mean":
        position = (start % OPT.BINS).to(tl.int32)
        y = _toward_mean(mel, y, (position + tl.arange(0, TILE)) % OPT.BINS, numbers, OPT)
    acc = tl.zeros([TILE], OPT.ACC)
    for k in tl.static_range(2):
        if mel.predictions[k] is not None:
            base = tl.multiple_of(utterance * mel.strides[0][k], ALIGN)
            d = tl.where(at < valid, load(mel.predictions[k] + base + at, reached, OPT.ACC) - y, 0.0)
            loss, slope = _distance(d, numbers.delta, OPT)
            acc += loss
            if mel.gradients[k] is not None:
                base = tl.multiple_of(utterance * mel.strides[0][3 + k], ALIGN)
                # Selected last: what arrives may be infinite, and padding is 0 also then.
                store(mel.gradients[k] + base + at, tl.where(at < valid, slope * scale, 0.0), stored)
    return acc


@triton.jit
def _strided(mel, utterance, length, frames, tile, c0, scale, numbers, seed, step, OPT: tl.constexpr):
    """A tile of tensors of any strides; the compiler coalesces each access by itself."""
    TILE_T: tl.constexpr = OPT.MEL_TILE[0]
    TILE_C: tl.constexpr = OPT.MEL_TILE[1]
    ALIGN: tl.constexpr = OPT.MEL_ALIGN
    length = length.to(tl.int32)
    t = (tile * TILE_T + tl.arange(0, TILE_T))[:, None]
    c = (c0 + tl.arange(0, TILE_C))[None, :]
    inside = (t < length) & (c < OPT.BINS)
    reached = (t < rounded_up(length, ALIGN)) & (c < OPT.BINS)
    stored = (t < rounded_up(frames, ALIGN)) & (c < OPT.BINS)
    y = load(pointers_at(mel.target, utterance, t, c, mel.strides, 2), reached, OPT.ACC)
    if OPT.SMOOTHING == "noise":
        quads = (c0 // 4 + tl.arange(0, TILE_C // 4))[None, :] + tl.zeros([TILE_T, 1], tl.int32)
        y += numbers.amount * _noise(mel, quads, t, c, utterance, seed, step, OPT)
    elif OPT.SMOOTHING == "mean":
        y = _toward_mean(mel, y, c, numbers, OPT)
    acc = tl.zeros([TILE_T, TILE_C], OPT.ACC)
    for k in tl.static_range(2):
        if mel.predictions[k] is not None:
            at = pointers_at(mel.predictions[k], utterance, t, c, mel.strides, k)
            d = tl.where(inside, load(at, reached, OPT.ACC) - y, 0.0)
            loss, slope = _distance(d, numbers.delta, OPT)
            acc += loss
            if mel.gradients[k] is not None:
                at = pointers_at(mel.gradients[k], utterance, t, c, mel.strides, 3 + k)
                store(at, tl.where(inside, slope * scale, 0.0), stored)
    return acc


@triton.jit
def _noise(mel, quads, t, c, utterance, seed, step, OPT: tl.constexpr):
    """Noise of the bins ``c``, of standard deviation ``std``; ``quads`` numbers groups of four bins."""
    TILE: tl.constexpr = OPT.MEL_TILE
    a, b, e, f = four_normals(quads, t, utterance, seed, step, OPT.ACC)
    noise = tl.reshape(interleave_four(a, b, e, f), TILE)
    if mel.std is not None:
        noise *= tl.load(mel.std + c, mask=c < OPT.BINS, other=0.0).to(OPT.ACC)
    return noise


@triton.jit
def _toward_mean(mel, y, c, numbers, OPT: tl.constexpr):
    y *= numbers.keep
    if mel.mean is not None:
        y += numbers.amount * tl.load(mel.mean + c, mask=c < OPT.BINS, other=0.0).to(OPT.ACC)
    return y
