"""One program's part of each term: read a tile once, write its gradients once, return its sum.

Every function returns the unweighted sum over its elements, to be scaled by the caller, and writes
gradients multiplied by ``scale``. Padded elements are never read and their gradients are 0. Offsets
between utterances, frames and symbols are 64 bits wide; indices along one axis are 32.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs
# A branch on a constexpr is compiled away only where it stands alone.
# ruff: noqa: RET505

import triton
import triton.language as tl
from ttsfast.kernels.arithmetic import exp, expm1, logistic, one_minus_exp
from ttsfast.kernels.noise import four_normals, interleave_four


@triton.jit
def _load(pointers, mask, ACC: tl.constexpr):
    # Cast at once: arithmetic in half precision is neither wanted nor right under the interpreter.
    return tl.load(pointers, mask=mask, other=0.0).to(ACC)


@triton.jit
def _store(pointers, values, mask):
    tl.store(pointers, values.to(pointers.dtype.element_ty), mask=mask)


@triton.jit
def _rounded_up(length, ALIGN: tl.constexpr):
    """The next multiple of ALIGN, in a form that tells the compiler so.

    A mask that ends on a multiple of a vector's width keeps the access one vector. At most ALIGN - 1
    padded elements are read beyond the end, inside the tensor, and dropped by a select.
    """
    return (length + (ALIGN - 1)) // ALIGN * ALIGN


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
    loaded = _rounded_up(valid, ALIGN)
    size = _rounded_up(frames.to(tl.int64) * BINS, ALIGN)
    y0 = predictions[0] + tl.multiple_of(utterance * batch_strides[0], ALIGN)
    target += tl.multiple_of(utterance * batch_strides[2], ALIGN)
    acc = tl.zeros([TILE], ACC)
    for i in range(tiles):
        start = (first + i).to(tl.int64) * TILE
        inside = start + lane < valid
        reached = start + lane < loaded
        y = _load(target + start + lane, reached, ACC)
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
        d0 = tl.where(inside, _load(y0 + start + lane, reached, ACC) - y, 0.0)
        loss, slope = _distance(d0, delta, LOSS)
        acc += loss
        stored = start + lane < size
        if gradients[0] is not None:
            g0 = gradients[0] + tl.multiple_of(utterance * batch_strides[3], ALIGN)
            _store(g0 + start + lane, slope * scale, stored)
        if predictions[1] is not None:
            y1 = predictions[1] + tl.multiple_of(utterance * batch_strides[1], ALIGN)
            d1 = tl.where(inside, _load(y1 + start + lane, reached, ACC) - y, 0.0)
            loss, slope = _distance(d1, delta, LOSS)
            acc += loss
            if gradients[1] is not None:
                g1 = gradients[1] + tl.multiple_of(utterance * batch_strides[4], ALIGN)
                _store(g1 + start + lane, slope * scale, stored)
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
    loaded = _rounded_up(length, ALIGN)
    frames = _rounded_up(frames, ALIGN)
    for i in range(tiles):
        t = ((first + i) * TILE_T + tl.arange(0, TILE_T))[:, None]
        for c0 in range(0, BINS, TILE_C):
            c = (c0 + tl.arange(0, TILE_C))[None, :]
            inside = (t < length) & (c < BINS)
            reached = (t < loaded) & (c < BINS)
            stored = (t < frames) & (c < BINS)
            at = _at(target, utterance, t, c, batch_strides, frame_strides, bin_strides, 2)
            y = _load(at, reached, ACC)
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
                    at = _at(predictions[k], utterance, t, c, batch_strides, frame_strides, bin_strides, k)
                    d = tl.where(inside, _load(at, reached, ACC) - y, 0.0)
                    loss, slope = _distance(d, delta, LOSS)
                    acc += loss
                    if gradients[k] is not None:
                        g = gradients[k]
                        at = _at(g, utterance, t, c, batch_strides, frame_strides, bin_strides, 3 + k)
                        _store(at, slope * scale, stored)
    return tl.sum(acc)


@triton.jit
def _at(pointer, utterance, t, c, batch_strides, frame_strides, bin_strides, k: tl.constexpr):
    """Pointers to (t, c) of an utterance."""
    row = t.to(tl.int64) * frame_strides[k]
    return pointer + utterance * batch_strides[k] + row + c.to(tl.int64) * bin_strides[k]


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
            at = _at(gradients[0], utterance, t, z, batch_strides, frame_strides, latent_strides, 4)
            _store(at, g_mu * factor, stored)
        if gradients[1] is not None:
            at = _at(gradients[1], utterance, t, z, batch_strides, frame_strides, latent_strides, 5)
            _store(at, g_logvar * factor, stored)
        if gradients[2] is not None:
            at = _at(gradients[2], utterance, t, z, batch_strides, frame_strides, latent_strides, 6)
            _store(at, g_prior_mu * factor, stored)
        if gradients[3] is not None:
            at = _at(gradients[3], utterance, t, z, batch_strides, frame_strides, latent_strides, 7)
            _store(at, g_prior_logvar * factor, stored)
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
    mu = _load(_at(latents[0], utterance, t, z, batch_strides, frame_strides, latent_strides, 0), inside, ACC)
    at = _at(latents[1], utterance, t, z, batch_strides, frame_strides, latent_strides, 1)
    ratio = _load(at, inside, ACC)
    difference = mu
    precision = tl.full(mu.shape, 1.0, ACC)
    if latents[2] is not None:
        at = _at(latents[2], utterance, t, z, batch_strides, frame_strides, latent_strides, 2)
        distance = mu - _load(at, inside, ACC)
        at = _at(latents[3], utterance, t, z, batch_strides, frame_strides, latent_strides, 3)
        spread = _load(at, inside, ACC)
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


@triton.jit
def stop_steps(
    logits,
    gradient,
    strides,
    gradient_strides,
    utterance,
    length,
    tail,
    truncated,
    size,
    block,
    scale,
    a0,
    b0,
    a1,
    b1,
    TILE: tl.constexpr,
    ACC: tl.constexpr,
):
    """Cross-entropy of TILE steps: ``a * softplus(-x) + b * softplus(x)``, (a, b) by the step's target."""
    t = block * TILE + tl.arange(0, TILE)
    length = length.to(tl.int32)
    inside = t < length + tail.to(tl.int32)
    positive = inside & (t >= length - 1) & (truncated == 0)
    x = _load(logits + utterance * strides[0] + t.to(tl.int64) * strides[1], inside, ACC)
    below, above, down, up = logistic(x)
    a = tl.where(positive, a1, a0).to(ACC)
    b = tl.where(positive, b1, b0).to(ACC)
    # A coefficient of 0 removes its half: it must not meet an infinity.
    value = tl.where(a == 0, 0.0, a * below) + tl.where(b == 0, 0.0, b * above)
    if gradient is not None:
        slope = tl.where(inside, b * up - a * down, 0.0)
        at = gradient + utterance * gradient_strides[0] + t.to(tl.int64) * gradient_strides[1]
        _store(at, slope * scale, t < size)
    return tl.sum(tl.where(inside, value, 0.0))


