"""A shard's file: written whole, and open for reading."""

from __future__ import annotations

import errno
import math
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.features import tracks
from ttsfast.data.store.checksums import crc32c
from ttsfast.data.store.manifest import Manifest
from ttsfast.data.store.shard import (
    INDEX,
    REMEDY,
    TYPES,
    Shard,
    ShardArrays,
    describe_shard,
    offsets,
)
from ttsfast.data.store.shard_header import check_seal, index_names, parse_header, parse_metadata, sealed
from ttsfast.errors import InputError
from ttsfast.files import atomic_write


def write_shard(path: Path, arrays: ShardArrays, metadata: Mapping[str, Any]) -> Shard:
    """Write a shard atomically; ``metadata`` are plain values, sealed against change."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(array, TYPES[name]) for name, array in arrays.named().items()}
    # One metadata key: the library keeps several in no fixed order, and the bytes must not vary.
    content = save(tensors, metadata={"ttsfast": sealed(metadata, tensors)})
    with atomic_write(path) as handle:
        handle.write(content)
    return describe_shard(path.name, content, len(arrays.crc32c), len(tensors["mel"]), len(tensors["text"]))


class ShardFile:
    """A shard, open: its index in memory, its features read when they are asked for.

    Features are read through the descriptor and not through a memory map: where a file has been cut short
    behind a map, touching it ends the process, and no check before the touch can rule that out. Safe to use
    from several threads and after a fork.
    """

    def __init__(
        self,
        path: Path | str,
        shard: Shard,
        n_mels: int,
        *,
        in_memory: bool = False,
        content: bytes | None = None,
        remedy: str = REMEDY,
    ) -> None:
        """Open the shard that the manifest describes.

        Args:
            path: the file.
            shard: what the manifest says of it.
            n_mels: bins.
            in_memory: read all of it now.
            content: of a file that is elsewhere; ``path`` is then for the messages.
            remedy: what a message tells a person to do when the file is damaged.

        Raises:
            InputError: the file is missing, has another size, or another header or arrays than the manifest
                says.
        """
        self.path: Path | str = path
        self.remedy = remedy
        self._content = content
        if content is None:
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise self._unreadable(error) from error
            self._close = weakref.finalize(self, os.close, self._descriptor)
        size = self._size()
        if size != shard.size:
            raise InputError(f"{path}: {size} bytes, the manifest says {shard.size}; {remedy}")
        if in_memory and content is None:
            self._content = self._bytes(0, size)
            self._close()
        self._open(shard, n_mels, size)

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
            check_seal(self.metadata, {name: self._array(name) for name in index_names(self._places)})
        except InputError as error:
            raise InputError(f"{self.path}: {error}; {self.remedy}") from error

    def _array(self, name: str) -> np.ndarray:
        shape = self._places[name][0]
        return self._rows(name, 0, shape[0]).reshape(shape)

    def _rows(self, name: str, start: int, count: int) -> np.ndarray:
        shape, begin = self._places[name]
        dtype = TYPES[name]
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
        return len(self._content) if self._content is not None else os.fstat(self._descriptor).st_size

    def _unreadable(self, error: OSError) -> InputError:
        remedy = self.remedy
        if error.errno == errno.EMFILE:
            remedy = "raise the limit of open files (`ulimit -n`) above the number of shards"
        return InputError(f"{self.path}: cannot be read ({error.strerror or error}); {remedy}")


def check_index(manifest: Manifest, number: int, shard: ShardFile) -> None:
    """Raise InputError unless a shard's own index is the manifest's: one swapped for its neighbour may well
    have the right size.
    """
    entries = manifest.entries
    # They stand in the order of the shards.
    mine = slice(*np.searchsorted(entries.shard, [number, number + 1]))
    if shard.tracks != tuple(manifest.tracks):
        held, said = (" and ".join(names) or "no track" for names in (shard.tracks, manifest.tracks))
        raise InputError(f"{shard.path}: holds {held}, the manifest says {said}; {shard.remedy}")
    for name, own, expected in (
        ("mel_offsets", shard.mel_offsets, offsets(entries.frames[mine])),
        ("text_offsets", shard.text_offsets, offsets(entries.symbols[mine])),
        ("speaker", shard.speaker, entries.speaker[mine]),
        ("crc32c", shard.crc32c, entries.crc32c[mine]),
    ):
        if not np.array_equal(own, expected):
            raise InputError(f"{shard.path}: {name} differs from the manifest; {shard.remedy}")
