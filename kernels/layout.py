"""From options and the way tensors lie in memory to tiles, program ranges and strides: all of a launch but
the addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttsfast.kernels import settings
from ttsfast.kernels.arguments import Axes, Numbers, Options, Ranges
from ttsfast.terms.spec import FUSED, LossInputs, LossSpec
from ttsfast.terms.state import StepState


class Gradients(NamedTuple):
    """Gradients of the inputs of the same names, None where none is wanted."""

    mel: tuple[Tensor | None, ...]
    """Two."""
    latents: tuple[Tensor | None, ...]
    """Of the posterior's mu and logvar and the prior's."""
    stop: Tensor | None
    attention: tuple[Tensor | None, ...]
    """One per layer."""


class Layout(NamedTuple):
    """One launch but its addresses."""

    grid: tuple[int, int, int]
    dtype: torch.dtype
    """Of the arithmetic and the report."""
    mel_strides: Any
    latent_strides: Any
    stop_strides: Any
    attention_strides: Any
    numbers: Numbers
    sizes: tuple[int, ...]
    """The seed, the axes and the ranges, in the order of the kernel's arguments."""
    options: Options
    """Of the forward pass."""


def differentiable(inputs: LossInputs) -> list[Tensor | None]:
    """The tensors that may need gradients: two predictions, four latents, stop logits, attention layers."""
    second = inputs.mel[1] if len(inputs.mel) == 2 else None
    latents = (*(inputs.posterior or (None, None)), *(inputs.prior or (None, None)))
    return [inputs.mel[0], second, *latents, inputs.stop_logits, *inputs.attention]


def arrange(flat: Sequence[Tensor | None]) -> Gradients:
    """Gradients from a list in the order of :func:`differentiable`."""
    return Gradients(tuple(flat[0:2]), tuple(flat[2:6]), flat[6], tuple(flat[7:]))


def lay_out(
    spec: LossSpec,
    inputs: LossInputs,
    gradients: Gradients,
    state: StepState | None,
    normalizer: Sequence[Tensor | float],
    grad_scale: Tensor | float,
) -> Layout:
    """The layout of a call.

    Args:
        normalizer: nothing, one total, or four counts; of these and ``grad_scale`` only the kinds matter,
            pointer or number.
    """
    batch, frames, bins = inputs.target.shape
    if batch == 0:
        # One program still runs, to write the report; it must find nothing to do.
        frames = 0
    ranges = _Dealer()
    mel_tile, mel_align, mel_strides, mel_range = _mel(spec, inputs, gradients, frames, ranges)
    latents, kl_tile, latent_strides, kl_range = _latents(inputs, gradients, batch, frames, ranges)
    stop_tile, stop_align, stop_strides, stop_range = _stop(inputs, gradients, batch, ranges)
    heads, attention_tile, attention_align, attention_strides, attention_range = _attention(
        inputs, gradients, batch, ranges
    )
    per_frame = inputs.posterior is not None and inputs.posterior[0].dim() == 3
    stop_size = 0 if inputs.stop_logits is None else inputs.stop_logits.shape[1]
    steps, symbols = inputs.attention[0].shape[-2:] if inputs.attention else (0, 0)
    bounds = ([] if inputs.stop_logits is None else [stop_size]) + ([steps] if inputs.attention else [])
    axes = Axes(batch, frames, min(bounds, default=0), stop_size, steps, symbols, spec.stop_tail_frames)
    options = Options(
        BACKWARD=False,
        IN_PLACE=False,
        ACTIVE=sum(1 << i for i, active in enumerate(spec.active[: len(FUSED)]) if active),
        BINS=bins,
        LATENTS=latents,
        HEADS=heads,
        LOSS=spec.mel_loss,
        SMOOTHING=smoothing(spec),
        BY_UTTERANCE=spec.normalization == "utterance",
        KL_PER_FRAME=per_frame,
        KL_BY="frames" if per_frame or spec.kl_normalization == "elbo" else "vectors",
        ELBO=spec.kl_normalization == "elbo",
        FREE_BITS=spec.kl_free_bits > 0,
        NORMALIZER={0: "none", 1: "scalar"}.get(len(normalizer), "counts"),
        NORMALIZER_ON_DEVICE=tuple(isinstance(part, Tensor) for part in normalizer),
        SCALE_ON_DEVICE=isinstance(grad_scale, Tensor),
        STATE=state is not None,
        METHOD="fixed" if state is None else state.method,
        ADVANCE=state is not None and state.advance,
        MEL_TILE=mel_tile,
        MEL_ALIGN=mel_align,
        KL_TILE=kl_tile,
        STOP_TILE=stop_tile,
        STOP_ALIGN=stop_align,
        ATTENTION_TILE=attention_tile,
        ATTENTION_ALIGN=attention_align,
        BATCH_BLOCK=settings.BATCH_BLOCK,
        REDUCE_BLOCK=settings.REDUCE_BLOCK,
        ACC=tl.float64 if inputs.compute_dtype() == torch.float64 else tl.float32,
    )
    dealt = Ranges(*mel_range, *kl_range, stop_range[0], stop_range[2], *attention_range[:2])
    return Layout(
        grid=(ranges.end, 1, 1),
        dtype=inputs.compute_dtype(),
        mel_strides=mel_strides,
        latent_strides=latent_strides,
        stop_strides=stop_strides,
        attention_strides=attention_strides,
        numbers=_numbers(spec, len(inputs.mel)),
        sizes=(_signed(spec.seed), *axes, *dealt),
        options=options,
    )


def smoothing(spec: LossSpec) -> str:
    """Of the target; an amount of 0 is none."""
    return spec.mel_smoothing if spec.mel_label_smoothing != 0 else "none"


class _Dealer:
    """Deals out program ids: each term takes the next ones."""

    def __init__(self) -> None:
        self.end = 0

    def take(self, units: int, tiles: int) -> tuple[int, int, int]:
        """(programs per unit, tiles per program, where the term's programs end)."""
        per_program = max(1, -(-units * tiles // settings.MAX_PROGRAMS))
        blocks = -(-tiles // per_program)
        self.end += units * blocks
        return max(blocks, 1), per_program, self.end


def _mel(
    spec: LossSpec, inputs: LossInputs, gradients: Gradients, frames: int, ranges: _Dealer
) -> tuple[tuple[int, ...], int, Any, tuple[int, int, int]]:
    """(tile, alignment, strides, programs)"""
    batch, _, bins = inputs.target.shape
    tensors = (*_padded(inputs.mel, 2), inputs.target, *gradients.mel)
    full_quads = spec.mel_smoothing != "noise" or bins % 4 == 0
    if full_quads and all(tensor is None or _is_one_run(tensor) for tensor in tensors):
        tile: tuple[int, ...] = (settings.mel_elements(frames * bins),)
        tiles = -(-frames * bins // tile[0])
        spread = [t.stride(0) for t in tensors if t is not None and batch > 1]
        align = settings.alignment(tensors, frames * bins, *spread)
        strides = _strides(tensors, 1)
    else:
        rows = settings.one_access(tensors) // settings.MEL_STRIDED_BINS
        tile = (rows, settings.MEL_STRIDED_BINS)
        tiles = -(-frames // rows)
        align = settings.alignment(tensors, frames)
        strides = _strides(tensors, 3)
    # At least one program in all: the last one to finish writes the report.
    return tile, align, strides, ranges.take(max(batch, 1), max(tiles, 1))


def _latents(
    inputs: LossInputs, gradients: Gradients, batch: int, frames: int, ranges: _Dealer
) -> tuple[int, tuple[int, int], Any, tuple[int, int, int]]:
    """(latents, tile, strides, programs)"""
    latents = (*(inputs.posterior or (None, None)), *(inputs.prior or (None, None)))
    if inputs.posterior is None:
        return 0, (1, 1), (), (1, 1, ranges.end)
    per_frame = inputs.posterior[0].dim() == 3
    # An utterance's only vector is a frame like any other.
    shaped = [t if t is None or t.dim() == 3 else t.unsqueeze(1) for t in (*latents, *gradients.latents)]
    size = inputs.posterior[0].shape[-1]
    width = min(settings.KL_WIDTH, triton.next_power_of_2(max(size, 1)))
    rows = max(1, settings.one_access(latents) // width) if per_frame else 1
    programs = ranges.take(batch, -(-frames // rows) if per_frame else 1)
    return size, (rows, width), _strides(shaped, 3), programs


def _stop(
    inputs: LossInputs, gradients: Gradients, batch: int, ranges: _Dealer
) -> tuple[int, int, Any, tuple[int, int, int]]:
    """(tile, alignment, strides, programs)"""
    logits = inputs.stop_logits
    if logits is None:
        return 1, 1, (), (1, 1, ranges.end)
    tensors = (logits, gradients.stop)
    tile = settings.STOP_ELEMENTS * settings.SETTINGS.threads
    align = settings.common_alignment(logits.shape[1], tensors)
    strides = tuple(() if t is None else t.stride() for t in tensors)
    blocks = -(-logits.shape[1] // tile)
    ranges.end += batch * blocks
    return tile, align, strides, (max(blocks, 1), 1, ranges.end)


def _attention(
    inputs: LossInputs, gradients: Gradients, batch: int, ranges: _Dealer
) -> tuple[tuple[int, ...], tuple[int, int], int, Any, tuple[int, int, int]]:
    """(heads before each layer, tile, alignment, strides, programs)"""
    if not inputs.attention:
        return (0,), (1, 1), 1, (), (1, 1, ranges.end)
    layers = [layer if layer.dim() == 4 else layer.unsqueeze(1) for layer in inputs.attention]
    outputs = [g if g is None or g.dim() == 4 else g.unsqueeze(1) for g in gradients.attention]
    heads = [0]
    for layer in layers:
        heads.append(heads[-1] + layer.shape[1])
    steps, symbols = layers[0].shape[2:]
    rows = settings.one_access(layers) // settings.ATTENTION_WIDTH
    strides = tuple(
        (*layer.stride(), *(() if output is None else output.stride()))
        for layer, output in zip(layers, outputs, strict=True)
    )
    align = settings.common_alignment(symbols, (*layers, *outputs))
    programs = ranges.take(batch * heads[-1], -(-steps // rows))
    return tuple(heads), (rows, settings.ATTENTION_WIDTH), align, strides, programs


def _numbers(spec: LossSpec, predictions: int) -> Numbers:
    negative, positive = spec.stop_coefficients
    return Numbers(
        keep=1.0 - spec.mel_label_smoothing,
        amount=spec.mel_label_smoothing,
        delta=spec.huber_delta,
        mel_floor=spec.mel_floor * predictions,
        free_bits=spec.kl_free_bits,
        stop_negative=negative,
        stop_positive=positive,
        stop_floors=spec.stop_floors,
        inverse_sigma=1.0 / spec.attention_sigma,
    )


def _is_one_run(tensor: Tensor) -> bool:
    """Whether each utterance's (T, C) lies in memory as one run; axes of one element may have any stride."""
    _, frames, bins = tensor.shape
    return (bins == 1 or tensor.stride(2) == 1) and (frames <= 1 or tensor.stride(1) == bins)


def _strides(tensors: Sequence[Tensor | None], axes: int) -> tuple[tuple[int, ...], ...]:
    """Strides of the first axes by axis, then tensor; 0 for absent tensors."""
    return tuple(tuple(0 if t is None else t.stride(axis) for t in tensors) for axis in range(axes))


def _padded(tensors: Sequence[Tensor], count: int) -> tuple[Tensor | None, ...]:
    return (*tensors, *(None,) * (count - len(tensors)))


def _signed(seed: int) -> int:
    """The low 32 bits as the int32 of the same bits, so that every seed has one type."""
    low = seed & 0xFFFFFFFF
    return low - (1 << 32) if low >= 1 << 31 else low
