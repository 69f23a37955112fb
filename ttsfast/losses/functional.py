"""The terms alone, with the conventions of ``torch.nn.functional``.

``reduction="none"`` gives every element (0 in padding), ``"sum"`` their sum, ``"mean"`` the sum divided by
what the docstring says, at least 1. Half precision is computed in float32; results keep that dtype.

``backend`` is chosen as by :class:`ttsfast.losses.module.TTSLoss`: ``"auto"`` takes the fastest that serves
the tensors, and one asked for by name never falls back. ``"triton"`` and ``"cpp"`` write the gradients of
``"sum"`` and ``"mean"`` in the forward pass and are differentiable once, ``"torch"`` as often as you like.
``"none"`` is plain torch's alone: its gradients depend on what arrives at each element.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ttsfast.losses import backend as backends
from ttsfast.losses import reference
from ttsfast.losses.checks import check_attention
from ttsfast.terms.checks import check_flags, check_integer, check_lengths, check_real, in_range, one_of
from ttsfast.terms.counts import Counts
from ttsfast.terms.masks import stop_targets, valid_mask
from ttsfast.terms.spec import TERMS, LossInputs, LossSpec
from ttsfast.terms.state import FixedWeights


def mel_huber_loss(
    input: Tensor,
    target: Tensor,
    lengths: Tensor | None = None,
    *,
    reduction: str = "mean",
    delta: float = 1.0,
    label_smoothing: float = 0.0,
    mel_mean: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """``torch.nn.functional.huber_loss`` over the valid frames.

    Args:
        input, target: (B, T, C)
        lengths: (B,) valid frames; every frame when None.
        reduction: ``"none"`` (B, T, C), ``"sum"``, or ``"mean"`` over valid elements.
        delta: quadratic within, of slope delta beyond.
        label_smoothing: e in the target ``(1 - e) * y + e * mel_mean``.
        mel_mean: (C,), 0 when None; a constant, which gets no gradient.
        backend: ``"auto"``, ``"torch"``, ``"cpp"`` or ``"triton"``; the last sends no gradient to ``target``.

    Raises:
        TypeError, ValueError: arguments that do not fit.
        RuntimeError: a backend asked for by name that cannot serve them.
    """
    check_real("target", target, ("B", "T", "C"))
    check_real("input", input, target.shape, target)
    _check_call(reduction, backend)
    in_range("delta", delta, 0, math.inf, open_low=True)
    in_range("label_smoothing", label_smoothing, 0, 1)
    _, frames, bins = target.shape
    if bins == 0:
        raise ValueError(f"target must have at least one mel bin, got shape {tuple(target.shape)}")
    if mel_mean is not None:
        mel_mean = check_real("mel_mean", mel_mean, (bins,), target).detach()
    lengths = _lengths("lengths", lengths, target, frames, "target's axis T")
    spec = _spec(
        "mel",
        float(bins) if reduction == "sum" else 1.0,
        huber_delta=float(delta),
        mel_smoothing="none" if label_smoothing == 0 else "mean",
        mel_label_smoothing=float(label_smoothing),
    )
    inputs = _inputs(target, mel=(input,), mel_lengths=lengths, mel_mean=mel_mean)
    total = _fused(spec, inputs, reduction, backend)
    if total is not None:
        return total
    dtype = inputs.compute_dtype()
    valid = valid_mask(lengths.long().clamp(0, frames), frames)
    target = reference.smoothed_target(spec, target.to(dtype), mel_mean, None, lengths)
    values = reference.mel_elements(input.to(dtype), target, valid, "huber", delta)
    return _reduce(values, reduction, valid.sum() * bins)


def gaussian_kl_loss(
    mu: Tensor,
    logvar: Tensor,
    lengths: Tensor | None = None,
    *,
    prior: tuple[Tensor, Tensor] | None = None,
    reduction: str = "mean",
    free_bits: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """KL divergence of diagonal Gaussians in nats per latent vector.

    Args:
        mu, logvar: (B, Z) or (B, T, Z)
        lengths: (B,) valid frames, or for (B, Z) any lengths, where 0 means absent; all when None.
        prior: (mu, logvar) of the same shape; N(0, I) when None.
        reduction: ``"none"`` (B,) or (B, T), ``"sum"``, or ``"mean"`` over valid latent vectors.
        free_bits: nats per vector below which the value is constant and no gradient flows.
        backend: ``"auto"``, ``"torch"``, ``"cpp"`` or ``"triton"``.

    Raises:
        TypeError, ValueError: arguments that do not fit.
        RuntimeError: a backend asked for by name that cannot serve them.
    """
    per_frame = isinstance(mu, Tensor) and mu.dim() == 3
    check_real("mu", mu, ("B", "T", "Z") if per_frame else ("B", "Z"))
    check_real("logvar", logvar, mu.shape, mu)
    _check_call(reduction, backend)
    in_range("free_bits", free_bits, 0, math.inf)
    if prior is not None:
        if not isinstance(prior, (tuple, list)) or len(prior) != 2:
            raise TypeError("prior must be a pair (mu, logvar)")
        check_real("prior mu", prior[0], mu.shape, mu)
        check_real("prior logvar", prior[1], mu.shape, mu)
    frames = mu.shape[1] if per_frame else 1
    if per_frame:
        lengths = _lengths("lengths", lengths, mu, frames, "mu's axis T")
    else:
        # An utterance's one vector is there or not.
        most = torch.iinfo(torch.int64).max
        lengths = (_lengths("lengths", lengths, mu, most, "an utterance") > 0).long()
    spec = _spec("kl", 1.0, kl_free_bits=float(free_bits))
    inputs = _inputs(_blank(mu, frames), mel_lengths=lengths, posterior=(mu, logvar), prior=prior)
    total = _fused(spec, inputs, reduction, backend)
    if total is not None:
        return total
    valid = valid_mask(lengths.long().clamp(0, frames), frames)
    valid = valid if per_frame else valid.squeeze(1)
    mu, logvar, *others = (part.to(inputs.compute_dtype()) for part in (mu, logvar, *(prior or ())))
    nats = reference.kl_vectors(mu, logvar, (others[0], others[1]) if others else None, valid, free_bits)
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
    backend: str = "auto",
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
        backend: ``"auto"``, ``"torch"``, ``"cpp"`` or ``"triton"``.

    Raises:
        TypeError, ValueError: arguments that do not fit.
        RuntimeError: a backend asked for by name that cannot serve them.
    """
    check_real("input", input, ("B", "S"))
    steps = input.shape[1]
    lengths = check_lengths("lengths", lengths, input, steps, "input's axis S")
    if truncated is not None:
        check_flags("truncated", truncated, input)
    _check_call(reduction, backend)
    in_range("pos_weight", pos_weight, 0, math.inf, open_low=True)
    in_range("label_smoothing", label_smoothing, 0, 1)
    check_integer("tail_frames", tail_frames)
    spec = _spec(
        "stop",
        1.0,
        stop_label_smoothing=float(label_smoothing),
        stop_pos_weight=float(pos_weight),
        stop_tail_frames=int(tail_frames),
    )
    inputs = _inputs(_blank(input), mel_lengths=lengths, stop_logits=input, truncated=truncated)
    total = _fused(spec, inputs, reduction, backend)
    if total is not None:
        return total
    lengths = lengths.long().clamp(0, steps)
    positive, included = stop_targets(lengths, truncated, tail_frames, steps)
    logits = input.to(inputs.compute_dtype())
    values = reference.stop_elements(logits, positive, included, spec.stop_coefficients)
    return _reduce(values, reduction, included.sum())


