"""Launches the kernel: the first time for a layout through Triton's compiler, then straight from a table.

Triton works out anew at each launch what to compile for; at a hundred arguments that takes longer than the
kernel itself. Everything that decides it goes into the key of a table here, and a launch whose key is known
hands addresses to the compiled kernel. What varies from launch to launch travels as one list: the terms'
tensors, then what else the pass is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from ttsfast.kernels import report, settings
from ttsfast.kernels.arguments import Attention, Latents, Lengths, Mel, Results, Stop, Weighting
from ttsfast.kernels.counter import counter
from ttsfast.kernels.fused import fused_loss
from ttsfast.kernels.layout import Gradients, Layout, differentiable, flatten, lay_out
from ttsfast.kernels.starter import Slot, Starter, stream_of

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
    """One layout, and the kernels compiled for it."""

    __slots__ = ("layout", "spec", "starters")

    def __init__(self, spec: LossSpec, layout: Layout) -> None:
        # Kept alive: the key of the table holds its identity.
        self.spec = spec
        self.layout = layout
        self.starters: dict[str | bool, Starter] = {}
        """``"forward"``, and the backward passes by whether they are in place."""


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
        gradients: where to write the gradients, every element of them, laid out as ``torch.empty_like`` does.
        weights: (4,), or the state that they follow from and that the launch moves on.
    """
    device = inputs.target.device
    inputs = _without_gaps(inputs)
    parts = normalizer if isinstance(normalizer, tuple) else () if normalizer is None else (normalizer,)
    counts = [_scalar(part, device) for part in parts]
    scale = 1.0 if grad_scale is None else _scalar(grad_scale, device)
    state = weights if isinstance(weights, StepState) else None

    read = [*_vectors(inputs), inputs.target, *differentiable(inputs)]
    written = flatten(gradients)
    terms = [*read, *written]
    others = [*([weights] if state is None else state[1:8]), step, *counts, scale]
    addresses = [None if tensor is None else tensor.data_ptr() for tensor in terms]
    held = [t.data_ptr() if isinstance(t, Tensor) else t for t in others]
    key = (
        id(spec),
        device,
        None if state is None else (state.method, state.advance),
        *[None if t is None else (t.dtype, t.shape, t.stride()) for t in read],
        # The rest of their layout follows from that of the inputs.
        *[None if t is None else t.dtype for t in written],
        *[t.dtype if isinstance(t, Tensor) else None for t in others],
        # The compiler is told which addresses are multiples of 16.
        *[address and address & 15 for address in addresses],
        *[value & 15 if isinstance(value, int) else None for value in held],
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
    partials = torch.empty(plan.layout.grid[0], dtype=dtype, device=device)
    starter = plan.starters.get("forward")
    with _current(device):
        results = [total, table, integers, partials, counter(device)]
        if starter is None:
            _compile(plan, "forward", [*terms, *others, *results])
        else:
            starter([*addresses, *held, *[tensor.data_ptr() for tensor in results]], stream_of(device))
    call = Call(plan, inputs, gradients, table, integers, addresses)
    return Launched(total, table, integers, call)


def backward(call: Call, outputs: Gradients, incoming: Tensor) -> None:
    """Launch the backward pass: ``outputs`` become the gradients times ``incoming``.

    Where they are those of the forward pass, nothing is read or written if it had expected that factor.
    """
    plan, inputs = call.plan, call.inputs
    in_place = outputs is call.gradients
    others = [call.report, call.integers, incoming]
    device = incoming.device
    starter = plan.starters.get(in_place)
    with _current(device):
        if starter is None:
            terms = [*_vectors(inputs), inputs.target, *differentiable(inputs), *flatten(outputs)]
            _compile(plan, in_place, [*terms, *others])
            return
        addresses = call.addresses
        if not in_place:
            written = [None if tensor is None else tensor.data_ptr() for tensor in flatten(outputs)]
            addresses = [*addresses[: -len(written)], *written]
        starter([*addresses, *[tensor.data_ptr() for tensor in others]], stream_of(device))


def _compile(plan: _Plan, kind: str | bool, values: Sequence[Any]) -> None:
    """Launch through Triton, and keep what it compiled.

    Raises RuntimeError where its cache cannot be written.
    """
    grid = plan.layout.grid
    try:
        kernel = fused_loss[grid](*_arguments(plan, kind, values), **settings.SETTINGS.options)
    except OSError as error:
        raise RuntimeError(
            f"Triton cannot keep the kernels it compiles ({error}): set TRITON_CACHE_DIR to a folder that "
            "can be written"
        ) from error
    # The interpreter compiles nothing.
    if kernel is not None:
        slots = [None if value is None else Slot(place) for place, value in enumerate(values)]
        plan.starters[kind] = Starter(kernel, grid, _arguments(plan, kind, slots))


def _arguments(plan: _Plan, kind: str | bool, values: Sequence[Any]) -> tuple[Any, ...]:
    """The kernel's arguments from all that varies, tensors or slots."""
    layout, spec = plan.layout, plan.spec
    options = layout.options
    weighting = incoming = None
    if kind == "forward":
        state = _STATE if options.STATE else 1
        counts = len(options.NORMALIZER_ON_DEVICE)
        *terms, total, table, integers, partials, word = values
        terms, others = terms[: -state - counts - 2], terms[-state - counts - 2 :]
        held, (step, *normalizer, scale) = others[:state], others[state:]
        if options.STATE:
            weighting = Weighting(spec.base_weights, held[6], tuple(held[:6]), step, tuple(normalizer), scale)
        else:
            weighting = Weighting(held[0], None, None, step, tuple(normalizer), scale)
        results = Results(total, table, integers, partials, word)
    else:
        *terms, table, integers, incoming = values
        results = Results(None, table, integers, None, None)
        options = options._replace(BACKWARD=True, METHOD="fixed", ADVANCE=False, IN_PLACE=bool(kind))
    return (*_groups(terms, layout), weighting, results, incoming, layout.numbers, *layout.sizes, options)


_STATE = StepState._fields.index("noise_step") - 1
"""Buffers of the state that the kernel reads and moves on."""


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
    """The kernel's arguments that both passes share."""
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


def _current(device: torch.device) -> Any:
    """A context in which Triton, which launches on the current device, launches on this one."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return _NOTHING
    return torch.cuda.device(device)


_NOTHING = nullcontext()
