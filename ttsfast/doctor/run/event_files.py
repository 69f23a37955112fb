"""TensorBoard's event files: their scalars, read record by record, and nothing else of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttsfast.data.store.checksums import crc32c
from ttsfast.doctor.run.curve import Curve
from ttsfast.errors import InputError

PATTERN = "*tfevents*"
LONGEST = 1 << 24
"""Bytes of an event that is read; larger ones are pictures and sounds, and are passed over."""
MOST_FILES = 1000
MOST_TAGS = 4000
MOST_POINTS = 2_000_000
"""Of all tags together: beyond, memory would pass some hundred megabytes."""


def event_files(place: Path) -> list[Path]:
    """An event file, or those of a folder and the folders in it, the oldest first."""
    files = [place] if place.is_file() else sorted(p for p in place.rglob(PATTERN) if p.is_file())
    if len(files) > MOST_FILES:
        raise InputError(f"{place}: {len(files)} event files; name the folder of one run")
    # Their names begin with the second that they were opened at.
    return sorted(files, key=lambda path: (path.parent, path.name))


def read_event_files(place: Path) -> tuple[dict[str, Curve], list[int]]:
    """All scalars, by tag with the folder below ``place`` before it; and the steps at which a file goes on
    where another one ended.

    A record that was cut at the end of a file, as by a kill, is left out.

    Raises:
        InputError: a file is damaged, or holds no whole record; or there is too much.
    """
    points: dict[str, dict[int, float]] = {}
    starts: list[int] = []
    last: dict[Path, int] = {}
    count = 0
    for path in event_files(place):
        folder = path.parent.relative_to(place).as_posix() if place.is_dir() else "."
        first = None
        for step, tag, value in _scalars(path):
            name = tag if folder == "." else f"{folder}/{tag}"
            points.setdefault(name, {})[step] = value
            first = step if first is None else first
            count += 1
            if count > MOST_POINTS or len(points) > MOST_TAGS:
                raise InputError(
                    f"{place}: more than {MOST_POINTS:,} points or {MOST_TAGS:,} tags; name one run"
                )
        if first is not None and path.parent in last:
            starts.append(min(first - 1, last[path.parent]))
        if points:
            last[path.parent] = max(max(p) for p in points.values())
    return {tag: Curve.of(found.items()) for tag, found in points.items()}, sorted(set(starts))


def _scalars(path: Path) -> Iterator[tuple[int, str, float]]:
    """(step, tag, value) of every scalar."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    for place, record in _records(path):
        event: Any = Event()
        try:
            event.ParseFromString(record)
        except DecodeError as error:
            raise InputError(f"{path}: damaged at byte {place:,} (not an event); move it away") from error
        for value in event.summary.value if event.HasField("summary") else ():
            if value.HasField("simple_value"):
                yield event.step, value.tag, float(value.simple_value)
            elif value.HasField("tensor") and (number := _number(value.tensor)) is not None:
                yield event.step, value.tag, number


def _number(tensor: Any) -> float | None:
    """What a tensor of one number holds, as newer writers write scalars; None of any other."""
    from tensorboard.util.tensor_util import make_ndarray

    if len(tensor.tensor_shape.dim) or tensor.dtype not in (1, 2, 3, 9):
        return None
    return float(make_ndarray(tensor))


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(place, content) of every whole record that may hold scalars.

    A record (TFRecord): its length as eight bytes, their masked CRC32C, the content, and its own.
    """
    size = path.stat().st_size
    whole = 0
    try:
        with path.open("rb") as handle:
            while head := handle.read(12):
                place = handle.tell() - len(head)
                if len(head) < 12:
                    break
                length, check = struct.unpack("<QI", head)
                if check != _masked(crc32c(head[:8])):
                    raise InputError(f"{path}: damaged at byte {place:,}, or no event file; move it away")
                if place + 12 + length + 4 > size:
                    break
                whole += 1
                if length > LONGEST:
                    handle.seek(length + 4, 1)
                    continue
                content = handle.read(length)
                (check,) = struct.unpack("<I", handle.read(4))
                if check != _masked(crc32c(content)):
                    raise InputError(f"{path}: damaged at byte {place:,}; move it away")
                yield place, content
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not whole:
        raise InputError(
            f"{path}: an event file that was cut before its first record ended; give another one"
        )


def _masked(crc: int) -> int:
    """A checksum as TFRecords hold it."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
