"""From tensors to launches of the element-wise kernels; one launch forward, one backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttsfast.kernels import elements, settings
from ttsfast.losses.elements import ElementCall
from ttsfast.terms.spec import compute_dtype

ELEMENTS = 4
"""Of a tile, per thread."""
WIDTH = 16
"""Bins of a mel tile: 16 divide the usual 80."""
KL_WIDTH = 256
TEXT_WIDTH = 64


def run(call: ElementCall) -> None:
    """Write the values of the call's term or, where something arrived, each wanted gradient.

    Its outputs are contiguous.
    """
    reals, outputs = call.reals, call.outputs
    if reals[0].numel() == 0 and (outputs[0] is None or outputs[0].numel() == 0):
        return
    options = {
        "ACC": tl.float64 if compute_dtype(reals) == torch.float64 else tl.float32,
        **settings.SETTINGS.options,
    }
    launch = {"mel": _mel, "kl": _kl, "stop": _stop, "attention": _attention}[call.term]
    with torch.cuda.device_of(reals[0]):
        launch(call._replace(vectors=[vector.contiguous() for vector in call.vectors]), options)


def _mel(call: ElementCall, options: dict[str, Any]) -> None:
    x, y = call.reals
    lengths, *shift = call.vectors
    batch, frames, bins = x.shape
    rows = ELEMENTS * settings.SETTINGS.threads // WIDTH
    blocks = triton.cdiv(frames, rows)
    elements.mel_elements[(batch * blocks,)](
        x,
        y,
        shift[0] if shift else None,
        lengths,
        call.incoming,
        call.outputs[0],
        tuple(_strides((x, y, call.incoming), axis) for axis in range(3)),
        frames,
        blocks,
        *call.numbers,
        BINS=bins,
        TILE_T=rows,
        TILE_C=WIDTH,
        **options,
    )


def _kl(call: ElementCall, options: dict[str, Any]) -> None:
    (free_bits,), incoming = call.numbers, call.incoming
    batch, frames, size = call.reals[0].shape
    width = min(KL_WIDTH, triton.next_power_of_2(max(size, 1)))
    rows = max(1, ELEMENTS * settings.SETTINGS.threads // width)
    blocks = triton.cdiv(frames, rows)
    latents = _four(call.reals)
    elements.kl_elements[(batch * blocks,)](
        latents,
        call.vectors[0],
        incoming,
        call.outputs[0] if incoming is None else None,
        _four([] if incoming is None else call.outputs),
        tuple(_strides(latents, axis) for axis in range(3)),
        (0, 0) if incoming is None else incoming.stride(),
        frames,
        blocks,
        free_bits,
        LATENTS=size,
        FREE_BITS=free_bits > 0,
        TILE_T=rows,
        TILE_Z=width,
        **options,
    )


def _stop(call: ElementCall, options: dict[str, Any]) -> None:
    (logits,) = call.reals
    lengths, *truncated = call.vectors
    *coefficients, tail = call.numbers
    batch, steps = logits.shape
    tile = ELEMENTS * settings.SETTINGS.threads
    blocks = triton.cdiv(steps, tile)
    elements.stop_elements[(batch * blocks,)](
        logits,
        lengths,
        truncated[0] if truncated else None,
        call.incoming,
        call.outputs[0],
        *(_strides((logits, call.incoming), axis) for axis in range(2)),
        steps,
        blocks,
        int(tail),
        *coefficients,
        TILE=tile,
        **options,
    )


def _attention(call: ElementCall, options: dict[str, Any]) -> None:
    (weights,), (sigma,) = call.reals, call.numbers
    batch, heads, steps, symbols = weights.shape
    rows = ELEMENTS * settings.SETTINGS.threads // TEXT_WIDTH
    blocks = triton.cdiv(steps, rows)
    factor = weights if call.incoming is None else call.incoming
    elements.attention_elements[(batch * heads * blocks,)](
        factor,
        *call.vectors,
        call.outputs[0],
        factor.stride(),
        heads,
        steps,
        symbols,
        blocks,
        1.0 / sigma,
        TILE_S=rows,
        TILE_N=TEXT_WIDTH,
        **options,
    )


def _four(tensors: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    return (*tensors, *[None] * (4 - len(tensors)))


def _strides(tensors: Sequence[Tensor | None], axis: int) -> tuple[int, ...]:
    """Along one axis; 0 for absent tensors."""
    return tuple(0 if tensor is None else tensor.stride(axis) for tensor in tensors)
