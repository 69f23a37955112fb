"""The Triton backend: whether it is there, and what it serves."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import torch
from torch import Tensor

from ttsfast.losses import triton_op
from ttsfast.losses.handover import why_not_plain
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import TERMS, BackendResult, LossInputs, LossSpec
from ttsfast.terms.state import StepState


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on CPU tensors, as ``TRITON_INTERPRET=1`` asks."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


class TritonBackend:
    """Kernels of :mod:`ttsfast.kernels`, for CUDA and HIP devices."""

    name = "triton"

    def __init__(self) -> None:
        self._seen = False
        self._call: Callable[..., tuple[BackendResult, Tensor]] | None = None

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
        return self._run(spec, inputs, weights, normalizer, grad_scale, step)[0]

    def run_step(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        state: StepState,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> tuple[BackendResult, Tensor]:
        """As :meth:`run`, with the weights (4,) that ``state`` gave, which the same launch moves on."""
        return self._run(spec, inputs, state, normalizer, grad_scale, state.noise_step)

    def _run(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        weights: Tensor | StepState,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
        step: Tensor,
    ) -> tuple[BackendResult, Tensor]:
        if self._call is None:
            # Kernels are imported where they are used: ``import ttsfast`` needs no Triton.
            from ttsfast.losses import triton_call

            self._call = triton_call.run
        return self._call(spec, inputs, weights, normalizer, grad_scale, step)

    def observe(self, spec: LossSpec, state: StepState, values: Tensor, floors: Tensor) -> bool:
        """Move ``state`` on by summed values and floors, in one launch; False, and nothing done, for what is
        not plain (4,) tensors where the kernels run."""
        device = state.factors.device
        if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
            return False
        for tensor in (values, floors):
            if type(tensor) is not Tensor or tensor.device != device or tensor.shape != (len(TERMS),):
                return False
        if state.method != "fixed":
            from ttsfast.kernels import adaptive

            adaptive.update_weights(state, spec.active, values, floors)
        return True
