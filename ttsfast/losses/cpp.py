"""The C++ backend: values and gradients of every term in one threaded sweep over memory, on the CPU.

The forward pass writes the gradients, already weighted, normalised and times ``grad_scale``. The backward
pass compares the gradient that arrives with the one that was applied: equal, and the tensors are handed
over as they are; otherwise they are rescaled.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ttsfast import native
from ttsfast.losses import cpp_op
from ttsfast.losses.counts import Counts
from ttsfast.losses.handover import Once, graph_is_kept, why_not_plain
from ttsfast.losses.spec import BackendResult, LossInputs, LossSpec, StepState
from ttsfast.losses.sweep import BEST_ISA, HALF, Sweep, hint_of


class CppBackend:
    """All terms in the C++ extension; float32 and float64 arithmetic, any strides, half precision stored."""

    name = "cpp"
    isa = BEST_ISA

    def missing(self) -> str | None:
        return None if native.core is not None else native.why_missing

    def declines(self, spec: LossSpec, inputs: LossInputs) -> str | None:
        # check_inputs has seen to it that all are dense and on one device.
        if inputs.target.device.type != "cpu":
            return f"it computes on the CPU, the inputs are on {inputs.target.device}; use backend='auto'"
        return None if torch.compiler.is_compiling() else why_not_plain(inputs)

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
            operator = torch.ops.ttsfast.cpp_losses
            return cpp_op.run(operator, spec, inputs, weights, normalizer, grad_scale, step)
        return _run(Sweep(spec, inputs, weights, normalizer, step, self.isa), grad_scale)

    def run_step(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        state: StepState,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> tuple[BackendResult, Tensor]:
        """As :meth:`run`, with the weights (4,) that ``state`` gave, which the same sweep moves on."""
        sweep = Sweep(spec, inputs, state, normalizer, state.noise_step, self.isa)
        return _run(sweep, grad_scale), sweep.weights


def _run(sweep: Sweep, grad_scale: Tensor | float | None) -> BackendResult:
    wanted = sweep.differentiable() if torch.is_grad_enabled() else []
    result = sweep.run(wanted, hint_of(grad_scale))
    total = result.total
    if wanted:
        written = _Written(result.gradients, result.applied)
        total = _Attach.apply(sweep, written, [total], *(tensor for _, tensor in wanted))
    return BackendResult(total, result.values, result.floors, result.frames)


class _Written:
    """Gradients that await the backward pass, None once handed over; nothing here leads back to the total,
    which would keep itself and them alive."""

    __slots__ = ("applied", "gradients")

    def __init__(self, gradients: list[Tensor], applied: float) -> None:
        self.gradients: list[Tensor] | None = gradients
        self.applied = applied


class _Attach(torch.autograd.Function):
    """Connects the total to the inputs whose gradients the sweep has already written."""

    @staticmethod
    def forward(ctx: Any, sweep: Sweep, written: _Written, total: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.written = written
        ctx.sweep = sweep
        # A rounded gradient cannot be rescaled without rounding twice, or after fp16 underflow at all.
        ctx.rounded = any(tensor.dtype in HALF for tensor in tensors)
        ctx.save_for_backward(*tensors)
        # In a list, since autograd would take an argument that comes back for a view.
        return total.pop()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        written: _Written = ctx.written
        gradients = written.gradients
        if gradients is None:
            raise RuntimeError(
                "the loss is differentiated a second time, after its gradients were handed over: "
                "pass retain_graph=True to the first backward"
            )
        scale = incoming.item()
        kept = graph_is_kept()
        if scale == written.applied:
            given = [gradient.clone() for gradient in gradients] if kept else gradients
        elif ctx.rounded or not math.isfinite(scale):
            # Padding is 0 also times infinity, so what is there cannot be multiplied by it.
            ctx.sweep.check_unchanged()
            given = ctx.sweep.run(ctx.sweep.differentiable(), scale).gradients
        else:
            given = _rescaled(gradients, scale, written.applied, in_place=not kept)
        if not kept:
            written.gradients = None
        if torch.is_grad_enabled():
            given = [Once.apply(gradient, *ctx.saved_tensors) for gradient in given]
        return (None, None, None, *given)


def _rescaled(gradients: list[Tensor], scale: float, applied: float, in_place: bool) -> list[Tensor]:
    factor = scale / applied
    return [gradient.mul_(factor) if in_place else gradient * factor for gradient in gradients]
