"""Checks of tensors and numbers before anything is computed: one clear line each.

None of them waits for a device: the values of lengths are looked at only where they lie on the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ttsfast.terms.length_op import check_values, checked

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
        raise TypeError(f"{name} must be a tensor {shown(shape)}, got {type(tensor).__name__}")
    if tensor.dtype not in _REALS:
        raise TypeError(f"{name} must hold float16, bfloat16, float32 or float64, got {tensor.dtype}")
    _check_kind(name, tensor)
    if not _fits(tensor.shape, shape):
        raise ValueError(f"{name} must have shape {shown(shape)}, got {shown(tensor.shape)}")
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
    if not isinstance(lengths, Tensor) or not is_integer(lengths):
        have = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"{name} must be an integer tensor ({batch},), got {have}")
    _check_kind(name, lengths)
    if lengths.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), got {shown(lengths.shape)}")
    _check_device(name, lengths, like)
    if lengths.is_cpu:
        if torch.compiler.is_compiling():
            return checked(lengths, limit, name, axis)
        check_values(lengths, limit, name, axis)
    return lengths


def is_integer(tensor: Tensor) -> bool:
    """Whether it holds integers that all backends know."""
    return tensor.dtype in _INTEGERS


def check_flags(name: str, flags: object, like: Tensor) -> Tensor:
    """Boolean flags (B,) on the device of ``like``; raises as :func:`check_lengths`."""
    batch = like.shape[0]
    if not isinstance(flags, Tensor) or flags.dtype != torch.bool:
        have = flags.dtype if isinstance(flags, Tensor) else type(flags).__name__
        raise TypeError(f"{name} must be a boolean tensor ({batch},), got {have}")
    _check_kind(name, flags)
    if flags.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), got {shown(flags.shape)}")
    _check_device(name, flags, like)
    return flags


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


def shown(shape: Sequence[int | str]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"
