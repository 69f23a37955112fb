"""The C++ backend: values and gradients of every term in one threaded pass over memory, on the CPU.

The forward pass writes the gradients, already weighted, normalised and times ``grad_scale``. The backward
pass compares the gradient that arrives with the one that was applied: equal, and the tensors are handed
over as they are; otherwise they are rescaled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ttsfast import native
from ttsfast.losses import compiled
from ttsfast.losses.extension import BEST_ISA, as_given, hint_of, plan_of
from ttsfast.losses.output import LossOutput
from ttsfast.terms.autograd import (
    FusedFunction,
    OnceDifferentiable,
    differentiated_again,
    graph_is_kept,
    in_forward_mode,
    why_not_plain,
)
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import LossInputs, LossSpec
from ttsfast.terms.state import FixedWeights, StepState


class CppBackend:
    """All terms in the C++ extension; float32 and float64 arithmetic, any strides, half precision stored."""

    name = "cpp"
    isa = BEST_ISA
    declined: tuple[type[Exception], ...] = () if native.core is None else (native.core.Declined,)

    def missing(self) -> str | None:
        return None if native.core is not None else native.why_missing

    def declines(self, spec: LossSpec, inputs: LossInputs) -> str | None:
        # check_inputs has seen to it that all are dense and on one device.
        if inputs.target.device.type != "cpu":
            return f"it computes on the CPU, the inputs are on {inputs.target.device}; use backend='auto'"
        return None if torch.compiler.is_compiling() else why_not_plain(inputs.memory())

    def accepts_unchecked(self, device: torch.device) -> bool:
        # Nothing is read from another device, since that would wait for it. Forward-mode derivatives, which a
        # tensor does not show, are the reference's.
        if torch.compiler.is_compiling() or device.type != "cpu" or native.core is None:
            return False
        return not in_forward_mode()

    def call(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        state: StepState | FixedWeights,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> LossOutput:
        """As :meth:`ttsfast.losses.backend.Backend.call`, also of inputs that nobody has checked.

        Raises:
            ValueError: of :attr:`declined`.
        """
        if torch.compiler.is_compiling():
            operator = torch.ops.ttsfast.cpp_losses
            out = compiled.call(operator, spec, inputs, state, normalizer, grad_scale)
            out.clamped = None
            return out
        (total, values, floors, weights, frames, present, leaves), written = plan_of(spec).call(
            # Checked inputs spell attention that is absent as an empty tuple.
            as_given(inputs) if isinstance(inputs.attention, tuple) else inputs,
            state,
            normalizer,
            hint_of(grad_scale),
            torch.is_grad_enabled(),
            torch.empty_like,
            torch.get_num_threads(),
            self.isa,
        )
        if leaves:
            total = _WrittenGradients.apply(written, [total], *leaves)
        return LossOutput(total, values, floors, weights, frames, present)

    def update(self, spec: LossSpec, state: StepState, values: Tensor, floors: Tensor) -> bool:
        if torch.compiler.is_compiling() or native.core is None:
            return False
        try:
            plan_of(spec).observe(state, values, floors)
        except self.declined:
            return False
        return True


class Written(Protocol):
    """What the extension calls a LossStep: gradients that await the backward pass. Nothing in it leads back
    to the total, which would keep itself and them alive."""

    @property
    def gradients(self) -> list[Tensor]:
        """In the order of the tensors that they belong to."""

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


class _WrittenGradients(FusedFunction):
    """Connects the total to the inputs whose gradients the forward pass has already written."""

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
            raise differentiated_again()
        gradients = written.gradients
        scale, applied = incoming.item(), written.applied
        kept = graph_is_kept()
        if scale == applied:
            given = [gradient.clone() for gradient in gradients] if kept else gradients
        elif written.rounded or not math.isfinite(scale):
            # Padding is 0 also times infinity, so what is there cannot be multiplied by it.
            given = written.again(scale)
        else:
            factor = scale / applied
            given = [gradient * factor if kept else gradient.mul_(factor) for gradient in gradients]
        if not kept:
            # With the tensors that it read: the total may be kept for a log.
            ctx.written = None
        if torch.is_grad_enabled():
            given = [OnceDifferentiable.apply(gradient, *ctx.saved_tensors) for gradient in given]
        return (None, None, *given)


def _forward(
    spec: LossSpec,
    inputs: LossInputs,
    gradients: Sequence[Tensor | None],
    state: FixedWeights,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    memory = iter([gradient for gradient in gradients if gradient is not None])
    (total, values, floors, weights, frames, _, _), written = plan_of(spec).call(
        as_given(inputs),
        state,
        normalizer,
        hint_of(grad_scale),
        [gradient is not None for gradient in gradients],
        lambda _: next(memory),
        torch.get_num_threads(),
        BEST_ISA,
    )
    applied = torch.full_like(weights, written.applied)
    report = torch.stack([values, floors, weights, applied, applied])
    return total, report, torch.stack([frames, torch.zeros_like(frames), state.noise_step])


compiled.define("cpp_losses", _forward, "CPU")
