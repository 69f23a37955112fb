"""From tensors to launches of the element-wise kernels; one launch forward, one backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from ttsfast.kernels import elements, settings

ELEMENTS = 4
"""Of a tile, per thread."""
WIDTH = 16
"""Bins of a mel tile: 16 divide the usual 80."""
KL_WIDTH = 256
TEXT_WIDTH = 64


def run(
    term: str,
    reals: Sequence[Tensor],
    vectors: Sequence[Tensor],
    numbers: Sequence[float],
    incoming: Tensor | None,
    outputs: Sequence[Tensor | None],
) -> None:
    """Write the values of ``term`` to ``outputs[0]`` or, given ``incoming``, each wanted gradient.

    Arguments as in :mod:`ttsfast.losses.elements`; outputs are contiguous.
    """
    if reals[0].numel() == 0 and (outputs[0] is None or outputs[0].numel() == 0):
        return
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in reals) else torch.float32
    launch = {"mel": _mel, "kl": _kl, "stop": _stop, "attention": _attention}[term]
    vectors = [vector.contiguous() for vector in vectors]
    with torch.cuda.device_of(reals[0]):
        launch(
            reals, vectors, numbers, incoming, outputs, tl.float64 if dtype == torch.float64 else tl.float32
        )


def _mel(
    reals: Sequence[Tensor],
    vectors: Sequence[Tensor],
    numbers: Sequence[float],
    incoming: Tensor | None,
    outputs: Sequence[Tensor | None],
    acc: Any,
) -> None:
    batch, frames, bins = reals[0].shape
    rows = ELEMENTS * settings.SETTINGS.threads // WIDTH
    blocks = triton.cdiv(frames, rows)
    elements.mel_elements[(batch * blocks,)](
        reals[0],
        reals[1],
        vectors[1] if len(vectors) == 2 else None,
        vectors[0],
        incoming,
        outputs[0],
        tuple(_strides((*reals, incoming), axis) for axis in range(3)),
        frames,
        blocks,
        *numbers,
        BINS=bins,
        TILE_T=rows,
        TILE_C=WIDTH,
        ACC=acc,
        **settings.SETTINGS.options,
    )


def _kl(
    reals: Sequence[Tensor],
    vectors: Sequence[Tensor],
    numbers: Sequence[float],
    incoming: Tensor | None,
    outputs: Sequence[Tensor | None],
    acc: Any,
) -> None:
    batch, frames, size = reals[0].shape
    width = min(KL_WIDTH, triton.next_power_of_2(max(size, 1)))
    rows = max(1, ELEMENTS * settings.SETTINGS.threads // width)
    blocks = triton.cdiv(frames, rows)
    latents = (*reals, *[None] * (4 - len(reals)))
    gradients = (None,) * 4 if incoming is None else (*outputs, *[None] * (4 - len(outputs)))
    elements.kl_elements[(batch * blocks,)](
        latents,
        vectors[0],
        incoming,
        outputs[0] if incoming is None else None,
        gradients,
        tuple(_strides(latents, axis) for axis in range(3)),
        (0, 0) if incoming is None else incoming.stride(),
        frames,
        blocks,
        numbers[0],
        LATENTS=size,
        FREE_BITS=numbers[0] > 0,
        TILE_T=rows,
        TILE_Z=width,
        ACC=acc,
        **settings.SETTINGS.options,
    )


def _stop(
    reals: Sequence[Tensor],
    vectors: Sequence[Tensor],
    numbers: Sequence[float],
    incoming: Tensor | None,
    outputs: Sequence[Tensor | None],
    acc: Any,
) -> None:
    batch, steps = reals[0].shape
    tile = ELEMENTS * settings.SETTINGS.threads
    blocks = triton.cdiv(steps, tile)
    *coefficients, tail = numbers
    elements.stop_elements[(batch * blocks,)](
        reals[0],
        vectors[0],
        vectors[1] if len(vectors) == 2 else None,
        incoming,
        outputs[0],
        *(_strides((reals[0], incoming), axis) for axis in range(2)),
        steps,
        blocks,
        int(tail),
        *coefficients,
        TILE=tile,
        ACC=acc,
        **settings.SETTINGS.options,
    )


def _attention(
    reals: Sequence[Tensor],
    vectors: Sequence[Tensor],
    numbers: Sequence[float],
    incoming: Tensor | None,
    outputs: Sequence[Tensor | None],
    acc: Any,
) -> None:
    batch, heads, steps, symbols = reals[0].shape
    rows = ELEMENTS * settings.SETTINGS.threads // TEXT_WIDTH
    blocks = triton.cdiv(steps, rows)
    factor = reals[0] if incoming is None else incoming
    elements.attention_elements[(batch * heads * blocks,)](
        factor,
        *vectors,
        outputs[0],
        factor.stride(),
        heads,
        steps,
        symbols,
        blocks,
        1.0 / numbers[0],
        TILE_S=rows,
        TILE_N=TEXT_WIDTH,
        ACC=acc,
        **settings.SETTINGS.options,
    )


def _strides(tensors: Sequence[Tensor | None], axis: int) -> tuple[int, ...]:
    """Along one axis; 0 for absent tensors."""
    return tuple(0 if tensor is None else tensor.stride(axis) for tensor in tensors)
