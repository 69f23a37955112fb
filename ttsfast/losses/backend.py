"""Which implementation computes the loss: the plain torch reference, or a fused one behind the same call."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ttsfast.losses import reference
from ttsfast.losses.cpp import CppBackend
from ttsfast.losses.triton import TritonBackend, interpreted
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import BackendResult, LossInputs, LossSpec
from ttsfast.terms.state import StepState

NAMES = ("auto", "torch", "cpp", "triton")


class Backend(Protocol):
    """One implementation of all terms, values and gradients."""

    name: str

    def missing(self) -> str | None:
        """Why it cannot run on this installation, and the remedy; None when it can."""

    def declines(self, spec: LossSpec, inputs: LossInputs) -> str | None:
        """Why it cannot serve these tensors; None when it can. Must not wait for a device."""

    def run(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        weights: Tensor,
        normalizer: Counts | Tensor | float | None,
        grad_scale: Tensor | float | None,
        step: Tensor,
    ) -> BackendResult:
        """Compute all terms present.

        Args:
            spec: resolved options.
            inputs: checked tensors; lengths off the host are not checked and must be clamped.
            weights: (4,) weight of each term in the compute dtype, adaptive factors included.
            normalizer: as in :meth:`ttsfast.losses.module.TTSLoss.forward`.
            grad_scale: the gradient expected to arrive at the total; a hint that changes no result.
            step: () int64 on the inputs' device, second word of the Philox key.
        """


class TorchBackend:
    """The reference: any device, any dtype, differentiable as often as autograd allows."""

    name = "torch"

    def missing(self) -> str | None:
        return None

    def declines(self, spec: LossSpec, inputs: LossInputs) -> str | None:
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
        # Autograd multiplies by whatever arrives at the total, so there is nothing to anticipate.
        return reference.run(spec, inputs, weights, normalizer, step)


_registered: dict[str, Backend] = {"torch": TorchBackend(), "cpp": CppBackend(), "triton": TritonBackend()}


def register(backend: Backend) -> None:
    """Offer an implementation under its name; ``"auto"`` prefers the latest one that can serve."""
    if backend.name not in NAMES[1:]:
        raise ValueError(f"backend name must be one of {', '.join(NAMES[1:])}, got {backend.name!r}")
    _registered[backend.name] = backend


def unavailable(name: str) -> str | None:
    """Why the backend ``name`` cannot run here, None when it can; what ``ttsfast env`` prints."""
    if name not in _registered:
        return f"this build of ttsfast contains no {name} loss kernels; use backend='auto' or 'torch'"
    return _registered[name].missing()


def check_name(name: str) -> None:
    """Raise ValueError for an unknown name, RuntimeError for a backend asked for by name that cannot run."""
    if name not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(NAMES)}, got {name!r}")
    reason = None if name == "auto" else unavailable(name)
    if reason is not None:
        raise RuntimeError(f"loss backend {name!r} is not available: {reason}")


def in_one_call(name: str) -> CppBackend | None:
    """The backend to offer a call to before anything is checked: the C++ one, where no other comes before it
    for tensors on the CPU. Triton never does: ``"auto"`` leaves them to it in no case."""
    candidates = reversed(_registered.values()) if name == "auto" else (_registered[name],)
    for backend in candidates:
        if isinstance(backend, CppBackend):
            return backend
        if type(backend) is not TritonBackend:
            break
    return None


def observe(name: str, spec: LossSpec, state: StepState, values: Tensor, floors: Tensor) -> bool:
    """Let a fused backend move ``state`` on by summed values and floors; False where none can."""
    for backend in reversed(_registered.values()) if name == "auto" else (_registered[name],):
        if not isinstance(backend, (CppBackend, TritonBackend)) or backend.missing() is not None:
            continue
        if (name != "auto" or backend.name != "triton" or not interpreted()) and backend.observe(
            spec, state, values, floors
        ):
            return True
    return False


def choose(name: str, spec: LossSpec, inputs: LossInputs) -> Backend:
    """The backend for one call.

    Raises:
        RuntimeError: a backend asked for by name cannot serve these tensors; it never falls back.
    """
    if name != "auto":
        backend = _registered[name]
        reason = backend.declines(spec, inputs)
        if reason is not None:
            raise RuntimeError(f"loss backend {name!r} cannot serve this call: {reason}")
        return backend
    for backend in reversed(_registered.values()):
        if backend.name == "triton" and interpreted():
            # Triton in Python is a thing for tests, which ask for it by name.
            continue
        if backend.missing() is None and backend.declines(spec, inputs) is None:
            return backend
    raise AssertionError("the torch backend serves every call")
