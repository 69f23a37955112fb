"""Launches the kernel: the first time for a layout through Triton's compiler, then straight from a table.

Triton works out anew at each launch what to compile for; at a hundred arguments that takes longer than the
kernel itself. Everything that decides it goes into the key of a table here, and a launch whose key is known
hands addresses to the compiled kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from ttsfast.kernels import report, settings
from ttsfast.kernels.arguments import Attention, Latents, Lengths, Mel, Results, Stop, Weighting
from ttsfast.kernels.counter import counter
from ttsfast.kernels.fused import fused_loss
from ttsfast.kernels.layout import Gradients, Layout, differentiable, flatten, lay_out

from ttsfast.losses.counts import Counts
from ttsfast.losses.spec import LossInputs, LossSpec, StepState

LAYOUTS = 4096
"""Layouts remembered; every batch shape is one."""


class Launched(NamedTuple):
    """What the forward pass writes beside the gradients."""

    total: Tensor
    """()"""
    report: Tensor
    """(5, 4): values, floors and weights of the four terms, what their sums were multiplied by, and first in
    the last row the gradient scale that was applied."""
    integers: Tensor
    """(3,) int64: valid frames, how many lengths lay outside their axes and were clamped, the noise step."""
    call: Call
    """For :func:`backward`; holds no total, which would lead back to itself."""


class Call(NamedTuple):
    """What both passes of one call are about."""

    plan: _Plan
    inputs: LossInputs
    """Every vector without gaps."""
    gradients: Gradients
    report: Tensor
    integers: Tensor
    addresses: list[int | None]
    """Of the inputs and the gradients, which this holds."""


class _Plan:
    """One layout and the kernels compiled for it."""

    __slots__ = ("backward", "kernels", "layout", "spec")

    def __init__(self, spec: LossSpec, layout: Layout) -> None:
        # Kept alive: the key of the table holds its identity.
        self.spec = spec
        self.layout = layout
        options = layout.options._replace(BACKWARD=True, METHOD="fixed", ADVANCE=False)
        self.backward = {in_place: options._replace(IN_PLACE=in_place) for in_place in (False, True)}
        self.kernels: dict[Any, Any] = {}


_plans: dict[tuple[Any, ...], _Plan] = {}


def forward(
    spec: LossSpec,
    inputs: LossInputs,
    gradients: Gradients,
    weights: Tensor | StepState,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
    step: Tensor,
) -> Launched:
    """Launch the forward pass on the current stream of the inputs' device.

    Args:
        spec, inputs, normalizer, grad_scale, step: as a loss backend gets them.
        gradients: where to write the gradients, every element of them.
        weights: (4,), or the state that they follow from and that the launch moves on.
    """
    device = inputs.target.device
    inputs = _without_gaps(inputs)
    parts = normalizer if isinstance(normalizer, tuple) else () if normalizer is None else (normalizer,)
    counts = [_scalar(part, device) for part in parts]
    scale = 1.0 if grad_scale is None else _scalar(grad_scale, device)
    state = weights if isinstance(weights, StepState) else None
    held = [weights] if state is None else state[1:8]

    terms = [*_vectors(inputs), inputs.target, *differentiable(inputs), *flatten(gradients)]
    others = [*held, step, *(part for part in (*counts, scale) if isinstance(part, Tensor))]
    addresses = [None if tensor is None else tensor.data_ptr() for tensor in terms]
    key = (
        id(spec),
        device,
        None if state is None else (state.method, state.advance),
        *[None if t is None else (t.dtype, t.shape, t.stride()) for t in terms],
        *[t.dtype for t in others],
        *[isinstance(part, Tensor) for part in (*counts, scale)],
        # The compiler is told which addresses are multiples of 16.
        *[address and address & 15 for address in addresses],
        *[t.data_ptr() & 15 for t in others],
    )
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= LAYOUTS:
            _plans.clear()
        plan = _plans[key] = _Plan(spec, lay_out(spec, inputs, gradients, state, counts, scale))

    dtype = plan.layout.dtype
    total = torch.empty((), dtype=dtype, device=device)
    table = torch.empty((report.ROWS, 4), dtype=dtype, device=device)
    integers = torch.empty(3, dtype=torch.int64, device=device)
    results = [total, table, integers, torch.empty(plan.layout.grid[0], dtype=dtype, device=device)]
    results.append(counter(device))
    call = Call(plan, inputs, gradients, table, integers, addresses)
    kernel = plan.kernels.get("forward")
    if kernel is not None:
        terms = addresses
        results, counts = [tensor.data_ptr() for tensor in results], list(map(_address, counts))
        held, step, scale = [tensor.data_ptr() for tensor in held], step.data_ptr(), _address(scale)
    if state is None:
        weighting = Weighting(held[0], None, None, step, tuple(counts), scale)
    else:
        weighting = Weighting(spec.base_weights, held[6], tuple(held[:6]), step, tuple(counts), scale)
    _launch("forward", call, terms, weighting, Results(*results), None, plan.layout.options)
    return Launched(total, table, integers, call)


def backward(call: Call, outputs: Gradients, incoming: Tensor) -> None:
    """Launch the backward pass: ``outputs`` become the gradients times ``incoming``.

    Where they are those of the forward pass, nothing is read or written if it had expected that factor.
    """
    plan = call.plan
    in_place = outputs is call.gradients
    terms: Sequence[Any] = call.addresses
    pointers: Sequence[Any] = (call.report, call.integers, incoming)
    if plan.kernels.get(in_place) is None or not in_place:
        inputs = call.inputs
        terms = [*_vectors(inputs), inputs.target, *differentiable(inputs), *flatten(outputs)]
    if plan.kernels.get(in_place) is not None:
        terms = terms if in_place else [None if tensor is None else tensor.data_ptr() for tensor in terms]
        pointers = [tensor.data_ptr() for tensor in pointers]
    results = Results(None, pointers[0], pointers[1], None, None)
    _launch(in_place, call, terms, None, results, pointers[2], plan.backward[in_place])


def _launch(
    kind: str | bool,
    call: Call,
    terms: Sequence[Any],
    weighting: Weighting | None,
    results: Results,
    incoming: Any,
    options: Any,
) -> None:
    """With tensors where there is no compiled kernel of this kind yet, with addresses where there is."""
    layout, kernels = call.plan.layout, call.plan.kernels
    arguments = (
        *_groups(terms, layout),
        weighting,
        results,
        incoming,
        layout.numbers,
        *layout.sizes,
        options,
    )
    device = call.inputs.target.device
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        # Triton launches on the current device.
        with torch.cuda.device(device):
            _start(kernels, kind, layout.grid, arguments)
    else:
        _start(kernels, kind, layout.grid, arguments)


def _start(
    kernels: dict[Any, Any], kind: Any, grid: tuple[int, int, int], arguments: tuple[Any, ...]
) -> None:
    kernel = kernels.get(kind)
    if kernel is not None:
        kernel[grid](*arguments)
        return
    compiled = fused_loss[grid](*arguments, **settings.SETTINGS.options)
    # The interpreter compiles nothing.
    if compiled is not None:
        kernels[kind] = compiled


def _vectors(inputs: LossInputs) -> tuple[Tensor | None, ...]:
    return (
        inputs.mel_lengths,
        inputs.step_lengths,
        inputs.text_lengths,
        inputs.truncated,
        inputs.mel_mean,
        inputs.mel_std,
    )


def _groups(terms: Sequence[Any], layout: Layout) -> tuple[Any, ...]:
    """The kernel's arguments that both passes share, from tensors or their addresses in one list."""
    lengths, steps, text, truncated, mean, std, target, y0, y1, *rest = terms
    layers = (len(rest) - 12) // 2
    stop, attention = rest[4], tuple(rest[5 : 5 + layers])
    g0, g1, *slopes = rest[5 + layers :]
    smoothing = layout.options.SMOOTHING
    return (
        Lengths(
            lengths,
            steps if layout.stop_strides or layout.attention_strides else None,
            text if layout.attention_strides else None,
            truncated,
        ),
        Mel(
            (y0, y1),
            target,
            (g0, g1),
            mean if smoothing == "mean" else None,
            std if smoothing == "noise" else None,
            layout.mel_strides,
        ),
        Latents(tuple(rest[:4]), tuple(slopes[:4]), layout.latent_strides),
        Stop(stop, slopes[4], layout.stop_strides),
        Attention(attention, tuple(slopes[5:]), layout.attention_strides),
    )


def _address(value: Any) -> Any:
    return value.data_ptr() if isinstance(value, Tensor) else value


def _without_gaps(inputs: LossInputs) -> LossInputs:
    """With every vector contiguous."""
    if all(vector is None or vector.is_contiguous() for vector in _vectors(inputs)):
        return inputs
    names = ("mel_lengths", "step_lengths", "text_lengths", "truncated", "mel_mean", "mel_std")
    vectors = zip(names, _vectors(inputs), strict=True)
    return inputs._replace(**{name: v if v is None else v.contiguous() for name, v in vectors})


def _scalar(value: Tensor | float, device: torch.device) -> Tensor | float:
    """A number, or a tensor of the device: one on the host costs no wait to read."""
    if not isinstance(value, Tensor):
        return float(value)
    if value.device == device:
        return value
    return float(value) if value.device.type == "cpu" else value.to(device)
