"""What a batch is made of: an utterance, and the other forms in which people's own data sets give one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from ttsfast.data.features.tracks import NAMES
from ttsfast.data.store.utterance import Utterance
from ttsfast.errors import InputError

UtteranceLike = Utterance | Mapping[str, Any] | Sequence[Any]
"""An utterance; a mapping with ``text`` and ``mel`` and, as one likes, ``id``, ``speaker``, ``truncated``,
``pitch`` and ``energy``; or a tuple ``(text, mel)`` or ``(text, mel, speaker)``. Arrays may be numpy's or
torch's, text also a list."""

_KEYS = tuple(field.name for field in fields(Utterance))
_NEEDED = ("text", "mel")
_FORMS = "an Utterance, a mapping with text and mel, or a tuple (text, mel) or (text, mel, speaker)"


def as_utterance(item: UtteranceLike, place: int) -> Utterance:
    """An item in any of its forms as an :class:`Utterance` with numpy arrays.

    Args:
        item: see :data:`UtteranceLike`.
        place: in the batch; its id where it has none.

    Raises:
        InputError: it is none of them, a key is missing or unknown, or an array is of the wrong kind; with
            the item's id or place.
    """
    if isinstance(item, Utterance):
        arrays = [item.mel, item.text, *(t for t in (item.pitch, item.energy) if t is not None)]
        if all(isinstance(array, np.ndarray) for array in arrays):
            return item
        values = vars(item)
    elif isinstance(item, Mapping):
        values = dict(item)
    elif isinstance(item, (tuple, list)) and len(item) in (2, 3):
        values = dict(zip(("text", "mel", "speaker"), item, strict=False))
    else:
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise InputError(f"item {place} of the batch is a {type(item).__name__}{size}, expected {_FORMS}")
    name = values.get("id", place)
    if not isinstance(name, (str, int)):
        raise InputError(f"item {place} of the batch: its id is a {type(name).__name__}, expected text")
    name = str(name)
    _check_keys(values, name)
    speaker, truncated = values.get("speaker", 0), values.get("truncated", False)
    try:
        speaker, truncated = int(speaker), bool(truncated)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(
            f"utterance {name!r}: speaker must be a number, truncated a flag ({' '.join(str(error).split())})"
        ) from error
    text, mel = _array(values["text"], "text", name), _array(values["mel"], "mel", name)
    if text.size and text.dtype.kind not in "iu":
        raise InputError(f"utterance {name!r}: text holds {text.dtype}, expected symbol ids; encode it first")
    if text.dtype.kind == "u" and text.size and text.max() > np.iinfo(np.int64).max:
        raise InputError(f"utterance {name!r}: text holds {text.max()}, no symbol id; encode it first")
    if mel.dtype.kind != "f":
        raise InputError(f"utterance {name!r}: mel holds {mel.dtype}, expected floating-point features")
    tracks = {key: _array(values[key], key, name) for key in NAMES if values.get(key) is not None}
    return Utterance(name, text.astype(np.int64, copy=False), mel, speaker, truncated, **tracks)


def _check_keys(values: Mapping[str, Any], name: str) -> None:
    found = ", ".join(map(repr, values))
    missing = [key for key in _NEEDED if key not in values]
    unknown = [repr(key) for key in values if key not in _KEYS]
    if missing:
        raise InputError(f"utterance {name!r}: no {' and no '.join(missing)}; its keys are {found or 'none'}")
    if unknown:
        # One that was meant to be read would be lost without a word.
        raise InputError(
            f"utterance {name!r}: unknown {', '.join(unknown)}; leave out all but {', '.join(_KEYS)}"
        )


def _array(value: Any, key: str, name: str) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        # numpy has no bfloat16.
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(
            f"utterance {name!r}: {key} is not an array ({' '.join(str(error).split())})"
        ) from error