def guided_attention_loss(
    attention: Tensor,
    step_lengths: Tensor,
    text_lengths: Tensor,
    *,
    reduction: str = "mean",
    sigma: float = 0.2,
    backend: str = "auto",
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
        backend: ``"auto"``, ``"torch"``, ``"cpp"`` or ``"triton"``.

    Raises:
        TypeError, ValueError: arguments that do not fit.
        RuntimeError: a backend asked for by name that cannot serve them.
    """
    check_attention("attention", attention, None, "B")
    steps, symbols = attention.shape[-2:]
    step_lengths = check_lengths("step_lengths", step_lengths, attention, steps, "attention's axis S")
    text_lengths = check_lengths("text_lengths", text_lengths, attention, symbols, "attention's axis N")
    _check_call(reduction, backend)
    in_range("sigma", sigma, 0, math.inf, open_low=True)
    heads = attention.shape[1] if attention.dim() == 4 else 1
    spec = _spec(
        "attention", float(max(heads, 1)) if reduction == "sum" else 1.0, attention_sigma=float(sigma)
    )
    inputs = _inputs(
        _blank(attention), mel_lengths=step_lengths, attention=(attention,), text_lengths=text_lengths
    )
    total = _fused(spec, inputs, reduction, backend)
    if total is not None:
        return total
    step_lengths, text_lengths = step_lengths.long().clamp(0, steps), text_lengths.long().clamp(0, symbols)
    weights = attention.to(inputs.compute_dtype())
    values = reference.attention_elements(weights, step_lengths, text_lengths, sigma)
    return _reduce(values, reduction, step_lengths.sum() * heads)


def _fused(spec: LossSpec, inputs: LossInputs, reduction: str, backend: str) -> Tensor | None:
    """One term through a fused backend, its average or its sum; None where plain torch is to compute it."""
    if reduction == "none":
        return None
    chosen = backends.choose(backend, spec, inputs)
    if chosen.name == "torch":
        return None
    device = inputs.target.device
    weights = torch.tensor(spec.base_weights, dtype=inputs.compute_dtype(), device=device)
    # The generator's step, which nothing here draws from.
    step = torch.zeros((), dtype=torch.int64, device=device)
    normalizer = Counts(1.0, 1.0, 1.0, 1.0) if reduction == "sum" else None
    return chosen.call(spec, inputs, FixedWeights(weights, step), normalizer, None).total


@lru_cache(maxsize=64)
def _spec(term: str, weight: float, **options: float | str) -> LossSpec:
    """The term alone, with the given weight."""
    settings: dict[str, float | str] = {
        "mel_loss": "huber",
        "huber_delta": 1.0,
        "mel_smoothing": "none",
        "mel_label_smoothing": 0.0,
        "mel_floor": 0.0,
        "normalization": "frame",
        "kl_normalization": "vector",
        "kl_free_bits": 0.0,
        "stop_label_smoothing": 0.0,
        "stop_pos_weight": 1.0,
        "stop_tail_frames": 0,
        "attention_sigma": 0.2,
        "seed": 0,
    }
    weights = tuple(weight if name == term else 0.0 for name in TERMS)
    return LossSpec(base_weights=weights, **{**settings, **options})  # type: ignore[arg-type]


def _blank(like: Tensor, frames: int = 0) -> Tensor:
    """(B, ``frames``, 1) zeros in the memory of one: the mel that backends expect beside any term."""
    return like.new_zeros(()).expand(like.shape[0], frames, 1)


def _inputs(
    target: Tensor, *, mel_lengths: Tensor, mel: tuple[Tensor, ...] | None = None, **parts: object
) -> LossInputs:
    """The tensors of one term, the mel being blank unless given."""
    absent = dict.fromkeys(
        ("text_lengths", "truncated", "stop_logits", "posterior", "prior", "mel_mean", "mel_std")
    )
    given = {**absent, "attention": (), **parts}
    return LossInputs(
        mel=(target,) if mel is None else mel,
        target=target,
        mel_lengths=mel_lengths,
        step_lengths=mel_lengths,
        **given,  # type: ignore[arg-type]
    )


def _lengths(name: str, lengths: Tensor | None, like: Tensor, size: int, axis: str) -> Tensor:
    if lengths is None:
        return torch.full((like.shape[0],), size, dtype=torch.int64, device=like.device)
    return check_lengths(name, lengths, like, size, axis)


def _reduce(values: Tensor, reduction: str, count: Tensor) -> Tensor:
    if reduction == "none":
        return values
    total = values.sum()
    return total if reduction == "sum" else total / count.clamp(min=1)


def _check_call(reduction: str, backend: str) -> None:
    one_of("reduction", reduction, ("none", "sum", "mean"))
    backends.check_name(backend)
    if reduction == "none" and backend not in ("auto", "torch"):
        raise RuntimeError(
            f"loss backend {backend!r} cannot serve this call: reduction='none' is plain torch's alone; "
            "use backend='auto'"
        )
