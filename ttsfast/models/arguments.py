"""What the built-in models ask of those who make and call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ttsfast.errors import InputError

C = TypeVar("C")


def require(config: object, name: str, holds: bool, wanted: str) -> None:
    """Raise InputError, naming the field ``name`` of a dataclass and its value, unless it ``holds``."""
    if not holds:
        raise InputError(f"{type(config).__name__}: {name} is {getattr(config, name)}; use {wanted}")


def dilations(config: object, name: str, *, none: bool = False) -> None:
    """Make the field ``name`` of a frozen dataclass a tuple, where JSON left a list, and check it."""
    given: tuple[int, ...] = tuple(getattr(config, name))
    object.__setattr__(config, name, given)
    holds = (none or bool(given)) and min(given, default=1) >= 1
    require(config, name, holds, "one or more dilations, each at least 1")


def of_size(model: type, sizes: Mapping[str, C], size: str, changes: Mapping[str, Any]) -> C:
    """A model's config of a named size, with changes.

    Raises:
        InputError: an unknown size, or a change that the config does not take.
    """
    if size not in sizes:
        raise InputError(f"no {model.__name__} size {size!r}; use one of {', '.join(sizes)}")
    config: Any = sizes[size]
    unknown = changes.keys() - {field.name for field in fields(config)}
    if unknown:
        raise InputError(f"{type(config).__name__} has no {', '.join(sorted(unknown))}; see its fields")
    found: C = replace(config, **changes)
    return found


def silent_frame(
    model: object, silence: Tensor | np.ndarray | None, *, n_symbols: int, n_mels: int, n_speakers: int
) -> Tensor:
    """(C,) a frame of silence; zeros where None is given.

    Raises:
        InputError: a count below 1, or ``silence`` of another shape; the model is named.
    """
    kind = type(model).__name__
    for name, count in (("n_symbols", n_symbols), ("n_mels", n_mels), ("n_speakers", n_speakers)):
        if count < 1:
            raise InputError(f"{kind}: {name} is {count}; use 1 or more")
    frame = torch.zeros(n_mels) if silence is None else torch.as_tensor(silence, dtype=torch.float32)
    if frame.shape != (n_mels,):
        raise InputError(
            f"{kind}: silence has shape {tuple(frame.shape)}; give one value per mel bin, ({n_mels},)"
        )
    return frame.clone()


def speaker_ids(speaker: Tensor | None, text: Tensor, n_speakers: int) -> Tensor:
    """(B,) int64; raise ValueError when a model of several speakers is not told which."""
    if speaker is not None:
        return speaker
    if n_speakers > 1:
        raise ValueError(f"this model has {n_speakers} speakers: give speaker ids (B,)")
    return text.new_zeros(len(text))
