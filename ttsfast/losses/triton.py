"""The Triton backend: kernels of :mod:`ttsfast.kernels`, one launch forward and one backward.

A graph that is not kept gives its gradients away, after a kernel has made sure that they fit what arrived. A
graph that is kept (``retain_graph``) writes fresh ones each time, so that what was handed out before stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import attrgetter
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ttsfast.devices import TritonKernels, interpreted
from ttsfast.losses import compiled
from ttsfast.losses.output import LossOutput
from ttsfast.terms.autograd import (
    FusedFunction,
    OnceDifferentiable,
    differentiated_again,
    graph_is_kept,
    why_not_plain,
)
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import FUSED, TERMS, LossInputs, LossSpec
from ttsfast.terms.state import FixedWeights, StepState

_version = attrgetter("_version")


@cache
def _kernels() -> tuple[ModuleType, ModuleType]:
    # Imported where they are used: ``import ttsfast`` needs no Triton.
    from ttsfast.kernels import launch, layout

    return launch, layout


class TritonBackend:
    """For CUDA and HIP devices."""

    name = "triton"
    declined: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        self._kernels = TritonKernels()

    def missing(self) -> str | None:
        return self._kernels.missing()

    def declines(self, spec: LossSpec, inputs: LossInputs) -> str | None:
        device = inputs.target.device.type
        if device != "cuda" and not (device == "cpu" and interpreted()):
            return f"it runs on CUDA and ROCm devices, the inputs are on {device}"
        reason = None if torch.compiler.is_compiling() else why_not_plain(inputs.memory())
        if reason is not None:
            return reason
        if inputs.target.requires_grad and torch.is_grad_enabled():
            return "it sends no gradient to mel_target, which requires one: detach it, or use backend='torch'"
        return None

    def accepts_unchecked(self, device: torch.device) -> bool:
        return False

    def call(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        state: StepState | FixedWeights,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> LossOutput:
        if torch.compiler.is_compiling():
            operator = torch.ops.ttsfast.triton_losses
            return compiled.call(operator, spec, inputs, state, normalizer, grad_scale)
        launch, layout = _kernels()
        weights, step = (state, state.noise_step) if isinstance(state, StepState) else state
        tensors = layout.differentiable(inputs)
        gradients = _empty_gradients(spec, tensors)
        launched = launch.forward(spec, inputs, gradients, weights, normalizer, grad_scale, step)
        total = launched.total
        wanted = [t for t, gradient in zip(tensors, gradients, strict=True) if gradient is not None]
        if wanted:
            total = _WrittenGradients.apply(launched.call, [total], *wanted)
        values, floors, used, _, _ = launched.report.unbind()
        frames, clamped = launched.integers[0], launched.integers[1]
        return LossOutput(total, values, floors, used, frames, inputs.present(), clamped)

    def update(self, spec: LossSpec, state: StepState, values: Tensor, floors: Tensor) -> bool:
        device = state.factors.device
        if torch.compiler.is_compiling() or not (device.type == "cuda" or interpreted()):
            return False
        for tensor in (values, floors):
            if type(tensor) is not Tensor or tensor.device != device:
                return False
        if values.shape != floors.shape or values.shape not in ((len(FUSED),), (len(TERMS),)):
            return False
        from ttsfast.kernels import adaptive

        adaptive.update_weights(state, spec.active, values, floors)
        return True


def _empty_gradients(spec: LossSpec, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Memory for gradients of :func:`ttsfast.kernels.layout.differentiable`, None where none is wanted."""
    if not torch.is_grad_enabled():
        return [None] * len(tensors)
    mel, kl, stop, attention, *_ = spec.active
    active = (mel, mel, kl, kl, kl, kl, stop, *(attention,) * (len(tensors) - 7))
    return [
        torch.empty_like(t) if t is not None and a and t.requires_grad else None
        for t, a in zip(tensors, active, strict=True)
    ]


class _WrittenGradients(FusedFunction):
    """Connects the total to the inputs whose gradients the launch has already written."""

    @staticmethod
    def forward(ctx: Any, call: Any, total: list[Tensor], *tensors: Tensor) -> Tensor:
        # Not saved as autograd saves: hooks that move saved tensors elsewhere would move them for nothing.
        # Those made in inference mode do not count how often they are modified.
        counting = [tensor for tensor in call.read if not tensor.is_inference()]
        ctx.held = call, counting, [*map(_version, counting)]
        # In a list, since autograd would take an argument that comes back for a view.
        return total.pop()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.held is None:
            raise differentiated_again()
        call, counting, versions = ctx.held
        # The launch goes to the same addresses; to exchange a tensor's ``.data`` counts as no modification.
        moved = [*map(Tensor.data_ptr, call.read)] != call.addresses[: len(call.read)]
        if moved or [*map(_version, counting)] != versions:
            raise RuntimeError(
                "a tensor that the loss was computed from has been modified by an in-place operation since: "
                "pass a clone of it, or modify it after backward"
            )
        gradients = call.written
        if graph_is_kept():
            gradients = [torch.empty_like(gradient) for gradient in gradients]
        else:
            ctx.held = None
        launch, _ = _kernels()
        launch.backward(call, gradients, incoming)
        if torch.is_grad_enabled():
            gradients = [OnceDifferentiable.apply(gradient, *call.read) for gradient in gradients]
        return (None, None, *gradients)


def _forward(
    spec: LossSpec,
    inputs: LossInputs,
    gradients: Sequence[Tensor | None],
    state: FixedWeights,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    launch, layout = _kernels()
    written: Any = iter(gradients)
    placed = inputs._replace(
        mel=tuple([next(written) for _ in inputs.mel]),
        target=next(written),
        posterior=inputs.posterior and (next(written), next(written)),
        prior=inputs.prior and (next(written), next(written)),
        stop_logits=None if inputs.stop_logits is None else next(written),
        attention=tuple([next(written) for _ in inputs.attention]),
    )
    memory = layout.differentiable(placed)
    weights, step = state
    launched = launch.forward(spec, inputs, memory, weights, normalizer, grad_scale, step, compiled=True)
    return launched.total, launched.report, launched.integers[:3]


# On the CPU the interpreter stands in for a GPU.
compiled.define("triton_losses", _forward, "CUDA", "CPU")
