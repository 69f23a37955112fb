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

import errno
import hashlib
import json
import math
import os
import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data import tracks
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
# A shard has the last of these exactly when it has one of the others.
OPTIONAL: dict[str, np.dtype[Any]] = {
    **dict.fromkeys(tracks.NAMES, tracks.DTYPE),
    "tracks_crc32c": np.dtype("<u4"),
}
INDEX = ("mel_offsets", "text_offsets", "speaker", "crc32c")
REMEDY = "prepare the store again with `ttsfast prepare --force`"
SHARD_NAME = re.compile(r"mel-[0-9a-f]{12}-\d{5,9}\.safetensors")

_TYPES = DTYPES | OPTIONAL
_NAMES = {"<f2": "F16", "<f4": "F32", "<i8": "I64", "<i4": "I32", "<u4": "U32"}


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


def write_shard(path: Path, arrays: ShardArrays, about: Mapping[str, Any]) -> Shard:
    """Write a shard atomically; ``about`` is its metadata, plain values, sealed against change."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(array, _TYPES[name]) for name, array in arrays.named().items()}
    # One metadata key: the library keeps several in no fixed order, and the bytes must not vary.
    content = save(tensors, metadata={"ttsfast": _sealed(about, tensors)})
    with atomic_write(path) as handle:
        handle.write(content)
    return describe(path.name, content, len(arrays.crc32c), len(tensors["mel"]), len(tensors["text"]))


def describe(name: str, content: bytes, utterances: int, frames: int, symbols: int) -> Shard:
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


class ShardFile:
    """A shard, open: its index in memory, its features read when they are asked for.

    Features are read through the descriptor and not through a memory map: where a file has been cut short
    behind a map, touching it ends the process, and no check before the touch can rule that out. Safe to use
    from several threads and after a fork.
    """

    def __init__(
        self, path: Path, shard: Shard, n_mels: int, *, in_memory: bool = False, remedy: str = REMEDY
    ) -> None:
        """Open the shard that the manifest describes.

        Args:
            path: the file.
            shard: what the manifest says of it.
            n_mels: bins.
            in_memory: read all of it now.
            remedy: what a message tells a person to do when the file is damaged.

        Raises:
            InputError: the file is missing, has another size, or another header or arrays than the manifest
                says.
        """
        self.path: Path | str = path
        self.remedy = remedy
        self._content: bytes | None = None
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error) from error
        self._close = weakref.finalize(self, os.close, self._descriptor)
        size = self._size()
        if size != shard.size:
            raise InputError(f"{path}: {size} bytes, the manifest says {shard.size}; {remedy}")
        if in_memory:
            self._content = self._bytes(0, size)
            self._close()
        self._open(shard, n_mels, size)

    @classmethod
    def of_bytes(
        cls, path: Path | str, content: bytes, shard: Shard, n_mels: int, *, remedy: str = REMEDY
    ) -> ShardFile:
        """The same from the content of a file that is elsewhere; ``path`` is for the messages."""
        self = cls.__new__(cls)
        self.path, self.remedy, self._content = path, remedy, content
        if len(content) != shard.size:
            raise InputError(f"{path}: {len(content)} bytes, the manifest says {shard.size}; {remedy}")
        self._open(shard, n_mels, shard.size)
        return self

    def _open(self, shard: Shard, n_mels: int, size: int) -> None:
        length = min(int.from_bytes(self._bytes(0, min(8, size)), "little"), size - 8)
        header = self._bytes(0, 8 + length) if length >= 0 else b""
        if crc32c(header) != shard.header_crc32c:
            raise InputError(f"{self.path}: its header does not fit its checksum; {self.remedy}")
        shapes = {
            "mel": (shard.frames, n_mels),
            "mel_offsets": (shard.utterances + 1,),
            "text": (shard.symbols,),
            "text_offsets": (shard.utterances + 1,),
            "speaker": (shard.utterances,),
            "crc32c": (shard.utterances,),
            **dict.fromkeys(tracks.NAMES, (shard.frames,)),
            "tracks_crc32c": (shard.utterances,),
        }
        try:
            self._places, self._metadata = parse_header(header, size)
            for name, (shape, _) in self._places.items():
                if shape != shapes[name]:
                    raise InputError(f"{name} is {shape}, the manifest says {shapes[name]}")
        except InputError as error:
            raise InputError(f"{self.path}: {error}; {self.remedy}") from error
        self._bins = n_mels
        self.mel_offsets, self.text_offsets, self.speaker, self.crc32c = map(self._array, INDEX)
        self.tracks = tuple(name for name in tracks.NAMES if name in self._places)
        """Those that it holds."""
        self.tracks_crc32c = self._array("tracks_crc32c") if self.tracks else None
        if self.tracks_crc32c is not None:
            # The manifest says nothing of these checksums; the seal, which its checksum of the header is of,
            # does.
            self._check_index()

    def utterance(
        self, offset: int, frames: int, text_offset: int, symbols: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features (frames, C) float16 and symbol ids (symbols,) int32, read-only.

        Raises InputError when the file can no longer be read, or has become shorter meanwhile.
        """
        mel = self._rows("mel", offset, frames).reshape(frames, self._bins)
        return mel, self._rows("text", text_offset, symbols)

    def track_values(self, offset: int, frames: int) -> dict[str, np.ndarray]:
        """The tracks (frames,) float32 of an utterance by name, read-only; raises as :meth:`utterance`."""
        return {name: self._rows(name, offset, frames) for name in self.tracks}

    def source(self) -> int | bytes:
        """The open file's descriptor, or its content where that is in memory: for readers of their own."""
        return self._descriptor if self._content is None else self._content

    def extent(self, name: str) -> tuple[int, int]:
        """Where in the file an array begins, and how many rows it has: for readers of their own."""
        shape, begin = self._places[name]
        return begin, shape[0]

    def arrays(self) -> ShardArrays:
        """All of it, read."""
        return ShardArrays(**{name: self._array(name) for name in self._places})

    def content(self) -> bytes:
        """The file's bytes."""
        return self._content if self._content is not None else self._bytes(0, self._size())

    @property
    def metadata(self) -> dict[str, Any]:
        """What :func:`write_shard` was told about; as much as a manifest, so read when it is asked for.

        Raises InputError where it is no such thing.
        """
        try:
            return parse_metadata(self._metadata)
        except InputError as error:
            raise InputError(f"{self.path}: {error}; {self.remedy}") from error

    def _check_index(self) -> None:
        try:
            check_seal(self.metadata, {name: self._array(name) for name in _index(self._places)})
        except InputError as error:
            raise InputError(f"{self.path}: {error}; {self.remedy}") from error

    def _array(self, name: str) -> np.ndarray:
        shape = self._places[name][0]
        return self._rows(name, 0, shape[0]).reshape(shape)

    def _rows(self, name: str, start: int, count: int) -> np.ndarray:
        shape, begin = self._places[name]
        dtype = _TYPES[name]
        width = dtype.itemsize * math.prod(shape[1:])
        begin += start * width
        return np.frombuffer(self._bytes(begin, begin + count * width), dtype)

    def _bytes(self, start: int, stop: int) -> Any:
        if self._content is not None:
            return memoryview(self._content)[start:stop]
        pieces = []
        while start < stop:
            try:
                piece = os.pread(self._descriptor, stop - start, start)
            except OSError as error:
                raise self._unreadable(error) from error
            if not piece:
                raise InputError(
                    f"{self.path}: cut short to {self._size()} bytes while it is in use; {self.remedy}"
                )
            pieces.append(piece)
            start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def _unreadable(self, error: OSError) -> InputError:
        remedy = self.remedy
        if error.errno == errno.EMFILE:
            remedy = "raise the limit of open files (`ulimit -n`) above the number of shards"
        return InputError(f"{self.path}: cannot be read ({error.strerror or error}); {remedy}")


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
    dtype = _TYPES[name]
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
    about = {name: value for name, value in metadata.items() if name != "sha256"}
    if metadata.get("sha256") != _seal(about, arrays):
        raise InputError("its metadata or its index do not fit their hash")


def _sealed(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    return json.dumps({**about, "sha256": _seal(about, tensors)}, ensure_ascii=False)


def _seal(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in _index(tensors):
        digest.update(np.ascontiguousarray(tensors[name], _TYPES[name]).tobytes())
    return digest.hexdigest()


def _index(names: Iterable[str]) -> tuple[str, ...]:
    return (*INDEX, "tracks_crc32c") if "tracks_crc32c" in names else INDEX
