"""One shard of a store: a safetensors file of flat arrays, readable with any safetensors library.

mel           (frames, C) float16   normalised features, utterance after utterance
mel_offsets   (n + 1,)    int64     utterance k's frames are mel[mel_offsets[k]:mel_offsets[k + 1]]
text          (symbols,)  int32     symbol ids
text_offsets  (n + 1,)    int64
speaker       (n,)        int32
crc32c        (n,)        uint32    :func:`utterance_crc`
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.crc32c import crc32c
from ttsfast.errors import InputError
from ttsfast.files import atomic_write

# Little-endian whatever the machine, as safetensors stores them.
DTYPES: dict[str, np.dtype[Any]] = {
    "mel": np.dtype("<f2"),
    "mel_offsets": np.dtype("<i8"),
    "text": np.dtype("<i4"),
    "text_offsets": np.dtype("<i8"),
    "speaker": np.dtype("<i4"),
    "crc32c": np.dtype("<u4"),
}
REMEDY = "prepare the store again with `ttsfast prepare --force`"

_NAMES = {"<f2": "F16", "<i8": "I64", "<i4": "I32", "<u4": "U32"}


@dataclass(frozen=True)
class Shard:
    """What the manifest says of a shard file."""

    name: str
    size: int
    """bytes"""
    sha256: str
    utterances: int
    frames: int
    symbols: int


@dataclass(frozen=True)
class ShardArrays:
    """The arrays of one shard, in memory or mapped; see the top of this file."""

    mel: np.ndarray
    mel_offsets: np.ndarray
    text: np.ndarray
    text_offsets: np.ndarray
    speaker: np.ndarray
    crc32c: np.ndarray


def utterance_crc(mel: np.ndarray, text: np.ndarray) -> int:
    """CRC32C of an utterance's features (T, C) float16, then of its symbol ids (N,) int32, as stored."""
    features = crc32c(np.ascontiguousarray(mel, DTYPES["mel"]))
    return crc32c(np.ascontiguousarray(text, DTYPES["text"]), features)


def offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each of consecutive pieces starts, and at last where they end: (n + 1,) int64."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def write_shard(path: Path, arrays: ShardArrays, ids: list[str], fingerprint: str) -> Shard:
    """Write a shard atomically; its header carries ``ids`` and ``fingerprint``, so it tells what it is."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(getattr(arrays, name), dtype) for name, dtype in DTYPES.items()}
    # One metadata key: the library keeps several in no fixed order, and the bytes must not vary.
    header = json.dumps({"fingerprint": fingerprint, "ids": ids}, ensure_ascii=False)
    content = save(tensors, metadata={"ttsfast": header})
    with atomic_write(path) as handle:
        handle.write(content)
    return Shard(
        name=path.name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        utterances=len(ids),
        frames=len(tensors["mel"]),
        symbols=len(tensors["text"]),
    )


def open_shard(path: Path, shard: Shard, n_mels: int, *, memory_map: bool) -> ShardArrays:
    """Open the shard that the manifest describes, mapped or read into memory.

    Raises InputError when the file is missing, has another size, or other arrays than the manifest says.
    """
    try:
        with open(path, "rb") as handle:
            size = handle.seek(0, 2)
            # Before anything is mapped: touching pages beyond the end of a file kills the process.
            if size != shard.size:
                raise InputError(f"{path}: {size} bytes, the manifest says {shard.size}; {REMEDY}")
            places = _places(path, handle.fileno(), size)
            handle.seek(0)
            if memory_map:
                raw = np.memmap(handle, dtype=np.uint8, mode="r", shape=(size,)).view(np.ndarray)
            else:
                raw = np.fromfile(handle, dtype=np.uint8, count=size)
                raw.flags.writeable = False
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {REMEDY}") from error
    shapes = {
        "mel": (shard.frames, n_mels),
        "mel_offsets": (shard.utterances + 1,),
        "text": (shard.symbols,),
        "text_offsets": (shard.utterances + 1,),
        "speaker": (shard.utterances,),
        "crc32c": (shard.utterances,),
    }
    if set(places) != set(shapes):
        raise InputError(f"{path}: holds the arrays {sorted(places)}, expected {sorted(shapes)}; {REMEDY}")
    arrays = {}
    for name, shape in shapes.items():
        kind, found, begin, end = places[name]
        dtype = DTYPES[name]
        if (kind, found) != (_NAMES[dtype.str], shape) or begin % dtype.itemsize or end > len(raw):
            raise InputError(
                f"{path}: {name} is {kind} {found}, the manifest says {_NAMES[dtype.str]} {shape}; {REMEDY}"
            )
        arrays[name] = raw[begin:end].view(dtype).reshape(shape)
    return ShardArrays(**arrays)


def _places(path: Path, descriptor: int, size: int) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """For each array: dtype, shape, first byte and end in the file. The safetensors library judges the header
    (offsets inside the file, no overlap, sizes that agree with the shapes); it does not tell the offsets.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
        length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
        header = json.loads(os.pread(descriptor, min(length, size), 8))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a safetensors file ({error}); {REMEDY}") from error
    start = 8 + length
    return {
        name: (
            entry["dtype"],
            tuple(entry["shape"]),
            start + entry["data_offsets"][0],
            start + entry["data_offsets"][1],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }
