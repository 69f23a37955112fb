"""From options and tensors to one launch: block sizes, program ranges, strides, outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from ttsfast.kernels.backward import rescale
from ttsfast.kernels.forward import loss_forward

from ttsfast.losses.counts import Counts
from ttsfast.losses.spec import LossInputs, LossSpec, StepState


class Settings(NamedTuple):
    """How kernels are cut for one maker's GPUs."""

    threads: int
    """Of a program. A tile gives each one or two accesses of 16 bytes to each of its tensors; more would cost
    registers, and with them the occupancy that hides the latency of memory."""
    options: dict[str, Any]
    """Of the compiler."""


NUM_WARPS = 4
NVIDIA = Settings(
    threads=32 * NUM_WARPS,
    # Six programs on a multiprocessor. Left to itself the assembler spills a few registers for one more.
    options={"num_warps": NUM_WARPS, "enable_fp_fusion": True, "maxnreg": 80},
)
AMD = Settings(threads=64 * NUM_WARPS, options={"num_warps": NUM_WARPS, "enable_fp_fusion": True})
SETTINGS = NVIDIA if torch.version.hip is None else AMD

MEL_ELEMENTS = 8
"""Of a mel tile, per thread: one access of bf16, two of float32, to each tensor."""
MEL_STRIDED_BINS = 16
"""Of a tile of a mel with gaps or transposed: 16 divide the usual 80, and leave 32 frames or more, a whole
line where time is contiguous."""
MEL_STRIDED_ELEMENTS = 4
KL_WIDTH = 256
"""Widest latent vector that is one row of a tile."""
STOP_ELEMENTS = 2
ATTENTION_WIDTH = 64
"""Symbols of an attention tile; it has as many steps as give each thread one 16-byte access."""
MAX_PROGRAMS = 4096
"""Programs of one term: several times what any GPU holds at once, and few enough that the last program
sums their partials in a few microseconds. Larger inputs give each program more tiles."""
BATCH_BLOCK = 128
REDUCE_BLOCK = 512


class Gradients(NamedTuple):
    """Gradients of the inputs of the same names, None where none is wanted."""

    mel: tuple[Tensor | None, ...]
    """Two."""
    latents: tuple[Tensor | None, ...]
    """Of the posterior's mu and logvar and the prior's."""
    stop: Tensor | None
    attention: tuple[Tensor | None, ...]
    """One per layer."""


class Launched(NamedTuple):
    """What the forward kernel writes beside the gradients."""

    total: Tensor
    report: Tensor
    """(13,) values, floors and weights of the four terms, and the gradient scale that was applied."""
    integers: Tensor
    """(2,) int64: valid frames, and how many lengths lay outside their axes and were clamped."""


def differentiable(inputs: LossInputs) -> list[Tensor | None]:
    """The tensors that may need gradients: two predictions, four latents, stop logits, attention layers."""
    second = inputs.mel[1] if len(inputs.mel) == 2 else None
    latents = (*(inputs.posterior or (None, None)), *(inputs.prior or (None, None)))
    return [inputs.mel[0], second, *latents, inputs.stop_logits, *inputs.attention]


def arrange(flat: Sequence[Tensor | None]) -> Gradients:
    """Gradients from a list in the order of :func:`differentiable`."""
    return Gradients(tuple(flat[0:2]), tuple(flat[2:6]), flat[6], tuple(flat[7:]))


def forward(
    spec: LossSpec,
    inputs: LossInputs,
    gradients: Gradients,
    weights: Tensor | StepState,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
    step: Tensor,
    counter: Tensor,
) -> Launched:
    """Launch the forward kernel on the current stream of the inputs' device.

    Args:
        spec, inputs, normalizer, grad_scale, step: as a loss backend gets them, all on one device.
        gradients: where to write the gradients, every element of them.
        weights: (4,), or the state that they follow from and that the launch moves on.
        counter: () int32, 0; the same tensor must not serve two streams at a time.
    """
    dtype = inputs.compute_dtype
    device = inputs.target.device
    grid, arguments, options = prepare(spec, inputs, gradients, weights, normalizer, grad_scale, step)
    total = torch.empty((), dtype=dtype, device=device)
    report = torch.empty(13, dtype=dtype, device=device)
    integers = torch.empty(2, dtype=torch.int64, device=device)
    partials = torch.empty(grid[0], dtype=dtype, device=device)
    with torch.cuda.device_of(inputs.target):
        loss_forward[grid](
            total=total,
            report=report,
            integers=integers,
            partials=partials,
            counter=counter,
            **arguments,
            **options,
        )
    return Launched(total, report, integers)


def prepare(
    spec: LossSpec,
    inputs: LossInputs,
    gradients: Gradients,
    weights: Tensor | StepState,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
    step: Tensor,
) -> tuple[tuple[int], dict[str, Any], dict[str, Any]]:
    """(grid, arguments but the outputs, compile options) of a forward launch."""
    batch, frames, bins = inputs.target.shape
    if batch == 0:
        # One program still runs, to write the report; it must find nothing to do.
        frames = 0
    ranges = _Ranges()
    arguments: dict[str, Any] = {}
    _mel(arguments, ranges, spec, inputs, gradients, batch, frames, bins)
    _latents(arguments, ranges, inputs, gradients, batch, frames)
    _stop(arguments, ranges, inputs, gradients, batch)
    _attention(arguments, ranges, inputs, gradients, batch)
    _scalars(arguments, spec, normalizer, grad_scale, inputs.target.device)
    axes = [layer.shape[-2] for layer in inputs.attention]
    if inputs.stop_logits is not None:
        axes.append(inputs.stop_logits.shape[1])
    state = weights if isinstance(weights, StepState) else None
    arguments.update(
        mel_lengths=inputs.mel_lengths.contiguous(),
        step_lengths=_contiguous(inputs.step_lengths if axes else None),
        text_lengths=_contiguous(inputs.text_lengths if inputs.attention else None),
        truncated=_contiguous(inputs.truncated),
        weights=weights if state is None else spec.base_weights,
        schedule=None if state is None else state.schedule,
        state=None if state is None else tuple(state[1:7]),
        step=step,
        batch=batch,
        frames=frames,
        steps=min(axes, default=0),
        seed=_signed(spec.seed),
        ACTIVE=sum(1 << i for i, active in enumerate(spec.active) if active),
        STATE=state is not None,
        METHOD="fixed" if state is None else state.method,
        ADVANCE=state is not None and state.advance,
        BY_UTTERANCE=spec.normalization == "utterance",
        BATCH_BLOCK=BATCH_BLOCK,
        REDUCE_BLOCK=REDUCE_BLOCK,
        ACC=tl.float64 if inputs.compute_dtype == torch.float64 else tl.float32,
    )
    return (ranges.end,), arguments, SETTINGS.options


def backward(
    gradients: Sequence[Tensor], outputs: Sequence[Tensor], incoming: Tensor, applied: Tensor
) -> None:
    """Launch the backward kernel: ``outputs = gradients * (incoming / applied)``, all dense.

    Where an output is its gradient itself, nothing is read or written if the two scalars agree.
    """
    # One launch serves the tensors of a loss; a list longer than that comes from many attention layers.
    for start in range(0, len(gradients), _RESCALED):
        _rescale(gradients[start : start + _RESCALED], outputs[start : start + _RESCALED], incoming, applied)


_RESCALED = 16


def _rescale(
    gradients: Sequence[Tensor], outputs: Sequence[Tensor], incoming: Tensor, applied: Tensor
) -> None:
    padding = (None,) * (_RESCALED - len(gradients))
    tile = MEL_ELEMENTS * SETTINGS.threads
    sizes = [gradient.numel() for gradient in gradients]
    tiles = max(1, triton.cdiv(sum(triton.cdiv(size, tile) for size in sizes), MAX_PROGRAMS))
    ends, end = [], 0
    for size in sizes:
        end += triton.cdiv(size, tile * tiles)
        ends.append(end)
    if end == 0:
        return
    filler = [0] * len(padding)
    names = [f"size{i}" for i in range(_RESCALED)] + [f"end{i}" for i in range(_RESCALED)]
    in_place = all(a.data_ptr() == b.data_ptr() for a, b in zip(gradients, outputs, strict=True))
    with torch.cuda.device_of(incoming):
        rescale[(end,)](
            (*gradients, *padding),
            (*outputs, *padding),
            incoming,
            applied,
            tiles,
            **dict(zip(names, [*sizes, *filler, *ends, *filler], strict=True)),
            IN_PLACE=in_place,
            TILE=tile,
            **SETTINGS.options,
        )


