"""Which implementation computes the loss: the plain torch reference, or a fused one behind the same call."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ttsfast.devices import interpreted
from ttsfast.losses import adaptive, reference
from ttsfast.losses.cpp import CppBackend
from ttsfast.losses.output import LossOutput
from ttsfast.losses.triton import TritonBackend
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import LossInputs, LossSpec
from ttsfast.terms.state import FixedWeights, StepState, fixed_weights


class Backend(Protocol):
    """One implementation of all terms, values and gradients."""

    name: str
    declined: tuple[type[Exception], ...]
    """What :meth:`call` raises, with nothing written or moved on, of inputs that nobody has checked and
    that are wrong or only unusual; empty where :meth:`accepts_unchecked` never agrees."""

    def missing(self) -> str | None:
        """Why it cannot run on this installation, and the remedy; None when it can."""

    def declines(self, spec: LossSpec, inputs: LossInputs) -> str | None:
        """Why it cannot serve these tensors; None when it can. Must not wait for a device."""

    def accepts_unchecked(self, device: torch.device) -> bool:
        """Whether :meth:`call` itself checks what it is given, of tensors on ``device`` and at this moment:
        then it may be called without :meth:`declines`, and with inputs as ``TTSLoss`` was given them."""

    def call(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        state: StepState | FixedWeights,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
    ) -> LossOutput:
        """Compute all terms present, and move the state on. A fused backend takes no alignment: see
        :mod:`ttsfast.losses.beside`.

        Args:
            spec: resolved options.
            inputs: checked tensors; lengths off the host are not checked and must be clamped.
            state: on the inputs' device.
            normalizer: as in :meth:`ttsfast.losses.module.TTSLoss.forward`.
            grad_scale: the gradient expected to arrive at the total; a hint that changes no result.
        """

    def update(self, spec: LossSpec, state: StepState, values: Tensor, floors: Tensor) -> bool:
        """Move the factors on by the terms of a step, each (n,); False, and nothing done, where it cannot."""


class TorchBackend:
    """The reference: any device, any dtype, differentiable as often as autograd allows."""

    name = "torch"
    declined: tuple[type[Exception], ...] = ()

    def missing(self) -> str | None:
        return None

    def declines(self, spec: LossSpec, inputs: LossInputs) -> str | None:
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
        # Autograd multiplies by whatever arrives at the total, so there is nothing to anticipate.
        fixed = fixed_weights(spec, state, inputs.compute_dtype())
        out = reference.run(spec, inputs, fixed, normalizer)
        if isinstance(state, StepState):
            adaptive.move_on(spec, state, out.values, out.floor_values)
        return out

    def update(self, spec: LossSpec, state: StepState, values: Tensor, floors: Tensor) -> bool:
        adaptive.update(state, state.method, spec.active, values, floors)
        return True


BACKENDS: dict[str, Backend] = {"triton": TritonBackend(), "cpp": CppBackend(), "torch": TorchBackend()}
"""In the order that ``"auto"`` asks them in."""
NAMES = ("auto", "torch", "cpp", "triton")


def unavailable(name: str) -> str | None:
    """Why the backend ``name`` cannot run here, None when it can; what ``ttsfast env`` prints."""
    return BACKENDS[name].missing()


def check_name(name: str) -> None:
    """Raise ValueError for an unknown name, RuntimeError for a backend asked for by name that cannot run."""
    if name not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(NAMES)}, got {name!r}")
    reason = None if name == "auto" else unavailable(name)
    if reason is not None:
        raise RuntimeError(f"loss backend {name!r} is not available: {reason}")


def for_unchecked(name: str, device: torch.device) -> Backend | None:
    """The backend that checks a call of tensors on ``device`` by itself; None where the checks come first."""
    for backend in BACKENDS.values() if name == "auto" else (BACKENDS[name],):
        if backend.accepts_unchecked(device):
            return backend
    return None


def choose(name: str, spec: LossSpec, inputs: LossInputs) -> Backend:
    """The backend for one call.

    Raises:
        RuntimeError: a backend asked for by name cannot serve these tensors; it never falls back.
    """
    if name != "auto":
        reason = BACKENDS[name].declines(spec, inputs)
        if reason is not None:
            raise RuntimeError(f"loss backend {name!r} cannot serve this call: {reason}")
        return BACKENDS[name]
    for backend in _automatic():
        if backend.declines(spec, inputs) is None:
            return backend
    raise AssertionError("the torch backend serves every call")


def update(name: str, spec: LossSpec, state: StepState, values: Tensor, floors: Tensor) -> None:
    """Move the factors on by the terms of a step, each (n,), on the backend or, where it cannot, in torch."""
    for backend in _automatic() if name == "auto" else (BACKENDS[name], BACKENDS["torch"]):
        if backend.update(spec, state, values, floors):
            return


def _automatic() -> list[Backend]:
    # Triton in Python is a thing for tests, which ask for it by name.
    return [b for n, b in BACKENDS.items() if not (n == "triton" and interpreted()) and b.missing() is None]
