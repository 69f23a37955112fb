"""What a loss backend is given: options and tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

TERMS = ("mel", "kl", "stop", "attention")
"""The order of every vector of four: values, floors, weights, factors."""


@dataclass(frozen=True)
class LossSpec:
    """The options of one :class:`ttsfast.losses.module.TTSLoss`, checked and resolved to plain numbers.

    Hashable, so a backend may key compiled variants by it.
    """

    base_weights: tuple[float, float, float, float]
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
        mel, kl, stop, attention = self.base_weights
        return mel != 0.0, kl != 0.0, stop != 0.0, attention != 0.0

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
    """(B,) within 0..N, or clamped to it; given whenever ``attention`` is."""
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

    # Methods, not properties: torch's compiler before 2.7 does not follow a named tuple's properties.
    def present(self) -> tuple[bool, bool, bool, bool]:
        """Which terms have inputs, in the order of :data:`TERMS`."""
        return True, self.posterior is not None, self.stop_logits is not None, len(self.attention) > 0

    def values(self) -> list[Tensor]:
        """Every tensor of real numbers."""
        latents = [*(self.posterior or ()), *(self.prior or ())]
        stop = [] if self.stop_logits is None else [self.stop_logits]
        return [*self.mel, self.target, *latents, *stop, *self.attention]

    def memory(self) -> list[Tensor | None]:
        """Every tensor that a fused backend reads as it lies."""
        integers = (self.mel_lengths, self.step_lengths, self.text_lengths, self.truncated)
        return [*self.values(), *integers]

    def compute_dtype(self) -> torch.dtype:
        """float64 where any input is, float32 otherwise: half precision is never computed in."""
        return compute_dtype(self.values())


def compute_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """float64 where any tensor is float64, float32 otherwise."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _least_cross_entropy(a: float, b: float) -> float:
    """``min over p of -(a log p + b log(1 - p))``, reached at ``p = a / (a + b)``."""
    return sum(-x * math.log(x / (a + b)) for x in (a, b) if x > 0)
