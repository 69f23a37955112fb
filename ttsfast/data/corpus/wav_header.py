"""Where the samples of a wav file are, and whether its header says how many.

A program that writes to a pipe cannot go back and put the length into the header, and leaves a placeholder
there: the largest number, or a large round one, or 0.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, Literal

_UNKNOWN = 0xFFFFFFFF
# The largest numbers of 32 and 64 bits, with a sign and without; some round down to a page.
_LARGEST = tuple(1 << bits for bits in (31, 32, 63, 64))
_BELOW_THE_LARGEST = 0x1000
# Bytes that some subtract, as what they do not know is the length of the whole file.
_HEADERS = (0, 36, 44)
# 13 minutes of CD sound: longer than an utterance, and hardly ever as round by chance.
_LEAST_ROUND = 1 << 27
_ROUND = (1 << 16, 1_000_000)


@dataclass(frozen=True)
class WavHeader:
    """What a wav file says of its samples."""

    size_place: slice
    """Where the size of the samples stands in the file."""
    order: Literal["big", "little"]
    announced: int
    """Bytes of samples, by the header."""
    there: int
    """Bytes from the first sample to the end of the file."""
    sample_bytes: int
    """Of one sample of all channels."""
    streamed: bool
    """``announced`` is a placeholder."""


def read_wav_header(file: BinaryIO) -> WavHeader | None:
    """Of a RIFF, RIFX or RF64 file; None when it has no chunk of samples."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    order: Literal["big", "little"] = "big" if file.read(12)[:4] == b"RIFX" else "little"
    long_size, long_place, sample_bytes = _UNKNOWN, slice(0), 1
    while len(header := file.read(8)) == 8:
        length = int.from_bytes(header[4:], order)
        start = file.tell()
        if header[:4] == b"data":
            announced, place = length, slice(start - 4, start)
            if length == _UNKNOWN and long_place.stop:
                announced, place = long_size, long_place
            there = size - start
            streamed = announced > there and _is_placeholder(announced)
            if announced == 0:
                streamed = there > 0 and not _are_chunks(file, start, size, order)
            return WavHeader(place, order, announced, there, sample_bytes, streamed)
        if header[:4] == b"ds64":
            long_size, long_place = int.from_bytes(file.read(16)[8:], order), slice(start + 8, start + 16)
        elif header[:4] == b"fmt ":
            sample_bytes = max(1, int.from_bytes(file.read(14)[12:], order))
        # Chunks begin at even places.
        file.seek(start + length + length % 2)
    return None


def _is_placeholder(length: int) -> bool:
    return length >= _LEAST_ROUND and any(
        any(0 <= most - whole <= _BELOW_THE_LARGEST for most in _LARGEST)
        or any(whole % unit == 0 for unit in _ROUND)
        for whole in (length + header for header in _HEADERS)
    )


def _are_chunks(file: BinaryIO, start: int, end: int, order: Literal["big", "little"]) -> bool:
    """Whether what lies between is a row of chunks, and so no samples."""
    place = start
    while place < end:
        file.seek(place)
        header = file.read(8)
        length = int.from_bytes(header[4:], order)
        place += 8 + length + length % 2
        if len(header) < 8 or not header[:4].isascii() or not header[:4].decode().isprintable():
            return False
    return place in (end, end + 1)
