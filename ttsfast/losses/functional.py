"""The terms alone, with the conventions of ``torch.nn.functional``.

``reduction="none"`` gives every element (0 in padding), ``"sum"`` their sum, ``"mean"`` the sum divided by
what the docstring says, at least 1. Half precision is computed in float32; results keep that dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttsfast.losses import reference
from ttsfast.losses.checks import check_attention, check_flags, check_lengths, check_real
from ttsfast.losses.spec import compute_dtype, stop_coefficients


def mel_huber_loss(
    input: Tensor,
    target: Tensor,
    lengths: Tensor | None = None,
    *,
    reduction: str = "mean",
    delta: float = 1.0,
    label_smoothing: float = 0.0,
    mel_mean: Tensor | None = None,
) -> Tensor:
    """``torch.nn.functional.huber_loss`` over the valid frames.

    Args:
        input, target: (B, T, C)
        lengths: (B,) valid frames; every frame when None.
        reduction: ``"none"`` (B, T, C), ``"sum"``, or ``"mean"`` over valid elements.
        delta: quadratic within, of slope delta beyond.
        label_smoothing: e in the target ``(1 - e) * y + e * mel_mean``.
        mel_mean: (C,), 0 when None.

    Raises:
        TypeError, ValueError: arguments that do not fit.
    """
    check_real("target", target, ("B", "T", "C"))
    check_real("input", input, target.shape, target)
    _check_reduction(reduction)
    if not delta > 0:
        raise ValueError(f"delta must be more than 0, got {delta!r}")
    valid = _valid("lengths", lengths, target, target.shape[1], "target's axis T")
    dtype = compute_dtype((input, target))
    target = target.to(dtype)
    if label_smoothing != 0:
        target = (1 - label_smoothing) * target
        if mel_mean is not None:
            check_real("mel_mean", mel_mean, target.shape[2:], target)
            target = target + label_smoothing * mel_mean.to(dtype)
    elements = reference.mel_elements(input.to(dtype), target, valid, "huber", delta)
    return _reduce(elements, reduction, valid.sum() * target.shape[2])


def gaussian_kl_loss(
    mu: Tensor,
    logvar: Tensor,
    lengths: Tensor | None = None,
    *,
    prior: tuple[Tensor, Tensor] | None = None,
    reduction: str = "mean",
    free_bits: float = 0.0,
) -> Tensor:
    """KL divergence of diagonal Gaussians in nats per latent vector.

    Args:
        mu, logvar: (B, Z) or (B, T, Z)
        lengths: (B,) valid frames, or for (B, Z) any lengths, where 0 means absent; all when None.
        prior: (mu, logvar) of the same shape; N(0, I) when None.
        reduction: ``"none"`` (B,) or (B, T), ``"sum"``, or ``"mean"`` over valid latent vectors.
        free_bits: nats per vector below which the value is constant and no gradient flows.

    Raises:
        TypeError, ValueError: arguments that do not fit.
    """
    per_frame = isinstance(mu, Tensor) and mu.dim() == 3
    check_real("mu", mu, ("B", "T", "Z") if per_frame else ("B", "Z"))
    check_real("logvar", logvar, mu.shape, mu)
    _check_reduction(reduction)
    dtype = compute_dtype((mu, logvar, *(prior or ())))
    if prior is not None:
        for name, part in zip(("prior mu", "prior logvar"), prior, strict=True):
            check_real(name, part, mu.shape, mu)
        prior = (prior[0].to(dtype), prior[1].to(dtype))
    size = mu.shape[1] if per_frame else torch.iinfo(torch.int64).max
    if per_frame:
        valid = _valid("lengths", lengths, mu, size, "mu's axis T")
    elif lengths is None:
        valid = torch.ones(mu.shape[0], dtype=torch.bool, device=mu.device)
    else:
        valid = check_lengths("lengths", lengths, mu, size, "an utterance") > 0
    nats = reference.kl_vectors(mu.to(dtype), logvar.to(dtype), prior, valid, free_bits)
    return _reduce(nats, reduction, valid.sum())


def stop_bce_loss(
    input: Tensor,
    lengths: Tensor,
    *,
    truncated: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: float = 1.0,
    label_smoothing: float = 0.0,
    tail_frames: int = 8,
) -> Tensor:
    """``torch.nn.functional.binary_cross_entropy_with_logits`` against the stop targets of ``lengths``.

    The target is 1 from the last valid step through ``tail_frames`` steps after it, as far as S goes.

    Args:
        input: (B, S) logits.
        lengths: (B,) valid steps.
        truncated: (B,) bool, utterances without a positive target and without a tail.
        reduction: ``"none"`` (B, S), ``"sum"``, or ``"mean"`` over valid and tail steps.
        pos_weight: weight of the positive part, as in ``torch.nn.BCEWithLogitsLoss``.
        label_smoothing: e in ``q = y (1 - e) + e / 2``.
        tail_frames: steps after the end that are trained as stops.

    Raises:
        TypeError, ValueError: arguments that do not fit.
    """
    check_real("input", input, ("B", "S"))
    check_lengths("lengths", lengths, input, input.shape[1], "input's axis S")
    if truncated is not None:
        check_flags("truncated", truncated, input)
    _check_reduction(reduction)
    steps = input.shape[1]
    lengths = lengths.long().clamp(0, steps)
    positive, included = reference.stop_targets(lengths, truncated, tail_frames, steps)
    coefficients = stop_coefficients(label_smoothing, pos_weight)
    elements = reference.stop_elements(input.to(compute_dtype((input,))), positive, included, coefficients)
    return _reduce(elements, reduction, included.sum())


def guided_attention_loss(
    attention: Tensor,
    step_lengths: Tensor,
    text_lengths: Tensor,
    *,
    reduction: str = "mean",
    sigma: float = 0.2,
) -> Tensor:
    """Guided attention (Tachibana et al., 2017): ``A * (1 - exp(-(n/N_b - t/T_b)^2 / (2 sigma^2)))``.

    Args:
        attention: (B, S, N) or (B, H, S, N) weights.
        step_lengths: (B,) valid decoder steps.
        text_lengths: (B,) valid symbols.
        reduction: ``"none"`` (the shape of ``attention``), ``"sum"``, or ``"mean"``: the sum over text,
            averaged over valid steps and heads (each step's weights sum to 1, so a mean over symbols too
            would shrink with the length of the text).
        sigma: width of the diagonal.

    Raises:
        TypeError, ValueError: arguments that do not fit.
    """
    check_attention("attention", attention, None, "B")
    steps, symbols = attention.shape[-2:]
    check_lengths("step_lengths", step_lengths, attention, steps, "attention's axis S")
    check_lengths("text_lengths", text_lengths, attention, symbols, "attention's axis N")
    _check_reduction(reduction)
    if not sigma > 0:
        raise ValueError(f"sigma must be more than 0, got {sigma!r}")
    step_lengths, text_lengths = step_lengths.long().clamp(0, steps), text_lengths.long().clamp(0, symbols)
    weights = attention.to(compute_dtype((attention,)))
    elements = reference.attention_elements(weights, step_lengths, text_lengths, sigma)
    heads = attention.shape[1] if attention.dim() == 4 else 1
    return _reduce(elements, reduction, step_lengths.sum() * heads)


def _valid(name: str, lengths: Tensor | None, like: Tensor, size: int, axis: str) -> Tensor:
    if lengths is None:
        return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)
    return reference.valid_mask(check_lengths(name, lengths, like, size, axis), size)


def _reduce(elements: Tensor, reduction: str, count: Tensor) -> Tensor:
    if reduction == "none":
        return elements
    total = elements.sum()
    return total if reduction == "sum" else total / count.clamp(min=1)


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be none, sum or mean, got {reduction!r}")
