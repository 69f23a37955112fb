"""The losses' one way into the C++ extension: the options of a loss, made ready for calls.

``plan_of(spec).call(inputs, state, normalizer, scale, wanted, allocate, threads, isa)`` checks and computes a
call and writes its gradients (``csrc/loss/binding.cpp``):

- ``inputs``: :class:`LossInputs` as ``TTSLoss`` is given them: nobody need have checked them, ``mel`` and
  ``attention`` may be single tensors, and attention that is absent is None.
- ``state``: :class:`StepState`, which the call moves on. Or the weights (6,) and the step of the noise, from
  a caller who moves the state by itself, such as a compiled graph, whose lengths nobody could check: they are
  clamped.
- ``normalizer``: as in ``TTSLoss.forward``; ``scale``: :func:`hint_of` the gradient scale.
- ``wanted``: whether gradients are, and then those of the tensors of active terms that require one; or a list
  of bools, one for each of ``inputs.values()``.
- ``allocate``: memory for the gradient of a tensor, of the tensor's shape.
- ``threads``, and ``isa``: :data:`BEST_ISA`, 1 (baseline), 2 (AVX2) or 3 (AVX-512).

It returns what it computed (total, values, floors, weights and frames as tensors, which terms were present,
and the tensors that have a gradient), and an object that holds the gradients. ``Declined``, a ValueError with
nothing written or moved, meets every call that is wrong, and what is only unusual: the checks in Python tell
them apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor

from ttsfast import native
from ttsfast.terms.spec import LossInputs, LossSpec
from ttsfast.terms.state import (
    DWA_TEMPERATURE,
    FACTOR_BOUNDS,
    FAST_DECAY,
    LOG_VARIANCE_BOUND,
    SLOW_DECAY,
    STEEPEST,
    UNCERTAINTY_RATE,
)

BEST_ISA = 0
"""Let the extension pick its instruction set."""

_DISTANCES = {"huber": 0, "l1": 1, "mse": 2}
_SMOOTHINGS = {"none": 0, "mean": 1, "noise": 2}

LARGEST_HINT = 2.0**64
"""Of a gradient scale: beyond it, or below its inverse, gradients could overflow or vanish before they are
rescaled. A loss scaler's is below 2^32."""


def hint_of(grad_scale: Tensor | float | None) -> float:
    """The scale that gradients are written with: the one expected, where they can be recovered from it."""
    scale = 1.0 if grad_scale is None else float(grad_scale)
    return scale if 1 / LARGEST_HINT <= abs(scale) <= LARGEST_HINT else 1.0


def as_given(inputs: LossInputs) -> LossInputs:
    """Checked inputs as the extension takes them: attention that is absent is None, never empty, and has no
    lengths, which a trainer may give for every model.
    """
    return (
        inputs
        if inputs.attention
        else inputs._replace(
            attention=None,  # type: ignore[arg-type]
            text_lengths=None,
        )
    )


@lru_cache(maxsize=64)
def plan_of(spec: LossSpec) -> Any:
    """The spec in the extension's own form."""
    return native.with_torch().LossPlan(
        {
            "active": spec.active,
            "base_weights": spec.base_weights,
            "by_utterance": spec.normalization == "utterance",
            "elbo": spec.kl_normalization == "elbo",
            "mel_floor": spec.mel_floor,
            "stop_floors": spec.stop_floors,
            "stop_tail": spec.stop_tail_frames,
            "distance": _DISTANCES[spec.mel_loss],
            "delta": spec.huber_delta,
            "smoothing": _SMOOTHINGS[spec.mel_smoothing],
            "amount": spec.mel_label_smoothing,
            "free_bits": spec.kl_free_bits,
            "coefficients": spec.stop_coefficients,
            "sigma": spec.attention_sigma,
            "seed": spec.seed & 0xFFFFFFFF,
            "fast_decay": FAST_DECAY,
            "slow_decay": SLOW_DECAY,
            "temperature": DWA_TEMPERATURE,
            "factor_bounds": FACTOR_BOUNDS,
            "rate": UNCERTAINTY_RATE,
            "steepest": STEEPEST,
            "log_variance_bound": LOG_VARIANCE_BOUND,
        }
    )
