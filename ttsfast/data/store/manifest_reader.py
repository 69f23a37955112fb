"""Reading a manifest: its seal, then its JSON, of which the long columns of numbers are read past."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.store.manifest import NAME, Manifest
from ttsfast.data.store.manifest_checks import manifest_from_dict
from ttsfast.data.store.shard import REMEDY
from ttsfast.data.store.utterance_table import NUMBER_COLUMNS
from ttsfast.errors import InputError

_SEAL = re.compile(rb'"manifest_sha256": "([0-9a-f]{64})"\n\}\n\Z')
_SEAL_BYTES = 128


def read_manifest(folder: Path) -> Manifest:
    """Read and check a store's manifest; raises InputError naming the file, the key and the remedy."""
    path = folder / NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no {NAME} there, so no complete store; run `ttsfast prepare` (again)"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: Path | str) -> Manifest:
    """Check every field's type and bounds, and build the manifest; ``path`` is for the messages."""
    # Not from the beginning, which would take as long as the hash.
    seal = _SEAL.search(content, max(0, len(content) - _SEAL_BYTES))
    if seal is None or hashlib.sha256(content[: seal.start()]).hexdigest().encode() != seal[1]:
        raise InputError(f"{path}: damaged or edited (its own hash does not fit); {REMEDY}")
    try:
        rest, columns = _taken_out(content)
        values = json.loads(rest, object_pairs_hook=_unique, parse_constant=_no_constant)
        if columns:
            values["entries"] |= columns
        return manifest_from_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}; {REMEDY}") from error
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not a manifest ({error!r}); {REMEDY}") from error


def _taken_out(content: bytes) -> tuple[bytes, dict[str, np.ndarray]]:
    """The content with nothing in the lists of numbers of its entries, and those numbers.

    A JSON reader makes an object of each, which for a large corpus is half of its time. Whatever does not
    look as :class:`Manifest` writes it is left in its place.
    """
    place = content.find(b'\n"entries": {')
    stop = content.find(b"\n", place + 1)
    pieces, done, columns = [], 0, {}
    for name in NUMBER_COLUMNS:
        # Within a text a quote follows a backslash, so what looks like a key is one.
        key = b'"%s": [' % name.encode()
        begin = content.find(key, place, stop) + len(key)
        end = content.find(b"]", begin, stop)
        if not 0 <= place < begin < end or (column := _column(content[begin:end])) is None:
            continue
        pieces.append(content[done:begin])
        place = done = end
        columns[name] = column
    return b"".join([*pieces, content[done:]]), columns


def _column(numbers: bytes) -> np.ndarray | None:
    """(n,) int64 of "1, 23, 456", one at least; None for anything else, however little."""
    between = numbers.translate(None, b"0123456789")
    count = 1 + len(between) // 2
    ends = numbers[:1].isdigit() and numbers[-1:].isdigit()
    if not ends or between != b", " * (count - 1) or b", ," in numbers:
        return None
    # Numbers beyond 64 bits come as the largest.
    column = np.fromstring(numbers.decode(), dtype=np.int64, sep=",")
    return column if len(column) == count else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise InputError("a key stands twice")
    return values


def _no_constant(name: str) -> Any:
    raise InputError(f"holds {name}, which is not a JSON number")