@triton.jit
def attention_rows(
    layer,
    gradient,
    strides,
    utterance,
    head,
    steps,
    symbols,
    length,
    text_length,
    block,
    scale,
    inverse_sigma,
    ALIGN: tl.constexpr,
    TILE_S: tl.constexpr,
    TILE_N: tl.constexpr,
    ACC: tl.constexpr,
):
    """Guided attention of TILE_S steps of one head.

    ALIGN divides N and every stride but that of N, which is 1; or it is 1 itself.
    """
    length = length.to(tl.int32)
    text_length = text_length.to(tl.int32)
    loaded = _rounded_up(text_length, ALIGN)
    stored = _rounded_up(symbols, ALIGN)
    layer += tl.multiple_of(utterance * strides[0] + head * strides[1], ALIGN)
    if gradient is not None:
        gradient += tl.multiple_of(utterance * strides[4] + head * strides[5], ALIGN)
    t = block * TILE_S + tl.arange(0, TILE_S)
    row = (t.to(ACC) / tl.maximum(length, 1).to(ACC))[:, None]
    t = t[:, None]
    acc = tl.zeros([TILE_S], ACC)
    for n0 in range(0, symbols, TILE_N):
        n = n0 + tl.arange(0, TILE_N)
        column = (n.to(ACC) / tl.maximum(text_length, 1).to(ACC))[None, :]
        n = n[None, :]
        inside = (t < length) & (n < text_length)
        away = (column - row) * inverse_sigma
        penalty = one_minus_exp(0.5 * away * away)
        rows = tl.multiple_of(t.to(tl.int64) * strides[2], (ALIGN, ALIGN))
        at = layer + rows + n.to(tl.int64) * strides[3]
        weight = _load(at, (t < length) & (n < loaded), ACC)
        # Summed along rows at once: a tile of partial sums would cost registers, these few shuffles do not.
        acc += tl.sum(tl.where(inside, weight * penalty, 0.0), 1)
        if gradient is not None:
            rows = tl.multiple_of(t.to(tl.int64) * strides[6], (ALIGN, ALIGN))
            at = gradient + rows + n.to(tl.int64) * strides[7]
            _store(at, tl.where(inside, penalty * scale, 0.0), (t < steps) & (n < stored))
    return tl.sum(acc)
