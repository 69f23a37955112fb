"""The Triton backend: one launch forward, one backward, behind autograd."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ttsfast.losses import triton_op
from ttsfast.losses.counts import Counts
from ttsfast.losses.handover import Once, graph_is_kept, is_plain
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
        for tensor in () if torch.compiler.is_compiling() else inputs.values():
            if not is_plain(tensor):
                return f"it reads plain tensors, not {type(tensor).__name__}; use backend='torch'"
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
        return _run(_Call(spec, inputs, weights, normalizer, grad_scale, step))[0]

    def run_step(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        state: StepState,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> tuple[BackendResult, Tensor]:
        """As :meth:`run`, with the weights (4,) that ``state`` gave, which the same launch moves on."""
        return _run(_Call(spec, inputs, state, normalizer, grad_scale, state.noise_step))


class _Call(NamedTuple):
    spec: LossSpec
    inputs: LossInputs
    weights: Tensor | StepState
    normalizer: Counts | Tensor | float | None
    grad_scale: Tensor | float | None
    step: Tensor


def _run(call: _Call) -> tuple[BackendResult, Tensor]:
    """The result and the weights (4,) it used."""
    from ttsfast.kernels import launch

    tensors = launch.differentiable(call.inputs)
    needs = _needs(call.spec, tensors)
    if any(needs):
        total, report, integers = _FusedLoss.apply(call, needs, *tensors)
    else:
        total, report, integers = _launch(call, launch.arrange([None] * len(tensors)))
    values, floors, weights = report[:12].view(3, 4).unbind()
    return BackendResult(total, values, floors, *integers.unbind()), weights


def _needs(spec: LossSpec, tensors: list[Tensor | None]) -> list[bool]:
    """Which of :func:`ttsfast.kernels.launch.differentiable` get a gradient."""
    if not torch.is_grad_enabled():
        return [False] * len(tensors)
    mel, kl, stop, attention = spec.active
    active = [mel] * 2 + [kl] * 4 + [stop] + [attention] * (len(tensors) - 7)
    return [t is not None and t.requires_grad and a for t, a in zip(tensors, active, strict=True)]


_counters: dict[tuple[torch.device, int], Tensor] = {}


def counter(device: torch.device) -> Tensor:
    """() int32 zero that a launch on the current stream may count in; every launch leaves it at zero."""
    if device.type != "cuda":
        return torch.zeros((), dtype=torch.int32, device=device)
    if torch.cuda.is_current_stream_capturing():
        # A graph may replay beside other work of this stream: it counts in memory of its own.
        return torch.zeros((), dtype=torch.int32, device=device)
    key = (device, torch.cuda.current_stream(device).cuda_stream)
    if key not in _counters:
        _counters[key] = torch.zeros((), dtype=torch.int32, device=device)
    return _counters[key]


def _launch(call: _Call, gradients: Any) -> tuple[Tensor, Tensor, Tensor]:
    from ttsfast.kernels import launch

    return launch.forward(
        call.spec,
        call.inputs,
        gradients,
        call.weights,
        call.normalizer,
        call.grad_scale,
        call.step,
        counter(call.inputs.target.device),
    )


class _FusedLoss(torch.autograd.Function):
    """Writes the gradients in the forward pass; the backward pass hands them out.

    A graph that is not kept gives its gradients away and may have them rescaled where they lie. A graph
    that is kept (``retain_graph``) writes fresh ones each time, so that what was handed out before stays.
    """

    @staticmethod
    def forward(
        ctx: Any, call: _Call, needs: list[bool], *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        from ttsfast.kernels import launch

        gradients = [
            torch.empty_like(tensor, dtype=_saved_dtype(tensor, call.grad_scale))
            if tensor is not None and need
            else None
            for tensor, need in zip(tensors, needs, strict=True)
        ]
        total, report, integers = _launch(call, launch.arrange(gradients))
        ctx.gradients = gradients
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in tensors]
        ctx.applied = report[12]
        ctx.mark_non_differentiable(report, integers)
        ctx.set_materialize_grads(False)
        return total, report, integers

    @staticmethod
    def backward(ctx: Any, incoming: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        from ttsfast.kernels import launch

        if ctx.gradients is None:
            raise RuntimeError(
                "the loss is differentiated a second time, after its gradients were handed over: "
                "pass retain_graph=True to the first backward"
            )
        saved: list[Tensor | None] = ctx.gradients
        if incoming is None:
            return (None,) * (2 + len(saved))
        kept = graph_is_kept()
        outputs = [
            gradient
            if gradient is None or (not kept and gradient.dtype == dtype)
            else torch.empty_like(gradient, dtype=dtype)
            for gradient, dtype in zip(saved, ctx.dtypes, strict=True)
        ]
        if not kept:
            ctx.gradients = None
        with torch.no_grad():
            launch.backward(
                [gradient for gradient in saved if gradient is not None],
                [output for output in outputs if output is not None],
                incoming.detach(),
                ctx.applied,
            )
        if torch.is_grad_enabled():
            outputs = [None if output is None else Once.apply(output.requires_grad_()) for output in outputs]
        return (None, None, *outputs)


def _saved_dtype(tensor: Tensor, grad_scale: Tensor | float | None) -> torch.dtype:
    """float32 for float16 gradients that nothing scales up: most of them would be subnormal, or 0."""
    return torch.float32 if tensor.dtype == torch.float16 and grad_scale is None else tensor.dtype
