"""The header of a shard's file: the places of its arrays, and the sealed metadata.

A safetensors header is JSON that a file's writer chose, so all of it is checked before an array is touched.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ttsfast.data.features import tracks
from ttsfast.data.store.shard import DTYPES, INDEX, TYPES
from ttsfast.errors import InputError

_NAMES = {"<f2": "F16", "<f4": "F32", "<i8": "I64", "<i4": "I32", "<u4": "U32"}


def parse_header(header: bytes, size: int) -> tuple[dict[str, tuple[tuple[int, ...], int]], bytes]:
    """Of a shard file of ``size`` bytes: for each array its shape and first byte, and the metadata's JSON,
    which :func:`parse_metadata` reads.

    ``header`` is the file's beginning up to the arrays. The arrays must be the six of this format, perhaps
    with tracks and their checksums, each of its type, in one piece without gaps from the header to the end of
    the file. Raises InputError, without the file's name, for anything else.
    """
    if len(header) < 8 or len(header) != 8 + int.from_bytes(header[:8], "little") or len(header) > size:
        raise InputError("not a safetensors file: its header's length does not fit")
    try:
        # bytes(): what is in memory comes as a view.
        metadata, rest = _split_header(bytes(header[8:]))
        entries = json.loads(rest)
        found = {name: _place(name, entry, len(header)) for name, entry in entries.items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"not a shard of a store ({error!r})") from error
    # What is no array of this format at all has failed above.
    held = any(name in found for name in tracks.NAMES)
    if not found.keys() >= DTYPES.keys() or ("tracks_crc32c" in found) != held:
        raise InputError(f"holds the arrays {sorted(found)}, expected {sorted(DTYPES)}")
    end = len(header)
    for name, (_, begin, stop) in sorted(found.items(), key=lambda item: item[1][1:]):
        if begin != end:
            raise InputError(f"{name} does not follow the array before it")
        end = stop
    if end != size:
        raise InputError(f"its arrays end at byte {end} of {size}")
    return {name: (shape, begin) for name, (shape, begin, _) in found.items()}, metadata


def _split_header(header: bytes) -> tuple[bytes, bytes]:
    """The metadata, a JSON text in a JSON text, and the JSON object of the arrays.

    As :func:`write_shard` leaves them without reading the first, which is a hundred times as long: its end is
    the last quote that follows a brace, since the arrays have none. Were it another, what is cut off here
    would be no JSON to :func:`parse_metadata`.
    """
    begin = b'{"__metadata__":{"ttsfast":'
    end = header.rfind(b'}"},', len(begin))
    if header.startswith(begin) and end > 0:
        return header[len(begin) : end + 2], b"{" + header[end + 4 :]
    entries = json.loads(header)
    metadata = entries.pop("__metadata__")["ttsfast"]
    return json.dumps(metadata).encode(), json.dumps(entries).encode()


def parse_metadata(text: bytes) -> dict[str, Any]:
    """Raises InputError, without the file's name, for anything but an object in a text."""
    try:
        metadata = json.loads(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"not a shard of a store ({error!r})") from error
    if type(metadata) is not dict:
        raise InputError("not a shard of a store (its metadata is no object)")
    return metadata


def _place(name: str, entry: Any, start: int) -> tuple[tuple[int, ...], int, int]:
    dtype = TYPES[name]
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError(f"{name}: not a count")
    rank = 2 if name == "mel" else 1
    if entry["dtype"] != _NAMES[dtype.str] or len(shape) != rank:
        raise ValueError(f"{name} is {entry['dtype']} {shape}")
    if end - begin != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{name} has {end - begin} bytes for {shape}")
    return shape, start + begin, start + end


def check_seal(metadata: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise InputError unless metadata and index are those that :func:`write_shard` sealed.

    With every utterance's own checksum that accounts for each byte that means something, without a manifest.
    """
    unsealed = {name: value for name, value in metadata.items() if name != "sha256"}
    if metadata.get("sha256") != _seal(unsealed, arrays):
        raise InputError("its metadata or its index do not fit their hash")


def sealed(metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """The metadata of a shard as JSON: ``metadata``, plain values, with the hash of it and of the index."""
    return json.dumps({**metadata, "sha256": _seal(metadata, tensors)}, ensure_ascii=False)


def _seal(metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in index_names(tensors):
        digest.update(np.ascontiguousarray(tensors[name], TYPES[name]).tobytes())
    return digest.hexdigest()


def index_names(names: Iterable[str]) -> tuple[str, ...]:
    """Of the arrays ``names`` of a shard those that the seal is of: all but features, texts and tracks."""
    return (*INDEX, "tracks_crc32c") if "tracks_crc32c" in names else INDEX
