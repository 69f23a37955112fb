"""Every loss term in plain torch: the definition that fused backends are checked against.

A padded element never contributes, whatever it holds: values are selected with ``torch.where`` before
any arithmetic, never multiplied by a mask, so that NaN and infinities in padding reach neither values
nor gradients. Inside the valid region nothing is cleaned: NaN in, NaN out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ttsfast.losses import aligned
from ttsfast.losses.average import Average, Lengths, lengths_of, lengths_outside
from ttsfast.losses.output import LossOutput
from ttsfast.losses.philox import standard_normal
from ttsfast.terms.counts import Counts
from ttsfast.terms.masks import stop_targets, valid_mask
from ttsfast.terms.spec import FUSED, LossInputs, LossSpec
from ttsfast.terms.state import FixedWeights


def mel_elements(
    prediction: Tensor, target: Tensor, valid: Tensor, loss: str = "huber", delta: float = 1.0
) -> Tensor:
    """(B, T, C) distance of each bin, 0 where ``valid`` (B, T) is False."""
    valid = valid.unsqueeze(2)
    prediction, target = _select(valid, prediction), _select(valid, target)
    if loss == "huber":
        return F.huber_loss(prediction, target, reduction="none", delta=delta)
    if loss == "l1":
        return F.l1_loss(prediction, target, reduction="none")
    return F.mse_loss(prediction, target, reduction="none")


def mel_noise_floor(loss: str, delta: float, std: Tensor) -> Tensor:
    """Expected distance of a perfect prediction from a target with noise ``std * N(0, 1)``, elementwise.

    For Huber with a = delta / std and phi, erf of the standard normal:
    ``std^2/2 erf(a/sqrt 2) + delta std phi(a) - delta^2/2 erfc(a/sqrt 2)``.
    """
    if loss == "mse":
        return std.square()
    if loss == "l1":
        return std * math.sqrt(2 / math.pi)
    noisy = std > 0
    a = delta / torch.where(noisy, std, 1.0)
    density = torch.exp(-0.5 * a.square()) / math.sqrt(2 * math.pi)
    inside, outside = torch.erf(a / math.sqrt(2)), torch.erfc(a / math.sqrt(2))
    floor = 0.5 * std.square() * inside + delta * std * density - 0.5 * delta**2 * outside
    return torch.where(noisy, floor, 0.0)


def kl_vectors(
    mu: Tensor,
    logvar: Tensor,
    prior: tuple[Tensor, Tensor] | None,
    valid: Tensor,
    free_bits: float = 0.0,
) -> Tensor:
    """KL divergence in nats of each latent vector, 0 where ``valid`` is False.

    Shapes (..., Z) to (...). ``prior`` is (mu, logvar), N(0, I) when None. A vector of at most
    ``free_bits`` nats counts as ``free_bits`` and sends no gradient.
    """
    chosen = valid.unsqueeze(-1)
    mu, logvar = _select(chosen, mu), _select(chosen, logvar)
    if prior is None:
        difference, ratio = mu, logvar
    else:
        prior_mu, prior_logvar = (_select(chosen, part) for part in prior)
        distance = mu - prior_mu
        # Equal means are at distance 0 under any prior, and infinitely distant ones at infinity: exp(-logvar)
        # may overflow or underflow, and 0 * inf is NaN. The zero in its place keeps the derivative.
        zero = (prior_logvar - prior_logvar.detach()).nan_to_num(0.0)
        spread = torch.where((distance == 0) | distance.isinf(), zero, prior_logvar)
        # The square root of the precision, so that it overflows twice as late.
        difference = distance * torch.exp(-0.5 * spread)
        ratio = logvar - prior_logvar
    nats = 0.5 * (torch.expm1(ratio) - ratio + difference.square()).sum(-1)
    if free_bits > 0:
        nats = torch.where((nats <= free_bits) & valid, torch.full_like(nats, free_bits), nats)
    return nats


def stop_elements(
    logits: Tensor,
    positive: Tensor,
    included: Tensor,
    coefficients: tuple[tuple[float, float], ...],
) -> Tensor:
    """(B, S) cross-entropy of each step, 0 where ``included`` (B, S) is False.

    ``a * softplus(-x) + b * softplus(x)`` with (a, b) of the step's target: no cancellation at large
    logits, and a coefficient of 0 removes its half instead of multiplying an infinity.
    """
    (a0, b0), (a1, b1) = coefficients
    x = _select(included, logits)
    below, above = -F.logsigmoid(x), -F.logsigmoid(-x)
    when_positive = a1 * below + b1 * above if b1 > 0 else a1 * below
    when_negative = a0 * below + b0 * above if a0 > 0 else b0 * above
    return _select(included, torch.where(positive, when_positive, when_negative))


def attention_elements(
    attention: Tensor, step_lengths: Tensor, text_lengths: Tensor, sigma: float = 0.2
) -> Tensor:
    """Guided attention of each weight, 0 in padding; (B, S, N) or (B, H, S, N), shape kept.

    ``A * (1 - exp(-(n/N_b - t/T_b)^2 / (2 sigma^2)))`` with n, t from 0 and T_b in decoder steps
    (Tachibana et al., 2017, "Efficiently trainable text-to-speech system ...").
    """
    steps, symbols = attention.shape[-2:]
    dtype = attention.dtype
    valid = valid_mask(step_lengths, steps).unsqueeze(2) & valid_mask(text_lengths, symbols).unsqueeze(1)
    t = torch.arange(steps, device=attention.device).to(dtype) / step_lengths.clamp(min=1).unsqueeze(1)
    n = torch.arange(symbols, device=attention.device).to(dtype) / text_lengths.clamp(min=1).unsqueeze(1)
    distance = (n.unsqueeze(1) - t.unsqueeze(2)) / sigma
    penalty = -torch.expm1(-0.5 * distance.square())
    if attention.dim() == 4:
        valid, penalty = valid.unsqueeze(1), penalty.unsqueeze(1)
    return _select(valid, attention) * penalty


def run(
    spec: LossSpec,
    inputs: LossInputs,
    state: FixedWeights,
    normalizer: Counts | Tensor | float | None,
) -> LossOutput:
    """All terms present, their floors, and the weighted total.

    Args:
        spec: resolved options.
        inputs: checked tensors.
        state: detached weights, and the noise generator's step.
        normalizer: as in :meth:`ttsfast.losses.module.TTSLoss.forward`.
    """
    lengths = lengths_of(inputs)
    given, inputs = inputs, _prepare(inputs, lengths)
    average = Average(spec, inputs, lengths, normalizer)
    terms: list[tuple[Tensor, Tensor] | None] = [_mel_term(spec, inputs, average, state.noise_step)]
    terms.append(_kl_term(spec, inputs, average) if inputs.posterior is not None else None)
    terms.append(_stop_term(spec, inputs, average) if inputs.stop_logits is not None else None)
    terms.append(_attention_term(spec, inputs, average) if inputs.attention else None)
    zero = inputs.target.new_zeros(())
    unalignable = None
    if inputs.alignment is not None:
        beside = spec.active[len(FUSED) :]
        found = aligned.terms(inputs.alignment, lengths, average, beside, zero.dtype, "torch")
        terms += [None if term is None else (term, zero) for term in found]
        unalignable = aligned.unalignable(lengths)
    weights = state.weights[: len(terms)]
    total = zero
    for term, weight, active in zip(terms, weights.unbind(), spec.active[: len(terms)], strict=True):
        if term is not None and active:
            total = total + weight * term[0]
    values, floors = (
        torch.stack([zero if term is None else term[part].detach() for term in terms]) for part in (0, 1)
    )
    clamped = None if inputs.target.is_cpu else lengths_outside(given, lengths)
    frames = average.own.frames.sum()
    return LossOutput(total, values, floors, weights, frames, inputs.present(), clamped, unalignable)


def _prepare(inputs: LossInputs, lengths: Lengths) -> LossInputs:
    """Everything in the compute dtype, lengths within their axes."""
    dtype = inputs.compute_dtype()

    def pair(tensors: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
        return None if tensors is None else (tensors[0].to(dtype), tensors[1].to(dtype))

    # Spelled out, since torch's compiler before 2.7 does not follow a named tuple's _replace.
    return LossInputs(
        mel=tuple(prediction.to(dtype) for prediction in inputs.mel),
        target=inputs.target.to(dtype),
        mel_lengths=lengths.mel,
        step_lengths=lengths.steps,
        text_lengths=lengths.text,
        stop_logits=None if inputs.stop_logits is None else inputs.stop_logits.to(dtype),
        posterior=pair(inputs.posterior),
        prior=pair(inputs.prior),
        attention=tuple(layer.to(dtype) for layer in inputs.attention),
        truncated=inputs.truncated,
        mel_mean=inputs.mel_mean,
        mel_std=inputs.mel_std,
        alignment=inputs.alignment,
    )


def smoothed_target(
    spec: LossSpec, target: Tensor, mel_mean: Tensor | None, mel_std: Tensor | None, step: Tensor
) -> Tensor:
    """(B, T, C) target moved toward the bin's mean, or with Philox noise, or as it is."""
    amount = spec.mel_label_smoothing
    if spec.mel_smoothing == "mean":
        smoothed = (1 - amount) * target
        return smoothed if mel_mean is None else smoothed + amount * mel_mean.to(target.dtype)
    if spec.mel_smoothing == "noise":
        batch, frames, bins = target.shape
        noise = standard_normal((batch, frames, bins), spec.seed, step, target.dtype)
        return target + (amount * noise if mel_std is None else amount * mel_std.to(target.dtype) * noise)
    return target