class _Ranges:
    """Deals out program ids: each term takes the next ``units``."""

    def __init__(self) -> None:
        self.end = 0

    def take(self, batch: int, tiles: int, looped: bool = True) -> tuple[int, int, int]:
        """(programs per unit, tiles per program, where the term's programs end) for ``batch`` units."""
        per_program = max(1, -(-batch * tiles // MAX_PROGRAMS)) if looped else 1
        blocks = -(-tiles // per_program)
        self.end += batch * blocks
        return max(blocks, 1), per_program, self.end


def _mel(
    arguments: dict[str, Any],
    ranges: _Ranges,
    spec: LossSpec,
    inputs: LossInputs,
    gradients: Gradients,
    batch: int,
    frames: int,
    bins: int,
) -> None:
    predictions = (inputs.mel[0], inputs.mel[1] if len(inputs.mel) == 2 else None)
    tensors = (*predictions, inputs.target, *gradients.mel)
    whole_quads = spec.mel_smoothing != "noise" or bins % 4 == 0
    if whole_quads and all(tensor is None or _without_gaps(tensor) for tensor in tensors):
        tile: tuple[int, ...] = (_tile(MEL_ELEMENTS * SETTINGS.threads, frames * bins),)
        tiles = -(-frames * bins // tile[0])
        align = _align(frames * bins, *(t.stride(0) for t in tensors if t is not None and batch > 1))
    else:
        tile = (MEL_STRIDED_ELEMENTS * SETTINGS.threads // MEL_STRIDED_BINS, MEL_STRIDED_BINS)
        tiles = -(-frames // tile[0])
        align = _align(frames)
    # At least one program in all: the last one to finish writes the report.
    blocks, per_program, end = ranges.take(max(batch, 1), max(tiles, 1))
    smoothing = spec.mel_smoothing if spec.mel_label_smoothing != 0 else "none"
    arguments.update(
        predictions=predictions,
        target=inputs.target,
        mel_gradients=gradients.mel,
        mel_strides=_strides(tensors, (0, 1, 2)) if len(tile) == 2 else _strides(tensors, (0,)),
        mean=_contiguous(inputs.mel_mean if smoothing == "mean" else None),
        std=_contiguous(inputs.mel_std if smoothing == "noise" else None),
        mel_blocks=blocks,
        mel_tiles=per_program,
        mel_units=end,
        keep=1.0 - spec.mel_label_smoothing,
        amount=spec.mel_label_smoothing,
        delta=spec.huber_delta,
        mel_floor=spec.mel_floor * len(inputs.mel),
        BINS=bins,
        LOSS=spec.mel_loss,
        SMOOTHING=smoothing,
        MEL_TILE=tile,
        MEL_ALIGN=align,
    )


def _latents(
    arguments: dict[str, Any],
    ranges: _Ranges,
    inputs: LossInputs,
    gradients: Gradients,
    batch: int,
    frames: int,
) -> None:
    latents = (*(inputs.posterior or (None, None)), *(inputs.prior or (None, None)))
    per_frame = inputs.posterior is not None and inputs.posterior[0].dim() == 3
    # An utterance's only vector is a frame like any other.
    shaped = [t if t is None or t.dim() == 3 else t.unsqueeze(1) for t in (*latents, *gradients.latents)]
    size = 0 if inputs.posterior is None else inputs.posterior[0].shape[-1]
    width = min(KL_WIDTH, triton.next_power_of_2(max(size, 1)))
    rows = max(1, _one_access(latents) // width) if per_frame else 1
    blocks, per_program, end = 1, 1, ranges.end
    if inputs.posterior is not None:
        blocks, per_program, end = ranges.take(batch, -(-frames // rows) if per_frame else 1)
    arguments.update(
        latents=latents,
        latent_gradients=gradients.latents,
        latent_strides=_strides(shaped, (0, 1, 2)),
        kl_blocks=blocks,
        kl_tiles=per_program,
        kl_units=end,
        LATENTS=size,
        KL_PER_FRAME=per_frame,
        KL_TILE=(rows, width),
    )


def _stop(
    arguments: dict[str, Any], ranges: _Ranges, inputs: LossInputs, gradients: Gradients, batch: int
) -> None:
    logits = inputs.stop_logits
    size = 0 if logits is None else logits.shape[1]
    tile = _tile(STOP_ELEMENTS * SETTINGS.threads, size)
    blocks, end = 1, ranges.end
    if logits is not None:
        blocks, _, end = ranges.take(batch, -(-size // tile), looped=False)
    arguments.update(
        logits=logits,
        logit_gradient=gradients.stop,
        logit_strides=_strides((logits, gradients.stop), (0, 1), by_tensor=True),
        stop_size=size,
        stop_blocks=blocks,
        stop_units=end,
        STOP_TILE=tile,
    )


def _attention(
    arguments: dict[str, Any], ranges: _Ranges, inputs: LossInputs, gradients: Gradients, batch: int
) -> None:
    layers = [layer if layer.dim() == 4 else layer.unsqueeze(1) for layer in inputs.attention]
    outputs = [g if g is None or g.dim() == 4 else g.unsqueeze(1) for g in gradients.attention]
    heads = [0]
    for layer in layers:
        heads.append(heads[-1] + layer.shape[1])
    steps, symbols = layers[0].shape[2:] if layers else (0, 0)
    blocks, per_program = 1, 1
    rows = 1
    if layers:
        rows = _one_access(layers) // ATTENTION_WIDTH
        blocks, per_program, _ = ranges.take(batch * heads[-1], -(-steps // rows))
    align = 1
    present = [tensor for tensor in (*layers, *outputs) if tensor is not None]
    if all(tensor.stride(3) == 1 for tensor in present):
        align = _align(symbols, *(t.stride(axis) for t in present for axis in (0, 1, 2) if t.shape[axis] > 1))
    arguments.update(
        layers=inputs.attention,
        layer_gradients=gradients.attention,
        layer_strides=tuple(
            (*layer.stride(), *((0, 0, 0, 0) if output is None else output.stride()))
            for layer, output in zip(layers, outputs, strict=True)
        ),
        attention_steps=steps,
        symbols=symbols,
        attention_blocks=blocks,
        attention_tiles=per_program,
        HEADS=tuple(heads),
        ATTENTION_TILE=(rows, ATTENTION_WIDTH),
        ATTENTION_ALIGN=align,
    )


def _scalars(
    arguments: dict[str, Any],
    spec: LossSpec,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
    device: torch.device,
) -> None:
    numbers: tuple[Tensor | float, ...]
    if normalizer is None:
        numbers, kind, on_device = (), "none", False
    else:
        parts = tuple(normalizer) if isinstance(normalizer, tuple) else (normalizer,)
        kind = "counts" if isinstance(normalizer, tuple) else "scalar"
        on_device = any(isinstance(part, Tensor) for part in parts)
        numbers = tuple(_scalar(part, device) if on_device else float(part) for part in parts)
    (negative_below, negative_above), (positive_below, positive_above) = spec.stop_coefficients
    floor_negative, floor_positive = spec.stop_floors
    arguments.update(
        normalizer=numbers,
        grad_scale=_scalar(grad_scale, device) if isinstance(grad_scale, Tensor) else float(grad_scale or 1),
        tail_frames=spec.stop_tail_frames,
        free_bits=spec.kl_free_bits,
        negative_below=negative_below,
        negative_above=negative_above,
        positive_below=positive_below,
        positive_above=positive_above,
        floor_negative=floor_negative,
        floor_positive=floor_positive,
        inverse_sigma=1.0 / spec.attention_sigma,
        KL_BY="frames" if arguments["KL_PER_FRAME"] or spec.kl_normalization == "elbo" else "vectors",
        ELBO=spec.kl_normalization == "elbo",
        FREE_BITS=spec.kl_free_bits > 0,
        NORMALIZER=kind,
        NORMALIZER_ON_DEVICE=on_device,
        SCALE_ON_DEVICE=isinstance(grad_scale, Tensor),
    )


def _tile(largest: int, size: int) -> int:
    """A power of two that covers ``size`` elements, within bounds."""
    return min(largest, max(128, triton.next_power_of_2(max(size, 1))))


def _one_access(tensors: Sequence[Tensor | None]) -> int:
    """Elements of a tile that gives each thread 16 bytes of the narrowest tensor."""
    return SETTINGS.threads * 16 // min(t.element_size() for t in tensors if t is not None)


def _contiguous(vector: Tensor | None) -> Tensor | None:
    return None if vector is None else vector.contiguous()


def _without_gaps(tensor: Tensor) -> bool:
    """Whether each utterance's (T, C) lies in memory as one run; axes of one element may have any stride."""
    _, frames, bins = tensor.shape
    return (bins == 1 or tensor.stride(2) == 1) and (frames <= 1 or tensor.stride(1) == bins)


def _strides(
    tensors: Sequence[Tensor | None], axes: tuple[int, ...], by_tensor: bool = False
) -> tuple[tuple[int, ...], ...]:
    """Strides by axis, then tensor (or the other way round); 0 for absent tensors."""
    if by_tensor:
        return tuple(tuple(0 if t is None else t.stride(axis) for axis in axes) for t in tensors)
    return tuple(tuple(0 if t is None else t.stride(axis) for t in tensors) for axis in axes)


def _align(*sizes: int) -> int:
    """The largest power of two up to 8, the elements of a 16-byte vector of bf16, that divides all sizes."""
    return math.gcd(8, *sizes)


def _scalar(value: Tensor | float, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(device)
    return torch.full((), float(value), device=device)


def _signed(seed: int) -> int:
    """The low 32 bits as the int32 of the same bits, so that every seed has one type."""
    low = seed & 0xFFFFFFFF
    return low - (1 << 32) if low >= 1 << 31 else low
