"""What a loss backend is given: options and tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

FUSED = ("mel", "kl", "stop", "attention")
"""The terms of the one fused launch."""
TERMS = (*FUSED, "alignment", "binarization")
"""The order of every vector by term: values, floors, weights, factors. Those of a call without an alignment
have :data:`FUSED` alone."""


@dataclass(frozen=True)
class LossSpec:
    """The options of one :class:`ttsfast.losses.module.TTSLoss`, checked and resolved to plain numbers.

    Hashable, so a backend may key compiled variants by it.
    """

    base_weights: tuple[float, ...]
    """By term, in the order of :data:`TERMS`; a term of weight 0 is reported and sends no gradient."""
    mel_loss: str
    """``"huber"``, ``"l1"`` or ``"mse"``"""
    huber_delta: float
    mel_smoothing: str
    """``"none"``, ``"mean"`` or ``"noise"``"""
    mel_label_smoothing: float
    """e in ``(1 - e) * y + e * mean`` and in ``y + e * std * xi``; 0 with ``"none"``"""
    mel_floor: float
    """The least value of one element of one prediction, averaged over bins."""
    normalization: str
    """``"frame"`` or ``"utterance"``"""
    kl_normalization: str
    """``"elbo"`` or ``"vector"``"""
    kl_free_bits: float
    """In nats per latent vector."""
    stop_label_smoothing: float
    stop_pos_weight: float
    stop_tail_frames: int
    """In steps of the stop axis."""
    attention_sigma: float
    seed: int
    """First word of the Philox key; the second is the step."""

    @property
    def active(self) -> tuple[bool, ...]:
        """Whether each term enters the total."""
        # Not a generator: torch's compiler before 2.7 does not follow one.
        return tuple([weight != 0.0 for weight in self.base_weights])

    @property
    def stop_coefficients(self) -> tuple[tuple[float, float], ...]:
        """``(a, b)`` for targets 0 and 1: an element is ``a * softplus(-x) + b * softplus(x)``."""
        half, weight = self.stop_label_smoothing / 2, self.stop_pos_weight
        return (weight * half, 1 - half), (weight * (1 - half), half)

    @property
    def stop_floors(self) -> tuple[float, float]:
        """The least value of one stop element, for targets 0 and 1."""
        negative, positive = (_least_cross_entropy(a, b) for a, b in self.stop_coefficients)
        return negative, positive


class AlignmentInputs(NamedTuple):
    """What the aligner of a model gives, of the lengths of :class:`LossInputs`; S steps, N symbols."""

    log_probs: Tensor
    """(B, S, N)"""
    prior: Tensor | None
    """(B, S, N), added to ``log_probs``"""
    path: Tensor | None
    """Durations (B, N) of an integer type, or a path (B, S, N) bool; given for the binarization term."""


class LossInputs(NamedTuple):
    """The tensors of one call, checked; B utterances, T frames, C bins, S steps, N symbols, Z latents."""

    mel: tuple[Tensor, ...]
    """One or two predictions (B, T, C), any strides."""
    target: Tensor
    """(B, T, C)"""
    mel_lengths: Tensor
    """(B,) any integer type; on the host within 0..T, elsewhere clamped to it by the backend."""
    step_lengths: Tensor
    """(B,) within 0..S, or clamped to it; ``mel_lengths`` itself where r = 1."""
    text_lengths: Tensor | None
    """(B,) within 0..N, or clamped to it; given whenever ``attention`` or ``alignment`` is."""
    truncated: Tensor | None
    """(B,) bool"""
    stop_logits: Tensor | None
    """(B, S)"""
    posterior: tuple[Tensor, Tensor] | None
    """(mu, logvar), each (B, Z) or (B, T, Z)"""
    prior: tuple[Tensor, Tensor] | None
    """(mu, logvar), shaped as the posterior"""
    attention: tuple[Tensor, ...]
    """Layers, each (B, S, N) or (B, H, S, N); empty when absent."""
    mel_mean: Tensor | None
    """(C,) or None for 0"""
    mel_std: Tensor | None
    """(C,) or None for 1"""
    alignment: AlignmentInputs | None = None

    # Methods, not properties: torch's compiler before 2.7 does not follow a named tuple's properties.
    def present(self) -> tuple[bool, ...]:
        """Which terms have inputs, in the order of :data:`TERMS`: all of them, or without an alignment
        :data:`FUSED`."""
        fused = (True, self.posterior is not None, self.stop_logits is not None, len(self.attention) > 0)
        return fused if self.alignment is None else (*fused, True, self.alignment.path is not None)

    def values(self) -> list[Tensor]:
        """Every tensor of real numbers."""
        latents = [*(self.posterior or ()), *(self.prior or ())]
        stop = [] if self.stop_logits is None else [self.stop_logits]
        aligner = [] if self.alignment is None else [self.alignment.log_probs]
        if self.alignment is not None and self.alignment.prior is not None:
            aligner.append(self.alignment.prior)
        return [*self.mel, self.target, *latents, *stop, *self.attention, *aligner]

    def memory(self) -> list[Tensor | None]:
        """Every tensor that a fused backend reads as it lies."""
        path = None if self.alignment is None else self.alignment.path
        integers = (self.mel_lengths, self.step_lengths, self.text_lengths, self.truncated, path)
        return [*self.values(), *integers]

    def fused(self) -> LossInputs:
        """Those of the terms of the fused launch."""
        # Spelled out, since torch's compiler before 2.7 does not follow a named tuple's _replace.
        return LossInputs(
            self.mel,
            self.target,
            self.mel_lengths,
            self.step_lengths,
            self.text_lengths if self.attention else None,
            self.truncated,
            self.stop_logits,
            self.posterior,
            self.prior,
            self.attention,
            self.mel_mean,
            self.mel_std,
        )

    def compute_dtype(self) -> torch.dtype:
        """float64 where any input is, float32 otherwise: half precision is never computed in."""
        return compute_dtype(self.values())


def compute_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """float64 where any tensor is float64, float32 otherwise."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _least_cross_entropy(a: float, b: float) -> float:
    """``min over p of -(a log p + b log(1 - p))``, reached at ``p = a / (a + b)``."""
    return sum(-x * math.log(x / (a + b)) for x in (a, b) if x > 0)
