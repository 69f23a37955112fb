"""Launches the kernel: the first time for a layout through Triton's compiler, then straight from a table.

Triton works out anew at each launch what to compile for; at a hundred arguments that takes longer than the
kernel itself. Everything that decides it goes into the key of a table here, and a launch whose key is known
hands addresses to the compiled kernel. What varies from launch to launch travels as one list: the terms'
tensors, then what else the pass is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import reduce
from itertools import count
from operator import attrgetter, or_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ttsfast.kernels import report, settings
from ttsfast.kernels.arguments import Attention, Latents, Lengths, Mel, Results, Stop, Weighting
from ttsfast.kernels.counter import counter
from ttsfast.kernels.fused import fused_loss
from ttsfast.kernels.layout import Layout, arrange, differentiable, lay_out
from ttsfast.kernels.prepared import Placeholder, PreparedLaunch, stream_of
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import FUSED, LossInputs, LossSpec
from ttsfast.terms.state import StepState

LAYOUTS = 4096
"""Layouts remembered; every batch shape is one."""
VECTOR = 16
"""Bytes; the compiler is told which addresses are multiples of them."""
INTEGERS = 4
"""Of the report; the partial sums lie behind them, at a multiple of :data:`VECTOR` bytes."""

_dtype, _shape = attrgetter("dtype"), attrgetter("shape")
_strides, _address = Tensor.stride, Tensor.data_ptr


class Launched(NamedTuple):
    """What the forward pass writes beside the gradients."""

    total: Tensor
    """()"""
    report: Tensor
    """(5, 4): values, floors and weights of the four terms, what their sums were multiplied by, and first in
    the last row the gradient scale that was applied."""
    integers: Tensor
    """(4 + n,) int64: valid frames, how many lengths lay outside their axes and were clamped, the noise step;
    the rest is scratch."""
    call: Call
    """For :func:`backward`; holds no total, which would lead back to itself."""


class Call(NamedTuple):
    """What both passes of one call are about."""

    plan: _Plan
    given: list[Tensor | None]
    """The vectors, the target, and what may need gradients."""
    gradients: Sequence[Tensor | None]
    """Of the last."""
    read: list[Tensor]
    """Those given that are there."""
    written: list[Tensor]
    """Those gradients that are wanted."""
    addresses: list[int]
    """Of both."""
    report: Tensor
    integers: Tensor


class _Plan:
    """One layout, and the kernels compiled for it."""

    __slots__ = ("layout", "prepared", "scratch", "spec")

    def __init__(self, spec: LossSpec, layout: Layout) -> None:
        # Kept alive: the key of the table holds its identity.
        self.spec = spec
        self.layout = layout
        self.scratch = INTEGERS + -(-layout.grid[0] * layout.dtype.itemsize // 8)
        """In integers of 64 bits."""
        self.prepared: dict[str | tuple[bool, bool], PreparedLaunch] = {}
        """``"forward"``, and the backward passes by whether they are in place and find what arrives at a
        multiple of 16 bytes."""


_plans: dict[tuple[Any, ...], _Plan] = {}


def forward(
    spec: LossSpec,
    inputs: LossInputs,
    gradients: Sequence[Tensor | None],
    weights: Tensor | StepState,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
    step: Tensor,
    compiled: bool = False,
) -> Launched:
    """Launch the forward pass on the current stream of the inputs' device.

    Args:
        spec, inputs, normalizer, grad_scale, step: as a loss backend gets them.
        gradients: where to write the gradients, every element of them, laid out as ``torch.empty_like`` does;
            in the order of :func:`ttsfast.kernels.layout.differentiable`, None where none is wanted.
        weights: (6,), or the state that they follow from and that the launch moves on.
        compiled: whether a graph of ``torch.compile`` calls.
    """
    device = inputs.target.device
    state = weights if isinstance(weights, StepState) else None
    counts = normalizer if isinstance(normalizer, tuple) else () if normalizer is None else (normalizer,)
    scalars = [_scalar(part, device) for part in (*counts, 1.0 if grad_scale is None else grad_scale)]

    given = [*_vectors(inputs), inputs.target, *differentiable(inputs)]
    read = [tensor for tensor in given if tensor is not None]
    written = [gradient for gradient in gradients if gradient is not None]
    buffers = [*([weights] if state is None else state[1:8]), step]
    tensors = [*read, *written, *buffers]
    addresses = [*map(_address, tensors)]
    held = [value.data_ptr() if isinstance(value, Tensor) else value for value in scalars]
    key = (
        id(spec),
        device,
        None if state is None else (state.method, state.advance),
        *[tensor is None for tensor in given],
        *[gradient is None for gradient in gradients],
        *map(_dtype, tensors),
        *map(_shape, read),
        # Those of the gradients follow from them.
        *map(_strides, read),
        *[(v.dtype, v.data_ptr() % VECTOR) if isinstance(v, Tensor) else None for v in scalars],
        # As a rule all are multiples: one look at their bits tells.
        reduce(or_, addresses) % VECTOR and tuple([address % VECTOR for address in addresses]),
    )
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= LAYOUTS:
            _plans.clear()
        laid = lay_out(spec, inputs, arrange(gradients), state, scalars[:-1], scalars[-1])
        plan = _plans[key] = _Plan(spec, laid)

    table = torch.empty((report.ROWS, len(FUSED)), dtype=plan.layout.dtype, device=device)
    total = table.new_empty(())
    integers = torch.empty(plan.scratch, dtype=torch.int64, device=device)
    prepared = plan.prepared.get("forward")
    with _current(device):
        word = counter(device, compiled)
        if prepared is None:
            partials = integers[INTEGERS:].view(table.dtype)
            results = (total, table, integers, partials, word)
            _compile(plan, "forward", [*given, *gradients, *buffers, *scalars, *results])
        else:
            at = integers.data_ptr()
            places = (total.data_ptr(), table.data_ptr(), at, at + 8 * INTEGERS, word.data_ptr())
            prepared([*addresses, *held, *places], stream_of(device))
    call = Call(plan, given, gradients, read, written, addresses[: -len(buffers)], table, integers)
    return Launched(total, table, integers, call)


def backward(call: Call, outputs: Sequence[Tensor], incoming: Tensor) -> None:
    """Launch the backward pass: ``outputs`` become the gradients times ``incoming``.

    Where they are ``call.written``, nothing is read or written if the forward pass had expected that factor.
    """
    plan, addresses = call.plan, call.addresses
    in_place = outputs is call.written
    arrived = incoming.data_ptr()
    device = incoming.device
    kind = in_place, arrived % VECTOR == 0
    prepared = plan.prepared.get(kind)
    with _current(device):
        if prepared is None:
            fresh = iter(outputs)
            gradients = [None if gradient is None else next(fresh) for gradient in call.gradients]
            _compile(plan, kind, [*call.given, *gradients, call.report, call.integers, incoming])
            return
        if not in_place:
            addresses = [*addresses[: -len(outputs)], *map(_address, outputs)]
        prepared([*addresses, call.report.data_ptr(), call.integers.data_ptr(), arrived], stream_of(device))


def _compile(plan: _Plan, kind: str | tuple[bool, bool], values: Sequence[Any]) -> None:
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
        # What is not there is not handed over later either.
        places = count()
        placeholders = [None if value is None else Placeholder(next(places)) for value in values]
        plan.prepared[kind] = PreparedLaunch(kernel, grid, _arguments(plan, kind, placeholders))


def _arguments(plan: _Plan, kind: str | tuple[bool, bool], values: Sequence[Any]) -> tuple[Any, ...]:
    """The kernel's arguments from all that varies, tensors or placeholders."""
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
            base = spec.base_weights[: len(FUSED)]
            weighting = Weighting(base, held[6], tuple(held[:6]), step, tuple(normalizer), scale)
        else:
            weighting = Weighting(held[0], None, None, step, tuple(normalizer), scale)
        results = Results(total, table, integers, partials, word)
    else:
        *terms, table, integers, incoming = values
        results = Results(None, table, integers, None, None)
        options = options._replace(BACKWARD=True, METHOD="fixed", ADVANCE=False, IN_PLACE=bool(kind[0]))
    return (*_groups(terms, layout), weighting, results, incoming, layout.numbers, *layout.sizes, options)


_STATE = StepState._fields.index("noise_step") - 1
"""Buffers of the state that the kernel reads and moves on."""


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


def _vectors(inputs: LossInputs) -> tuple[Tensor | None, ...]:
    """Lengths, flags and statistics, each without gaps."""
    vectors = (
        inputs.mel_lengths,
        inputs.step_lengths,
        inputs.text_lengths,
        inputs.truncated,
        inputs.mel_mean,
        inputs.mel_std,
    )
    for vector in vectors:
        if vector is not None and not vector.is_contiguous():
            return tuple(v if v is None else v.contiguous() for v in vectors)
    return vectors


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
