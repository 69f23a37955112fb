"""Checks of the arguments of a loss against each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ttsfast.terms.checks import check_flags, check_lengths, check_real, is_integer, shown
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import TERMS, AlignmentInputs, LossInputs, LossSpec


def check_attention(name: str, attention: object, like: Tensor | None, batch: int | str) -> Tensor:
    """One layer (B, S, N) or (B, H, S, N); raises as :func:`check_real`."""
    heads = isinstance(attention, Tensor) and attention.dim() == 4
    return check_real(name, attention, (batch, "H", "S", "N") if heads else (batch, "S", "N"), like)


def check_inputs(
    mel_pred: Tensor | Sequence[Tensor],
    mel_target: Tensor,
    mel_lengths: Tensor,
    *,
    stop_logits: Tensor | None,
    step_lengths: Tensor | None,
    posterior: tuple[Tensor, Tensor] | None,
    prior: tuple[Tensor, Tensor] | None,
    attention: Tensor | Sequence[Tensor] | None,
    text_lengths: Tensor | None,
    truncated: Tensor | None,
    mel_mean: Tensor | None,
    mel_std: Tensor | None,
    alignment_log_probs: Tensor | None = None,
    alignment_prior: Tensor | None = None,
    alignment_path: Tensor | None = None,
) -> LossInputs:
    """The arguments of one call, checked against each other.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: shapes, devices or lengths that do not fit, or an argument whose partner is missing.
    """
    target = check_real("mel_target", mel_target, ("B", "T", "C"))
    batch, frames, bins = target.shape
    if bins == 0:
        raise ValueError("mel_target must have at least one mel bin, got shape " + shown(target.shape))
    predictions = mel_pred if isinstance(mel_pred, (tuple, list)) else (mel_pred,)
    if len(predictions) not in (1, 2):
        raise ValueError(f"mel_pred must be one prediction or a pair, got {len(predictions)}")
    mel = tuple(check_real("mel_pred", prediction, target.shape, target) for prediction in predictions)
    mel_lengths = check_lengths("mel_lengths", mel_lengths, target, frames, "mel_target's axis T")
    if truncated is not None:
        check_flags("truncated", truncated, target)

    if stop_logits is not None:
        check_real("stop_logits", stop_logits, (batch, "S"), target)
    layers = _layers(attention, target)
    alignment = _alignment(alignment_log_probs, alignment_prior, alignment_path, target)
    sizes: list[tuple[str, int]] = []
    if stop_logits is not None:
        sizes.append(("stop_logits", stop_logits.shape[1]))
    aligned = [("attention", layers[0])] if layers else []
    if alignment is not None:
        aligned.append(("alignment_log_probs", alignment.log_probs))
    for name, weights in aligned:
        sizes.append((name, weights.shape[-2]))
        if text_lengths is None:
            raise ValueError(f"{name} needs text_lengths (B,): pass them")
        symbols = weights.shape[-1]
        text_lengths = check_lengths("text_lengths", text_lengths, target, symbols, f"{name}'s axis N")
    for name, size in sizes:
        if step_lengths is not None:
            step_lengths = check_lengths("step_lengths", step_lengths, target, size, f"{name}'s axis S")
        elif size < frames:
            raise ValueError(
                f"{name} has {size} steps for {frames} mel frames: pass step_lengths, the valid decoder steps"
            )

    if prior is not None and posterior is None:
        raise ValueError("prior is given without posterior: pass posterior=(mu, logvar)")
    if posterior is not None:
        posterior = _gaussian("posterior", posterior, target)
    if prior is not None and posterior is not None:
        prior = _gaussian("prior", prior, target)
        if prior[0].shape != posterior[0].shape:
            raise ValueError(
                f"prior must have the posterior's shape {shown(posterior[0].shape)}, "
                f"got {shown(prior[0].shape)}"
            )
    for name, statistic in (("mel_mean", mel_mean), ("mel_std", mel_std)):
        if statistic is None:
            continue
        if statistic.shape != (bins,):
            raise ValueError(f"{name} holds {len(statistic)} bins, mel_target {bins}")
        if statistic.device != target.device:
            raise ValueError(
                f"the loss is on {statistic.device}, its inputs on {target.device}: move the loss"
            )
    return LossInputs(
        mel=mel,
        target=target,
        mel_lengths=mel_lengths,
        step_lengths=mel_lengths if step_lengths is None else step_lengths,
        text_lengths=text_lengths,
        truncated=truncated,
        stop_logits=stop_logits,
        posterior=posterior,
        prior=prior,
        attention=layers,
        mel_mean=mel_mean,
        mel_std=mel_std,
        alignment=alignment,
    )


_INPUTS = {
    "kl": "posterior",
    "stop": "stop_logits",
    "alignment": "alignment_log_probs",
    "binarization": "alignment_path",
}
"""What a term is computed from, where it is not called the same."""


def check_call(spec: LossSpec, inputs: LossInputs, device: torch.device) -> None:
    """What a loss of these options, on ``device``, needs of the arguments of one call.

    Raises:
        ValueError: a term that enters the total has no inputs, or the loss lies on another device.
    """
    present = inputs.present()
    for i, (term, weight) in enumerate(zip(TERMS, spec.base_weights, strict=True)):
        if weight != 0 and not (i < len(present) and present[i]):
            name = _INPUTS.get(term, term)
            raise ValueError(
                f"{name} is missing while {term}_weight is {weight:g}: pass it, or set {term}_weight=0"
            )
    if inputs.target.device != device:
        raise ValueError(
            f"the loss is on {device}, its inputs on {inputs.target.device}: "
            f"call .to({str(inputs.target.device)!r}) on the loss"
        )


def check_scalars(normalizer: object, grad_scale: object) -> None:
    """Raise TypeError or ValueError for what is no number, no scalar tensor and no :class:`Counts`."""
    if isinstance(normalizer, tuple):
        if len(normalizer) != len(Counts._fields):
            raise ValueError(f"normalizer must be a scalar or Counts, got a tuple of {len(normalizer)}")
        for field, part in zip(Counts._fields, normalizer, strict=True):
            if part is None:
                raise TypeError(f"normalizer's {field} must be a number or a scalar tensor, got None")
            _scalar(f"normalizer's {field}", part)
    else:
        _scalar("normalizer", normalizer)
    _scalar("grad_scale", grad_scale)


def _scalar(name: str, value: object) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a scalar, got shape {tuple(value.shape)}")
        if value.is_complex():
            raise TypeError(f"{name} must be a real number, got {value.dtype}")
    elif value is not None and not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or a scalar tensor, got {type(value).__name__}")


def _layers(attention: Tensor | Sequence[Tensor] | None, like: Tensor) -> tuple[Tensor, ...]:
    if attention is None:
        return ()
    layers = tuple(attention) if isinstance(attention, (tuple, list)) else (attention,)
    if not layers:
        raise ValueError("attention is an empty sequence: pass at least one layer, or None")
    for layer in layers:
        check_attention("attention", layer, like, like.shape[0])
        if layer.shape[-2:] != layers[0].shape[-2:]:
            raise ValueError(
                f"attention's layers must agree in (S, N), got {shown(layers[0].shape[-2:])} "
                f"and {shown(layer.shape[-2:])}"
            )
    return layers


def _alignment(log_probs: object, prior: object, path: object, like: Tensor) -> AlignmentInputs | None:
    if log_probs is None:
        for name, given in (("alignment_prior", prior), ("alignment_path", path)):
            if given is not None:
                raise ValueError(f"{name} is given without alignment_log_probs: pass them")
        return None
    batch = like.shape[0]
    scores = check_real("alignment_log_probs", log_probs, (batch, "S", "N"), like)
    if prior is not None:
        prior = check_real("alignment_prior", prior, scores.shape, like)
    if path is not None:
        _, steps, symbols = scores.shape
        durations, whole = (batch, symbols), (batch, steps, symbols)
        if not isinstance(path, Tensor) or not (path.dtype == torch.bool or is_integer(path)):
            have = path.dtype if isinstance(path, Tensor) else type(path).__name__
            raise TypeError(
                f"alignment_path must be integer durations {shown(durations)} or a boolean path "
                f"{shown(whole)}, got {have}"
            )
        wanted = whole if path.dtype == torch.bool else durations
        if path.shape != wanted:
            raise ValueError(
                f"alignment_path of {path.dtype} must have shape {shown(wanted)}, got {shown(path.shape)}"
            )
        if path.device != like.device:
            raise ValueError(
                f"alignment_path is on {path.device}, the other inputs on {like.device}: "
                f"move it with .to({str(like.device)!r})"
            )
    return AlignmentInputs(scores, prior, path)


def _gaussian(name: str, pair: object, like: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"{name} must be a pair (mu, logvar)")
    mu, logvar = pair
    batch, frames = like.shape[:2]
    per_frame = isinstance(mu, Tensor) and mu.dim() == 3
    check_real(f"{name} mu", mu, (batch, frames, "Z") if per_frame else (batch, "Z"), like)
    check_real(f"{name} logvar", logvar, mu.shape, like)
    return mu, logvar
