"""One call of the Triton kernels behind autograd: one launch forward, one backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ttsfast.kernels import launch, layout
from ttsfast.losses.counts import Counts
from ttsfast.losses.handover import Attaching, Once, graph_is_kept
from ttsfast.losses.spec import BackendResult, LossInputs, LossSpec, StepState


def run(
    spec: LossSpec,
    inputs: LossInputs,
    weights: Tensor | StepState,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
    step: Tensor,
) -> tuple[BackendResult, Tensor]:
    """The result and the weights (4,) it used; arguments as a backend's, or a state in the weights' place."""
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


class _Attach(Attaching):
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
