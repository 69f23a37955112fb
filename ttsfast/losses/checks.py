"""Checks of shapes, dtypes, devices and lengths before anything is computed: one clear line each.

None of them waits for a device: the values of lengths are looked at only where they lie on the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ttsfast.losses.length_op import check_values, checked
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import TERMS, LossInputs, LossSpec

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
"""What few operations know, and no backend."""
_REALS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_real(name: str, tensor: object, shape: Sequence[int | str], like: Tensor | None = None) -> Tensor:
    """A dense tensor of real numbers of the given shape, on the device of ``like``.

    ``shape`` names a free axis by a string.

    Raises:
        TypeError: not a dense tensor of real numbers.
        ValueError: another shape or device.
    """
    # Most calls end here; what follows says what is wrong.
    if (
        type(tensor) is Tensor
        and tensor.dtype in _REALS
        and not tensor.is_nested
        and tensor.layout == torch.strided
        and (like is None or tensor.device == like.device)
        and _fits(tensor.shape, shape)
    ):
        return tensor
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor {_shape(shape)}, got {type(tensor).__name__}")
    if tensor.dtype not in _REALS:
        raise TypeError(f"{name} must hold float16, bfloat16, float32 or float64, got {tensor.dtype}")
    _check_kind(name, tensor)
    if not _fits(tensor.shape, shape):
        raise ValueError(f"{name} must have shape {_shape(shape)}, got {_shape(tensor.shape)}")
    _check_device(name, tensor, like)
    return tensor


def check_lengths(name: str, lengths: object, like: Tensor, limit: int, axis: str) -> Tensor:
    """Integer lengths (B,) on the device of ``like``, on the host also within 0..``limit``.

    In a compiled graph their values are checked when it runs, and only where it goes on with what this
    returns.

    Raises:
        TypeError: not a dense integer tensor.
        ValueError: another shape or device, or a length that the axis cannot hold.
    """
    batch = like.shape[0]
    if isinstance(lengths, Tensor) and lengths.dtype in _UNSIGNED:
        lengths = lengths.long()
    if not isinstance(lengths, Tensor) or lengths.dtype not in _INTEGERS:
        have = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"{name} must be an integer tensor ({batch},), got {have}")
    _check_kind(name, lengths)
    if lengths.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), got {_shape(lengths.shape)}")
    _check_device(name, lengths, like)
    if lengths.is_cpu:
        if torch.compiler.is_compiling():
            return checked(lengths, limit, name, axis)
        check_values(lengths, limit, name, axis)
    return lengths


def check_flags(name: str, flags: object, like: Tensor) -> Tensor:
    """Boolean flags (B,) on the device of ``like``; raises as :func:`check_lengths`."""
    batch = like.shape[0]
    if not isinstance(flags, Tensor) or flags.dtype != torch.bool:
        have = flags.dtype if isinstance(flags, Tensor) else type(flags).__name__
        raise TypeError(f"{name} must be a boolean tensor ({batch},), got {have}")
    _check_kind(name, flags)
    if flags.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), got {_shape(flags.shape)}")
    _check_device(name, flags, like)
    return flags


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
) -> LossInputs:
    """The arguments of one call, checked against each other.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: shapes, devices or lengths that do not fit, or an argument whose partner is missing.
    """
    target = check_real("mel_target", mel_target, ("B", "T", "C"))
    batch, frames, bins = target.shape
    if bins == 0:
        raise ValueError("mel_target must have at least one mel bin, got shape " + _shape(target.shape))
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
    sizes: list[tuple[str, int]] = []
    if stop_logits is not None:
        sizes.append(("stop_logits", stop_logits.shape[1]))
    if layers:
        sizes.append(("attention", layers[0].shape[-2]))
        if text_lengths is None:
            raise ValueError("attention needs text_lengths (B,): pass them")
        symbols = layers[0].shape[-1]
        text_lengths = check_lengths("text_lengths", text_lengths, target, symbols, "attention's axis N")
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
                f"prior must have the posterior's shape {_shape(posterior[0].shape)}, "
                f"got {_shape(prior[0].shape)}"
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
    )


def check_call(spec: LossSpec, inputs: LossInputs, device: torch.device) -> None:
    """What a loss of these options, on ``device``, needs of the arguments of one call.

    Raises:
        ValueError: a term that enters the total has no inputs, or the loss lies on another device.
    """
    for term, weight, present in zip(TERMS, spec.base_weights, inputs.present(), strict=True):
        if weight != 0 and not present:
            name = {"kl": "posterior", "stop": "stop_logits"}.get(term, term)
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
                f"attention's layers must agree in (S, N), got {_shape(layers[0].shape[-2:])} "
                f"and {_shape(layer.shape[-2:])}"
            )
    return layers


def _gaussian(name: str, pair: object, like: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"{name} must be a pair (mu, logvar)")
    mu, logvar = pair
    batch, frames = like.shape[:2]
    per_frame = isinstance(mu, Tensor) and mu.dim() == 3
    check_real(f"{name} mu", mu, (batch, frames, "Z") if per_frame else (batch, "Z"), like)
    check_real(f"{name} logvar", logvar, mu.shape, like)
    return mu, logvar


def _check_kind(name: str, tensor: Tensor) -> None:
    if tensor.is_nested:
        raise TypeError(
            f"{name} must be a dense tensor, got a nested one: call .to_padded_tensor(0.0), and pass lengths"
        )
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {tensor.layout}; call .to_dense()")
    # A DTensor, without importing what defines it.
    if type(tensor) is not Tensor and hasattr(tensor, "to_local"):
        raise TypeError(
            f"{name} must be a local tensor, got a {type(tensor).__name__}: call .to_local(), and let "
            "normalizer= hold the counts of all ranks"
        )


def _check_device(name: str, tensor: Tensor, like: Tensor | None) -> None:
    if like is not None and tensor.device != like.device:
        raise ValueError(
            f"{name} is on {tensor.device}, the other inputs on {like.device}: "
            f"move it with .to({str(like.device)!r})"
        )


def _fits(have: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Whether a shape is the one wanted, whose free axes are strings."""
    if have == wanted:
        return True
    if len(have) != len(wanted):
        return False
    # A generator would take twice as long.
    for size, want in zip(have, wanted, strict=True):
        if not isinstance(want, str) and size != want:
            return False
    return True


def _shape(shape: Sequence[int | str]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ValueError for an option of another name."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def in_range(name: str, value: float, low: float, high: float, open_low: bool = False) -> None:
    """Raise ValueError for a number that is not finite or not within ``low`` and ``high``, TypeError for what
    is no number."""
    if not isinstance(value, (int, float)) and (isinstance(value, Tensor) or not hasattr(value, "__float__")):
        raise TypeError(f"{name} must be a number, got {value!r}")
    above = value > low if open_low else value >= low
    # In comparisons alone: a compiled graph knows no other question to a number that may vary.
    if not (above and value <= high and value < math.inf):
        bound = "more than" if open_low else "at least"
        limit = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(f"{name} must be {bound} {low:g}{limit}, got {value!r}")


def check_integer(name: str, value: object) -> None:
    """Raise for what is no whole number that fits the kernels' counters."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    in_range(name, value, 0, 2**31 - 1)
