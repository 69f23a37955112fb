"""One call of the Triton kernels behind autograd: one launch forward, one backward."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from ttsfast.kernels import launch, layout
from ttsfast.losses.handover import Attaching, Once, graph_is_kept
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import BackendResult, LossInputs, LossSpec
from ttsfast.terms.state import StepState

_version = attrgetter("_version")


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
    launched = launch.forward(spec, inputs, gradients, weights, normalizer, grad_scale, step)
    total = launched.total
    wanted = [t for t, gradient in zip(tensors, gradients, strict=True) if gradient is not None]
    if wanted:
        total = _Attach.apply(launched.call, [total], *wanted)
    values, floors, used, _, _ = launched.report.unbind()
    integers = launched.integers
    return BackendResult(total, values, floors, integers[0], integers[1]), used


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
        # Not saved as autograd saves: hooks that move saved tensors elsewhere would move them for nothing.
        # Those made in inference mode do not count how often they are modified.
        counting = [tensor for tensor in call.read if not tensor.is_inference()]
        ctx.held = call, counting, [*map(_version, counting)]
        # In a list, since autograd would take an argument that comes back for a view.
        return total.pop()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.held is None:
            raise RuntimeError(
                "the loss is differentiated a second time, after its gradients were handed over: "
                "pass retain_graph=True to the first backward"
            )
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
        launch.backward(call, gradients, incoming)
        if torch.is_grad_enabled():
            gradients = [Once.apply(gradient, *call.read) for gradient in gradients]
        return (None, None, *gradients)
