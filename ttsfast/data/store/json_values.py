"""A store's JSON: values out of an object that anybody may have written, of the type that is due, or refused;
and long lists written piece by piece, for in one piece they take several times the memory of what they tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from ttsfast.errors import InputError

# Far beyond any corpus, and far below where 64-bit sums of them would wrap.
LARGEST = 1 << 48
BLOCK = 1024
"""Values in a piece of a list."""


class Fields:
    """A JSON object whose keys are taken with their types; every mismatch is an InputError naming the key."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise InputError(f"{where}: expected keys and values")
        self._values, self._where = values, where

    def _get(self, key: str, kind: type, name: str) -> Any:
        value = self._values.get(key)
        if type(value) is not kind:
            raise InputError(f"{self._where}: {key} must be {name}")
        return value

    def has(self, key: str) -> bool:
        """Whether the key is there at all."""
        return key in self._values

    def mapping(self, key: str) -> dict[str, Any]:
        """An object."""
        return self._get(key, dict, "keys and values")

    def sequence(self, key: str) -> list[Any]:
        """A list of anything."""
        return self._get(key, list, "a list")

    def text(self, key: str) -> str:
        """A text that UTF-8 can hold."""
        return _printable([self._get(key, str, "text")], f"{self._where}: {key}")[0]

    def texts(self, key: str) -> list[str]:
        """A list of such texts."""
        values = self.sequence(key)
        if not all_are(str, values):
            raise InputError(f"{self._where}: {key} must hold texts only")
        return _printable(values, f"{self._where}: {key}")

    def count(self, key: str) -> int:
        """A whole number from 0 to ``LARGEST``."""
        return int(_counted([self._get(key, int, "a whole number")], f"{self._where}: {key}")[0])

    def counts(self, key: str) -> np.ndarray:
        """(n,) int64: a list of such numbers, or an array that stands in its place."""
        found = self._values.get(key)
        values = found if isinstance(found, np.ndarray) else self.sequence(key)
        return _counted(values, f"{self._where}: {key}")

    def numbers(self, key: str, length: int, *, positive: bool = False) -> np.ndarray:
        """(length,) float32: a list of finite numbers."""
        values = self.sequence(key)
        if len(values) != length or any(type(value) not in (int, float) for value in values):
            raise InputError(f"{self._where}: {key} must be {length} numbers")
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=np.float32)
        if not np.isfinite(array).all() or (positive and not (array > 0).all()):
            raise InputError(f"{self._where}: {key} must be finite{' and positive' if positive else ''}")
        return array


def _counted(values: list[Any] | np.ndarray, where: str) -> np.ndarray:
    """(n,) int64."""
    try:
        array = np.array(values, dtype=np.int64)
        integers = isinstance(values, np.ndarray) or all_are(int, values)
        right = integers and not (array < 0).any() and not (array > LARGEST).any()
    except (OverflowError, TypeError, ValueError):
        right = False
    if not right:
        raise InputError(f"{where} must be whole numbers from 0 to {LARGEST}")
    return array


def all_are(kind: type, values: list[Any]) -> bool:
    """Of this very type; a loop would take longer than all else that opening a large corpus does."""
    return list(map(type, values)).count(kind) == len(values)


def _printable(values: list[str], where: str) -> list[str]:
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds half of a surrogate pair") from error
    return values


def list_pieces(values: Iterable[Any], **options: Any) -> Iterator[str]:
    """What joined is ``json.dumps(list(values), **options)``; ``options`` must not indent."""
    encoder = json.JSONEncoder(**options)
    remaining = iter(values)
    before = ""
    yield "["
    while block := list(islice(remaining, BLOCK)):
        yield before + encoder.encode(block)[1:-1]
        before = ", "
    yield "]"
