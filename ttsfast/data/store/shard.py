"""One shard of a store: a safetensors file of flat arrays, readable with any safetensors library.

mel           (frames, C) float16   normalised features, utterance after utterance
mel_offsets   (n + 1,)    int64     utterance k's frames are mel[mel_offsets[k]:mel_offsets[k + 1]]
text          (symbols,)  int32     symbol ids
text_offsets  (n + 1,)    int64
speaker       (n,)        int32
crc32c        (n,)        uint32    :func:`utterance_crc`

and, in a store that was made with them (see ``tracks.py``):

pitch         (frames,)   float32   Hz, 0 where unvoiced
energy        (frames,)   float32
tracks_crc32c (n,)        uint32    :func:`tracks_crc` of those two that are there

Its metadata says what the arrays do not: all that a lost manifest needs (see ``rebuild.py``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ttsfast.data.features import tracks
from ttsfast.data.store.checksums import crc32c

# Little-endian whatever the machine, as safetensors stores them.
DTYPES: dict[str, np.dtype[Any]] = {
    "mel": np.dtype("<f2"),
    "mel_offsets": np.dtype("<i8"),
    "text": np.dtype("<i4"),
    "text_offsets": np.dtype("<i8"),
    "speaker": np.dtype("<i4"),
    "crc32c": np.dtype("<u4"),
}
# A shard has the last of these exactly when it has one of the others.
OPTIONAL: dict[str, np.dtype[Any]] = {
    **dict.fromkeys(tracks.NAMES, tracks.DTYPE),
    "tracks_crc32c": np.dtype("<u4"),
}
INDEX = ("mel_offsets", "text_offsets", "speaker", "crc32c")
TYPES = DTYPES | OPTIONAL
REMEDY = "prepare the store again with `ttsfast prepare --force`"
SHARD_NAME = re.compile(r"mel-[0-9a-f]{12}-\d{5,9}\.safetensors")


@dataclass(frozen=True)
class Shard:
    """What the manifest says of a shard file."""

    name: str
    size: int
    """bytes"""
    sha256: str
    header_crc32c: int
    """Of everything before the arrays: so a change to any byte of the file is found by reading."""
    utterances: int
    frames: int
    symbols: int


@dataclass(frozen=True)
class ShardArrays:
    """The arrays of one shard, in memory; see the top of this file."""

    mel: np.ndarray
    mel_offsets: np.ndarray
    text: np.ndarray
    text_offsets: np.ndarray
    speaker: np.ndarray
    crc32c: np.ndarray
    pitch: np.ndarray | None = None
    energy: np.ndarray | None = None
    tracks_crc32c: np.ndarray | None = None

    def named(self) -> dict[str, np.ndarray]:
        """Those that are there, by name."""
        return {name: array for name, array in vars(self).items() if array is not None}


def utterance_crc(mel: np.ndarray, text: np.ndarray) -> int:
    """CRC32C of an utterance's features (T, C) float16, then of its symbol ids (N,) int32, as stored."""
    features = crc32c(np.ascontiguousarray(mel, DTYPES["mel"]))
    return crc32c(np.ascontiguousarray(text, DTYPES["text"]), features)


def tracks_crc(values: Iterable[np.ndarray]) -> int:
    """CRC32C of an utterance's tracks, each (T,) float32, one after the other in the order of
    ``tracks.NAMES``.
    """
    found = 0
    for track in values:
        found = crc32c(np.ascontiguousarray(track, tracks.DTYPE), found)
    return found


def tracks_fit(arrays: ShardArrays, utterance: int, frames: slice) -> bool:
    """Whether the tracks of a shard's utterance, at ``frames``, fit their checksum; True where none is."""
    if arrays.tracks_crc32c is None:
        return True
    held = (track for name in tracks.NAMES if (track := getattr(arrays, name)) is not None)
    return tracks_crc(track[frames] for track in held) == arrays.tracks_crc32c[utterance]


def offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each of consecutive pieces starts, and at last where they end: (n + 1,) int64."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def shard_name(fingerprint: str, number: int) -> str:
    """The file of shard ``number`` of a store: what is made otherwise never takes its place."""
    return f"mel-{fingerprint[:12]}-{number:05d}.safetensors"


def describe_shard(name: str, content: bytes, utterances: int, frames: int, symbols: int) -> Shard:
    """What a manifest says of a shard file of this content."""
    head = 8 + int.from_bytes(content[:8], "little")
    return Shard(
        name=name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        header_crc32c=crc32c(content[:head]),
        utterances=utterances,
        frames=frames,
        symbols=symbols,
    )