def _mel_term(spec: LossSpec, inputs: LossInputs, average: Average, step: Tensor) -> tuple[Tensor, Tensor]:
    valid = valid_mask(inputs.mel_lengths, inputs.target.shape[1])
    target = smoothed_target(spec, inputs.target, inputs.mel_mean, inputs.mel_std, step)
    elements = [mel_elements(y, target, valid, spec.mel_loss, spec.huber_delta) for y in inputs.mel]
    bins = inputs.target.shape[2]
    sums = sum((part.sum((1, 2)) for part in elements[1:]), start=elements[0].sum((1, 2)))
    floor = average(average.own.frames.to(target.dtype) * (spec.mel_floor * len(elements)), "frames")
    return average(sums, "frames") / bins, floor


def _kl_term(spec: LossSpec, inputs: LossInputs, average: Average) -> tuple[Tensor, Tensor]:
    assert inputs.posterior is not None
    mu, logvar = inputs.posterior
    per_frame = mu.dim() == 3
    valid = valid_mask(inputs.mel_lengths, mu.shape[1]) if per_frame else inputs.mel_lengths > 0
    nats = kl_vectors(mu, logvar, inputs.prior, valid, spec.kl_free_bits)
    vectors = average.own.frames if per_frame else average.own.utterances
    sums = (nats.sum(1) if per_frame else nats), vectors.to(nats.dtype) * spec.kl_free_bits
    if spec.kl_normalization == "elbo":
        bins = inputs.target.shape[2]
        value, floor = (average(part, "frames") / bins for part in sums)
    else:
        value, floor = (average(part, "frames" if per_frame else "utterances") for part in sums)
    return value, floor


