"""The options of a loss: their ranges, and the plain numbers that the backends take from them."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ttsfast.losses import reference
from ttsfast.terms.checks import check_integer, in_range, one_of
from ttsfast.terms.spec import TERMS, LossSpec


def resolve(options: LossSpec, mel_std: Tensor | None) -> LossSpec:
    """Options as a user gave them, checked, as plain numbers, with the floor of the mel term.

    Args:
        mel_std: (C,) of the noise, 1 when None.

    Raises:
        TypeError, ValueError: an option of the wrong kind, unknown or out of its range.
    """
    _check(options)
    smoothing = 0.0 if options.mel_smoothing == "none" else float(options.mel_label_smoothing)
    floor = 0.0
    if options.mel_smoothing == "noise":
        std = torch.ones(1, device="cpu") if mel_std is None else mel_std.cpu()
        noise = smoothing * std.double()
        floor = float(reference.mel_noise_floor(options.mel_loss, options.huber_delta, noise).mean())
    return replace(
        options,
        huber_delta=float(options.huber_delta),
        mel_label_smoothing=smoothing,
        mel_floor=floor,
        kl_free_bits=float(options.kl_free_bits),
        stop_label_smoothing=float(options.stop_label_smoothing),
        stop_pos_weight=float(options.stop_pos_weight),
        attention_sigma=float(options.attention_sigma),
        seed=int(options.seed),
    )


def without_smoothing(spec: LossSpec) -> LossSpec:
    """The options of evaluation: the targets as they are."""
    return replace(
        spec, mel_smoothing="none", mel_label_smoothing=0.0, mel_floor=0.0, stop_label_smoothing=0.0
    )


def statistic(name: str, values: Tensor | Sequence[float] | None) -> Tensor | None:
    """A copy of the corpus statistic ``mel_mean`` or ``mel_std``, (C,).

    Raises:
        TypeError: what no tensor can be made of.
        ValueError: no real, finite numbers of that shape, a negative deviation, or no values at all (meta).
    """
    if values is None:
        return None
    try:
        held = torch.as_tensor(values).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must hold real numbers of shape (C,): {error}") from error
    if held.dim() != 1 or len(held) == 0 or not held.is_floating_point():
        raise ValueError(
            f"{name} must hold real numbers of shape (C,), got {tuple(held.shape)} of {held.dtype}"
        )
    if held.is_meta:
        raise ValueError(
            f"{name} holds values, which the meta device does not keep: make the loss outside of "
            "torch.device('meta')"
        )
    if not bool(held.isfinite().all()) or (name == "mel_std" and bool((held < 0).any())):
        raise ValueError(f"{name} must be finite{' and at least 0' if name == 'mel_std' else ''}")
    return held


def _check(options: LossSpec) -> None:
    for term, weight in zip(TERMS, options.base_weights, strict=True):
        in_range(f"{term}_weight", weight, 0, math.inf)
    one_of("mel_loss", options.mel_loss, ("huber", "l1", "mse"))
    one_of("mel_smoothing", options.mel_smoothing, ("none", "mean", "noise"))
    one_of("normalization", options.normalization, ("frame", "utterance"))
    one_of("kl_normalization", options.kl_normalization, ("elbo", "vector"))
    in_range("huber_delta", options.huber_delta, 0, math.inf, open_low=True)
    in_range("mel_label_smoothing", options.mel_label_smoothing, 0, 1)
    in_range("kl_free_bits", options.kl_free_bits, 0, math.inf)
    in_range("stop_label_smoothing", options.stop_label_smoothing, 0, 1)
    in_range("stop_pos_weight", options.stop_pos_weight, 0, math.inf, open_low=True)
    check_integer("stop_tail_frames", options.stop_tail_frames)
    in_range("attention_sigma", options.attention_sigma, 0, math.inf, open_low=True)
    try:
        operator.index(options.seed)
    except TypeError as error:
        raise TypeError(f"seed must be a whole number, got {options.seed!r}") from error
