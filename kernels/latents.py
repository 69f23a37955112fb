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
def kl_rows(
    latents,
    gradients,
    batch_strides,
    frame_strides,
    latent_strides,
    utterance,
    length,
    frames,
    block,
    scale,
    free_bits,
    LATENTS: tl.constexpr,
    FREE_BITS: tl.constexpr,
    TILE_T: tl.constexpr,
    TILE_Z: tl.constexpr,
    ACC: tl.constexpr,
):
    """KL of TILE_T latent vectors from ``block * TILE_T`` on; an utterance's only vector has T = 1."""
    length = length.to(tl.int32)
    t = (block * TILE_T + tl.arange(0, TILE_T))[:, None]
    nats = tl.zeros([TILE_T], ACC)
    if FREE_BITS and LATENTS > TILE_Z:
        # Whether a vector is free is known only after all of it: a vector wider than a tile is read twice.
        for z0 in range(0, LATENTS, TILE_Z):
            z = (z0 + tl.arange(0, TILE_Z))[None, :]
            inside = (t < length) & (z < LATENTS)
            value, _, _, _, _ = _divergence(
                latents, utterance, t, z, batch_strides, frame_strides, latent_strides, inside, ACC
            )
            nats += tl.sum(value, 1)
    for z0 in range(0, LATENTS, TILE_Z):
        z = (z0 + tl.arange(0, TILE_Z))[None, :]
        inside = (t < length) & (z < LATENTS)
        stored = (t < frames) & (z < LATENTS)
        value, g_mu, g_logvar, g_prior_mu, g_prior_logvar = _divergence(
            latents, utterance, t, z, batch_strides, frame_strides, latent_strides, inside, ACC
        )
        if not FREE_BITS or LATENTS <= TILE_Z:
            nats += tl.sum(value, 1)
        factor = scale
        if FREE_BITS:
            factor = tl.where(nats <= free_bits, 0.0, scale)[:, None]
        if gradients[0] is not None:
            at = pointers_at(gradients[0], utterance, t, z, batch_strides, frame_strides, latent_strides, 4)
            store(at, g_mu * factor, stored)
        if gradients[1] is not None:
            at = pointers_at(gradients[1], utterance, t, z, batch_strides, frame_strides, latent_strides, 5)
            store(at, g_logvar * factor, stored)
        if gradients[2] is not None:
            at = pointers_at(gradients[2], utterance, t, z, batch_strides, frame_strides, latent_strides, 6)
            store(at, g_prior_mu * factor, stored)
        if gradients[3] is not None:
            at = pointers_at(gradients[3], utterance, t, z, batch_strides, frame_strides, latent_strides, 7)
            store(at, g_prior_logvar * factor, stored)
    if FREE_BITS:
        row = block * TILE_T + tl.arange(0, TILE_T)
        nats = tl.where((nats <= free_bits) & (row < length), free_bits, nats)
    return tl.sum(nats)


@triton.jit
def _divergence(
    latents,
    utterance,
    t,
    z,
    batch_strides,
    frame_strides,
    latent_strides,
    inside,
    ACC: tl.constexpr,
):
    """(nats, d/dmu, d/dlogvar, d/dprior_mu, d/dprior_logvar) of each element, 0 outside ``inside``."""
    mu = load(
        pointers_at(latents[0], utterance, t, z, batch_strides, frame_strides, latent_strides, 0), inside, ACC
    )
    at = pointers_at(latents[1], utterance, t, z, batch_strides, frame_strides, latent_strides, 1)
    ratio = load(at, inside, ACC)
    difference = mu
    precision = tl.full(mu.shape, 1.0, ACC)
    if latents[2] is not None:
        at = pointers_at(latents[2], utterance, t, z, batch_strides, frame_strides, latent_strides, 2)
        distance = mu - load(at, inside, ACC)
        at = pointers_at(latents[3], utterance, t, z, batch_strides, frame_strides, latent_strides, 3)
        spread = load(at, inside, ACC)
        ratio -= spread
        # Equal means are at distance 0 under any prior: exp may overflow there, and 0 * inf is NaN.
        precision = exp(-0.5 * tl.where(distance == 0, 0.0, spread))
        difference = distance * precision
    change = expm1(ratio)
    square = difference * difference
    value = 0.5 * (change - ratio + square)
    slope = difference * precision
    half = 0.5 * change
    return value, slope, half, -slope, -half - 0.5 * square
