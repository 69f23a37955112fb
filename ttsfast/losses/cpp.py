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
from ttsfast.losses.extension import BEST_ISA, as_given, hint_of, plan_of
from ttsfast.losses.handover import Attaching, Once, graph_is_kept, why_not_plain
from ttsfast.losses.output import LossOutput
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import BackendResult, LossInputs, LossSpec
from ttsfast.terms.state import StepState


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
        out = self._call(spec, as_given(inputs), (weights, step), normalizer, grad_scale)
        return BackendResult(out.total, out.values, out.floor_values, out.frames)

    def run_step(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        state: StepState,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> tuple[BackendResult, Tensor]:
        """As :meth:`run`, with the weights (4,) that ``state`` gave, which the same sweep moves on."""
        out = self._call(spec, as_given(inputs), state, normalizer, grad_scale)
        return BackendResult(out.total, out.values, out.floor_values, out.frames), out.weight_values

    def step(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        state: StepState,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> LossOutput | None:
        """A whole call of ``TTSLoss`` whose ``inputs`` nobody has checked, in one call of the extension.

        The extension takes what is usual: plain dense tensors on the CPU that fit each other. None, and
        nothing done, for everything else, be it wrong or only unusual: the checks in Python tell them apart.
        """
        # Derivatives forwards are the reference's.
        if native.core is None or forward_ad._current_level >= 0:
            return None
        try:
            return self._call(spec, inputs, state, normalizer, grad_scale)
        except native.core.Declined:
            return None

    def _call(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        state: StepState | tuple[Tensor, Tensor],
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> LossOutput:
        (total, values, floors, weights, frames, present, leaves), written = plan_of(spec).call(
            inputs,
            state,
            normalizer,
            hint_of(grad_scale),
            torch.is_grad_enabled(),
            torch.empty_like,
            torch.get_num_threads(),
            self.isa,
        )
        if leaves:
            total = _Attach.apply(written, [total], *leaves)
        return LossOutput(total, values, floors, weights, frames, present)

    def observe(self, spec: LossSpec, state: StepState, values: Tensor, floors: Tensor) -> bool:
        """Move ``state`` on by summed values and floors; False, and nothing done, for what is not plain (4,)
        float32 on the CPU."""
        if native.core is None:
            return False
        try:
            plan_of(spec).observe(state, values, floors)
        except native.core.Declined:
            return False
        return True


class Written(Protocol):
    """What the extension calls a LossStep: gradients that await the backward pass. Nothing in it leads back
    to the total, which would keep itself and them alive."""

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


class _Attach(Attaching):
    """Connects the total to the inputs whose gradients the sweep has already written."""

    @staticmethod
    def forward(ctx: Any, written: Written, total: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.written = written
        ctx.save_for_backward(*tensors)
        # In a list, since autograd would take an argument that comes back for a view.
        return total.pop()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        written: Written | None = ctx.written
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
