"""Which implementation computes: the plain torch reference, or a fused one behind the same two calls."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ttsfast import native
from ttsfast.devices import TritonKernels, interpreted
from ttsfast.terms.autograd import why_not_plain
from ttsfast.terms.checks import one_of

NAMES = ("auto", "torch", "cpp", "triton")


class Backend(Protocol):
    """A fused implementation. Lengths off the host are clamped to their axes."""

    name: str

    def missing(self) -> str | None:
        """Why it cannot run on this installation, and the remedy; None when it can."""

    def serves(self, device: torch.device) -> bool:
        """Whether it computes there."""

    def search(self, scores: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor:
        """As :func:`ttsfast.alignment.reference.search`, of any float dtype."""

    def forward_sum(
        self,
        log_probs: Tensor,
        text_lengths: Tensor,
        mel_lengths: Tensor,
        blank_log_prob: float,
        scale: Tensor,
        wanted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The losses of :func:`ttsfast.alignment.reference.forward_sum` times ``scale`` (B,), and, where it
        is ``wanted``, their gradient (B, T, N), dense and in the dtype of ``scale``."""


class CppBackend:
    """The C++ extension, a thread for each utterance."""

    name = "cpp"

    def missing(self) -> str | None:
        return None if native.core is not None else native.why_missing

    def serves(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def search(self, scores: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor:
        batch, _, symbols = scores.shape
        durations = torch.empty(batch, symbols, dtype=torch.int64)
        threads = torch.get_num_threads()
        native.with_torch().monotonic_alignment(scores, text_lengths, mel_lengths, durations, threads)
        return durations

    def forward_sum(
        self,
        log_probs: Tensor,
        text_lengths: Tensor,
        mel_lengths: Tensor,
        blank_log_prob: float,
        scale: Tensor,
        wanted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        losses = torch.empty_like(scale)
        gradient = torch.empty(log_probs.shape, dtype=scale.dtype) if wanted else None
        threads = torch.get_num_threads()
        native.with_torch().forward_sum(
            log_probs, text_lengths, mel_lengths, blank_log_prob, scale, losses, gradient, threads
        )
        return losses, gradient


class TritonBackend:
    """Kernels of :mod:`ttsfast.kernels`, a program for each utterance."""

    name = "triton"

    def __init__(self) -> None:
        self._kernels = TritonKernels()

    def missing(self) -> str | None:
        return self._kernels.missing()

    def serves(self, device: torch.device) -> bool:
        return device.type == "cuda" or (device.type == "cpu" and interpreted())

    def search(self, scores: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Tensor:
        # Imported where they are used: ``import ttsfast`` needs no Triton.
        from ttsfast.kernels import search

        return search.search(scores, text_lengths, mel_lengths)

    def forward_sum(
        self,
        log_probs: Tensor,
        text_lengths: Tensor,
        mel_lengths: Tensor,
        blank_log_prob: float,
        scale: Tensor,
        wanted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        from ttsfast.kernels import forward_sum

        return forward_sum.forward_sum(log_probs, text_lengths, mel_lengths, blank_log_prob, scale, wanted)


BACKENDS: dict[str, Backend] = {"triton": TritonBackend(), "cpp": CppBackend()}
"""In the order that ``"auto"`` asks them in."""


def choose(name: str, tensor: Tensor, text_lengths: Tensor, mel_lengths: Tensor) -> Backend | None:
    """The fused backend for one call, None for plain torch.

    Raises:
        ValueError: an unknown name.
        RuntimeError: a backend asked for by name cannot serve these tensors; it never falls back.
    """
    one_of("backend", name, NAMES)
    if name == "torch":
        return None
    tensors = (tensor, text_lengths, mel_lengths)
    if name == "auto":
        # Triton in Python is a thing for tests, which ask for it by name.
        fitting = (
            b for n, b in BACKENDS.items() if b.serves(tensor.device) and (n != "triton" or not interpreted())
        )
        return next((b for b in fitting if _declines(b, tensors) is None), None)
    reason = _declines(BACKENDS[name], tensors)
    if reason is not None:
        raise RuntimeError(f"alignment backend {name!r} cannot serve this call: {reason}")
    return BACKENDS[name]


def _declines(backend: Backend, tensors: tuple[Tensor, ...]) -> str | None:
    reason = backend.missing()
    if reason is not None:
        return reason
    device = tensors[0].device
    if not backend.serves(device):
        return f"it does not compute on {device}; use backend='auto'"
    return None if torch.compiler.is_compiling() else why_not_plain(tensors)


def scaled(gradient: Tensor, incoming: Tensor) -> Tensor:
    """A gradient (B, T, N) times what arrived at the losses (B,); padding is 0 also times infinity or NaN."""
    return torch.where(gradient == 0, gradient, gradient * incoming[:, None, None])
