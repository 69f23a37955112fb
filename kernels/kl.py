"""One program's part of the KL term: read a tile once, write its gradients once, return its sum.

Returns the unweighted sum over its elements, to be scaled by the caller, and writes gradients multiplied by
``scale``. Padded elements are never used, and their gradients are 0.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from ttsfast.kernels.arithmetic import exp, expm1
from ttsfast.kernels.memory import load, pointers_at, store


@triton.jit
def kl_rows(latents, utterance, length, frames, block, scale, free_bits, OPT: tl.constexpr):
    """KL of one tile's latent vectors; an utterance's only vector has T = 1."""
    TILE_T: tl.constexpr = OPT.KL_TILE[0]
    TILE_Z: tl.constexpr = OPT.KL_TILE[1]
    length = length.to(tl.int32)
    row = block * TILE_T + tl.arange(0, TILE_T)
    t = row[:, None]
    nats = tl.zeros([TILE_T], OPT.ACC)
    if OPT.FREE_BITS and OPT.LATENTS > TILE_Z:
        # Whether a vector is free is known only after all of it: a vector wider than a tile is read twice.
        for z0 in range(0, OPT.LATENTS, TILE_Z):
            z = (z0 + tl.arange(0, TILE_Z))[None, :]
            value, _ = divergence(
                latents.inputs, latents.strides, utterance, t, z, (t < length) & (z < OPT.LATENTS), OPT.ACC
            )
            nats += tl.sum(value, 1)
    for z0 in range(0, OPT.LATENTS, TILE_Z):
        z = (z0 + tl.arange(0, TILE_Z))[None, :]
        value, slopes = divergence(
            latents.inputs, latents.strides, utterance, t, z, (t < length) & (z < OPT.LATENTS), OPT.ACC
        )
        if not OPT.FREE_BITS or OPT.LATENTS <= TILE_Z:
            nats += tl.sum(value, 1)
        factor = scale
        if OPT.FREE_BITS:
            factor = tl.where(nats <= free_bits, 0.0, scale)[:, None]
        for k in tl.static_range(4):
            if latents.gradients[k] is not None:
                at = pointers_at(latents.gradients[k], utterance, t, z, latents.strides, 4 + k)
                slope = tl.where(t < length, slopes[k] * factor, 0.0)
                store(at, slope, (t < frames) & (z < OPT.LATENTS))
    if OPT.FREE_BITS:
        nats = tl.where((nats <= free_bits) & (row < length), free_bits, nats)
    return tl.sum(nats)


@triton.jit
def divergence(latents, strides, utterance, t, z, inside, ACC: tl.constexpr):
    """Nats, and their slopes by mu, logvar, prior mu and prior logvar; 0 outside ``inside``."""
    mu = load(pointers_at(latents[0], utterance, t, z, strides, 0), inside, ACC)
    ratio = load(pointers_at(latents[1], utterance, t, z, strides, 1), inside, ACC)
    difference = mu
    precision = tl.full(mu.shape, 1.0, ACC)
    if latents[2] is not None:
        distance = mu - load(pointers_at(latents[2], utterance, t, z, strides, 2), inside, ACC)
        spread = load(pointers_at(latents[3], utterance, t, z, strides, 3), inside, ACC)
        ratio -= spread
        # Equal means are at distance 0 under any prior, and infinitely distant ones at infinity: exp may
        # overflow or underflow there, and 0 * inf is NaN. Only 0 and the infinities are their own doubles.
        precision = exp(-0.5 * tl.where(distance + distance == distance, 0.0, spread))
        difference = distance * precision
    change = expm1(ratio)
    square = difference * difference
    slope = difference * precision
    half = 0.5 * change
    return 0.5 * (change - ratio + square), (slope, half, -slope, -half - 0.5 * square)
