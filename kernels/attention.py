"""One program's part of guided attention: read a tile once, write its gradient once, return its sum.

Returns the unweighted sum over its elements, to be scaled by the caller, and writes gradients multiplied by
``scale``. Padded elements are never used, and their gradients are 0.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from ttsfast.kernels.arithmetic import one_minus_exp
from ttsfast.kernels.memory import load, rounded_up, store


@triton.jit
def attention_rows(
    layer,
    gradient,
    strides,
    utterance,
    head,
    axes,
    length,
    text_length,
    block,
    scale,
    inverse_sigma,
    OPT: tl.constexpr,
):
    """Guided attention of one tile's steps of one head; ``strides`` as of :class:`Attention`."""
    TILE_S: tl.constexpr = OPT.ATTENTION_TILE[0]
    TILE_N: tl.constexpr = OPT.ATTENTION_TILE[1]
    ALIGN: tl.constexpr = OPT.ATTENTION_ALIGN
    length = length.to(tl.int32)
    text_length = text_length.to(tl.int32)
    loaded = rounded_up(text_length, ALIGN)
    stored = rounded_up(axes.symbols, ALIGN)
    layer += tl.multiple_of(utterance * strides[0] + head * strides[1], ALIGN)
    if gradient is not None:
        gradient += tl.multiple_of(utterance * strides[4] + head * strides[5], ALIGN)
    t = block * TILE_S + tl.arange(0, TILE_S)
    row = (t.to(OPT.ACC) / tl.maximum(length, 1).to(OPT.ACC))[:, None]
    t = t[:, None]
    acc = tl.zeros([TILE_S], OPT.ACC)
    for n0 in range(0, axes.symbols, TILE_N):
        n = n0 + tl.arange(0, TILE_N)
        column = (n.to(OPT.ACC) / tl.maximum(text_length, 1).to(OPT.ACC))[None, :]
        n = n[None, :]
        inside = (t < length) & (n < text_length)
        away = (column - row) * inverse_sigma
        penalty = one_minus_exp(0.5 * away * away)
        rows = tl.multiple_of(t.to(tl.int64) * strides[2], (ALIGN, ALIGN))
        at = layer + rows + n.to(tl.int64) * strides[3]
        weight = load(at, (t < length) & (n < loaded), OPT.ACC)
        # Summed along rows at once: a tile of partial sums would cost registers, these few shuffles do not.
        acc += tl.sum(tl.where(inside, weight * penalty, 0.0), 1)
        if gradient is not None:
            rows = tl.multiple_of(t.to(tl.int64) * strides[6], (ALIGN, ALIGN))
            at = gradient + rows + n.to(tl.int64) * strides[7]
            store(at, tl.where(inside, penalty * scale, 0.0), (t < axes.attention_steps) & (n < stored))
    return tl.sum(acc)
