"""The Triton backend: one launch forward, one backward, behind autograd."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ttsfast.losses import triton_op
from ttsfast.losses.counts import Counts
from ttsfast.losses.handover import Once, graph_is_kept, why_not_plain
from ttsfast.losses.spec import BackendResult, LossInputs, LossSpec, StepState


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on CPU tensors, as ``TRITON_INTERPRET=1`` asks."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


class TritonBackend:
    """Kernels of :mod:`ttsfast.kernels`, for CUDA and HIP devices."""

    name = "triton"

    def __init__(self) -> None:
        self._seen = False

    def missing(self) -> str | None:
        if self._seen:
            return None
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed: pip install triton (Linux only)"
        if not torch.cuda.is_available() and not interpreted():
            return "Triton needs a CUDA or ROCm device, and torch sees none: use backend='auto'"
        # Every call of an automatic loss asks, and the driver answers slowly.
        self._seen = True
        return None

    def declines(self, spec: LossSpec, inputs: LossInputs) -> str | None:
        device = inputs.target.device.type
        if device != "cuda" and not (device == "cpu" and interpreted()):
            return f"it runs on CUDA and ROCm devices, the inputs are on {device}"
        reason = None if torch.compiler.is_compiling() else why_not_plain(inputs)
        if reason is not None:
            return reason
        if inputs.target.requires_grad and torch.is_grad_enabled():
            return "it sends no gradient to mel_target, which requires one: detach it, or use backend='torch'"
        return None

    def run(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        weights: Tensor,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
        step: Tensor,
    ) -> BackendResult:
        if torch.compiler.is_compiling():
            return triton_op.run(spec, inputs, weights, normalizer, grad_scale, step)
        return _run(spec, inputs, weights, normalizer, grad_scale, step)[0]

    def run_step(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        state: StepState,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> tuple[BackendResult, Tensor]:
        """As :meth:`run`, with the weights (4,) that ``state`` gave, which the same launch moves on."""
        return _run(spec, inputs, state, normalizer, grad_scale, state.noise_step)


def _run(
    spec: LossSpec,
    inputs: LossInputs,
    weights: Tensor | StepState,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
    step: Tensor,
) -> tuple[BackendResult, Tensor]:
    """The result and the weights (4,) it used."""
    from ttsfast.kernels import launch, layout

    tensors = layout.differentiable(inputs)
    gradients = _empty_gradients(spec, tensors)
    given = layout.arrange(gradients)
    launched = launch.forward(spec, inputs, given, weights, normalizer, grad_scale, step)
    total = launched.total
    wanted = [t for t, gradient in zip(tensors, gradients, strict=True) if gradient is not None]
    if wanted:
        total = _Attach.apply(launched.call, [total], *wanted)
    values, floors, used, _, _ = launched.report.unbind()
    frames, clamped, _ = launched.integers.unbind()
    return BackendResult(total, values, floors, frames, clamped), used


def _empty_gradients(spec: LossSpec, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Memory for gradients of :func:`ttsfast.kernels.layout.differentiable`, None where none is wanted."""
    if not torch.is_grad_enabled():
        return [None] * len(tensors)
    mel, kl, stop, attention = spec.active
    active = (mel, mel, kl, kl, kl, kl, stop, *(attention,) * (len(tensors) - 7))
    return [
        torch.empty_like(t) if t is not None and a and t.requires_grad else None
        for t, a in zip(tensors, active, strict=True)
    ]


class _Attach(torch.autograd.Function):
    """Connects the total to the inputs whose gradients the launch has already written.

    A graph that is not kept gives its gradients away, after a kernel has made sure that they fit what
    arrived. A graph that is kept (``retain_graph``) writes fresh ones each time, so that what was handed out
    before stays.
    """

    @staticmethod
    def forward(ctx: Any, call: Any, total: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.call = call
        # Not saved as autograd saves: hooks that move saved tensors elsewhere would move them for nothing.
        ctx.versions = _versions(call.inputs)
        # In a list, since autograd would take an argument that comes back for a view.
        return total.pop()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        from ttsfast.kernels import launch, layout

        call = ctx.call
        if call is None:
            raise RuntimeError(
                "the loss is differentiated a second time, after its gradients were handed over: "
                "pass retain_graph=True to the first backward"
            )
        if _versions(call.inputs) != ctx.versions:
            raise RuntimeError(
                "a tensor that the loss was computed from has been modified by an in-place operation since: "
                "pass a clone of it, or modify it after backward"
            )
        outputs = call.gradients
        if graph_is_kept():
            flat = [None if g is None else torch.empty_like(g) for g in layout.flatten(outputs)]
            outputs = layout.arrange(flat)
        else:
            ctx.call = None
        launch.backward(call, outputs, incoming)
        given = [gradient for gradient in layout.flatten(outputs) if gradient is not None]
        if torch.is_grad_enabled():
            given = [Once.apply(gradient, *call.inputs.values()) for gradient in given]
        return (None, None, *given)


def _versions(inputs: LossInputs) -> list[int]:
    """How often each tensor that the backward pass may read has been modified."""
    vectors = (inputs.mel_lengths, inputs.step_lengths, inputs.text_lengths, inputs.truncated)
    read = [*inputs.values(), *(vector for vector in vectors if vector is not None)]
    # Those made in inference mode keep no count.
    return [tensor._version for tensor in read if not tensor.is_inference()]