def _stop_term(spec: LossSpec, inputs: LossInputs, average: Average) -> tuple[Tensor, Tensor]:
    assert inputs.stop_logits is not None
    positive, included = stop_targets(
        inputs.step_lengths, inputs.truncated, spec.stop_tail_frames, inputs.stop_logits.shape[1]
    )
    elements = stop_elements(inputs.stop_logits, positive, included, spec.stop_coefficients)
    when_negative, when_positive = spec.stop_floors
    positives, all_steps = (mask.sum(1).to(elements.dtype) for mask in (positive, included))
    floors = positives * when_positive + (all_steps - positives) * when_negative
    return average(elements.sum(1), "stop_steps"), average(floors, "stop_steps")


def _attention_term(spec: LossSpec, inputs: LossInputs, average: Average) -> tuple[Tensor, Tensor]:
    assert inputs.text_lengths is not None
    sums = inputs.target.new_zeros(inputs.target.shape[0])
    heads = 0
    for layer in inputs.attention:
        elements = attention_elements(layer, inputs.step_lengths, inputs.text_lengths, spec.attention_sigma)
        sums = sums + elements.flatten(1).sum(1)
        heads += layer.shape[1] if layer.dim() == 4 else 1
    return average(sums / max(heads, 1), "attention_steps"), sums.new_zeros(())


def _select(mask: Tensor, values: Tensor) -> Tensor:
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))
