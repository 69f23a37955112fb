"""The C++ backend: values and gradients of every term in one threaded sweep over memory, on the CPU.

The forward pass writes the gradients, already weighted, normalised and times ``grad_scale``. The backward
pass compares the gradient that arrives with the one that was applied: equal, and the tensors are handed
over as they are; otherwise they are rescaled.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ttsfast import native
from ttsfast.losses import cpp_op
from ttsfast.losses import sweep as sweeps
from ttsfast.losses.handover import Attaching, Once, graph_is_kept, why_not_plain
from ttsfast.losses.output import LossOutput
from ttsfast.losses.sweep import BEST_ISA, HALF, Sweep, hint_of
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import TERMS, BackendResult, LossInputs, LossSpec, StepState


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

    def step(
        self,
        spec: LossSpec,
        arguments: tuple[Any, ...],
        statistics: tuple[Tensor | None, Tensor | None],
        state: StepState,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> LossOutput | None:
        """A whole call of ``TTSLoss`` whose ``arguments`` nobody has checked, in one call of the extension.

        The extension takes what is usual: plain dense tensors on the CPU that fit each other. None, and
        nothing done, for everything else, be it wrong or only unusual: the checks in Python tell them apart.
        """
        # Before torch 2.10 the extension cannot read tensors; derivatives forwards are the reference's.
        if native.core is None or not sweeps.READS_TENSORS or forward_ad._current_level >= 0:
            return None
        swept = sweeps.fused(spec).step(
            (
                torch.get_num_threads(),
                self.isa,
                torch.is_grad_enabled(),
                sweeps.empty_gradient,
                sweeps.packed_state(state),
                sweeps.numbers_of(normalizer),
                hint_of(grad_scale),
                *statistics,
                *arguments,
            )
        )
        if swept is None:
            return None
        (total, values, floors, weights, frames, present, wanted), written = swept
        if wanted:
            total = _Attach.apply(written, [total], *wanted)
        return LossOutput(total, values, floors, weights, frames, present)

    def observe(self, spec: LossSpec, state: StepState, values: Tensor, floors: Tensor) -> bool:
        """Move ``state`` on by summed values and floors; False, and nothing done, for what is not plain (4,)
        float32 on the CPU."""
        if native.core is None or not sweeps.READS_TENSORS:
            return False
        for tensor in (values, floors):
            if type(tensor) is not Tensor or tensor.dtype != torch.float32 or tensor.device.type != "cpu":
                return False
            if tensor.shape != (len(TERMS),) or not tensor.is_contiguous():
                return False
        sweeps.fused(spec).observe(sweeps.packed_state(state), values, floors)
        return True


def _run(sweep: Sweep, grad_scale: Tensor | float | None) -> BackendResult:
    wanted = sweep.differentiable() if torch.is_grad_enabled() else []
    result = sweep.run(wanted, hint_of(grad_scale))
    total = result.total
    if wanted:
        written = _Swept(sweep, result.gradients, result.applied)
        total = _Attach.apply(written, [total], *(tensor for _, tensor in wanted))
    return BackendResult(total, result.values, result.floors, result.frames)


class _Written(Protocol):
    """Gradients that await the backward pass; nothing here leads back to the total, which would keep itself
    and them alive."""

    @property
    def gradients(self) -> list[Tensor]:
        """In the order of the tensors that were attached."""

    @property
    def applied(self) -> float:
        """What they are multiplied by."""

    @property
    def rounded(self) -> bool:
        """Whether any is in half precision: it cannot be rescaled without rounding twice, or after fp16
        underflow at all."""

    def again(self, scale: float) -> list[Tensor]:
        """The gradients for another scale, computed anew.

        Raises:
            RuntimeError: what they are computed from was modified since.
        """


class _Swept:
    """:class:`_Written` by a :class:`Sweep`; what the extension wrote by itself is its LossStep."""

    def __init__(self, sweep: Sweep, gradients: list[Tensor], applied: float) -> None:
        self.gradients = gradients
        self.applied = applied
        self.rounded = any(gradient.dtype in HALF for gradient in gradients)
        self._sweep = sweep

    def again(self, scale: float) -> list[Tensor]:
        self._sweep.check_unchanged()
        return self._sweep.run(self._sweep.differentiable(), scale).gradients


class _Attach(Attaching):
    """Connects the total to the inputs whose gradients the sweep has already written."""

    @staticmethod
    def forward(ctx: Any, written: _Written, total: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.written = written
        ctx.save_for_backward(*tensors)
        # In a list, since autograd would take an argument that comes back for a view.
        return total.pop()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        written: _Written | None = ctx.written
        if written is None:
            raise RuntimeError(
                "the loss is differentiated a second time, after its gradients were handed over: "
                "pass retain_graph=True to the first backward"
            )
        gradients = written.gradients
        scale, applied = incoming.item(), written.applied
        kept = graph_is_kept()
        if scale == applied:
            given = [gradient.clone() for gradient in gradients] if kept else gradients
        elif written.rounded or not math.isfinite(scale):
            # Padding is 0 also times infinity, so what is there cannot be multiplied by it.
            given = written.again(scale)
        else:
            given = _rescaled(gradients, scale, applied, in_place=not kept)
        if not kept:
            # With the tensors that it read: the total may be kept for a log.
            ctx.written = None
        if torch.is_grad_enabled():
            given = [Once.apply(gradient, *ctx.saved_tensors) for gradient in given]
        return (None, None, *given)


def _rescaled(gradients: list[Tensor], scale: float, applied: float, in_place: bool) -> list[Tensor]:
    factor = scale / applied
    return [gradient.mul_(factor) if in_place else gradient * factor for gradient in gradients]
