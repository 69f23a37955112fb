"""Whether a recording is whole. libsndfile reads many files that were cut short without a word."""

from __future__ import annotations

import os
from typing import BinaryIO

from ttsfast.data.corpus.wav_header import read_wav_header

_MP3_KBIT = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}

UNKNOWN_LENGTH = 1 << 62
"""As libsndfile announces a FLAC whose header leaves the number of samples open."""
_LONGEST_FLAC_FRAME = 1 << 17


def _crc16_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << 8
        for _ in range(8):
            value = value << 1 ^ (0x8005 if value & 0x8000 else 0)
        table.append(value & 0xFFFF)
    return tuple(table)


_CRC16 = _crc16_table()


def truncation_fault(file: BinaryIO, container: str, announced: int, read: int) -> str:
    """How one can tell that a file is not whole; empty if it is.

    Args:
        file: the file, at any place.
        container: libsndfile's name of its format.
        announced: samples that libsndfile said there are.
        read: samples that it gave.
    """
    missing = announced - read
    if container in ("WAV", "WAVEX", "RF64"):
        return _wav_fault(file)
    if container == "OGG":
        return "" if missing <= 0 and _has_last_ogg_page(file) else "its stream has no proper end"
    if container == "FLAC" and announced >= UNKNOWN_LENGTH:
        return "" if _has_last_flac_frame(file) else "its last frame is not whole"
    if container == "MP3":
        length_known, frames, size = _mp3_frames(file)
        # Where no header tells the length, libsndfile stops where its estimate says. A decoder may keep back
        # a frame or two.
        if not length_known and read < (frames - 3) * size:
            return f"{read} of {frames * size} samples can be read (encode it again, as FLAC say)"
        missing = missing if length_known else 0
    return f"{missing} samples that its header announces are not there" if missing > 0 else ""


def _wav_fault(file: BinaryIO) -> str:
    """Of a file that announces its length: whether that is there. Of one that was written to a pipe, with a
    placeholder for it: whether it ends on a whole sample.
    """
    header = read_wav_header(file)
    if header is None:
        return ""
    if not header.streamed:
        lacking = header.announced - header.there
        return f"its data should go on for {lacking} bytes" if lacking > 0 else ""
    left = header.there % header.sample_bytes
    # A chunk of odd length is followed by a byte that is none of its own.
    padded = left == 1 and header.there % 2 == 0
    return "" if left == 0 or padded else "its last sample is not whole"


def _has_last_ogg_page(file: BinaryIO) -> bool:
    """Whether the last page is there, whole, and marked as the stream's end (RFC 3533)."""
    # No page is longer than this.
    tail = _tail(file, 65_307)
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return False
    table = page[27 : 27 + page[26]]
    return len(page) >= 27 + len(table) + sum(table)


def _has_last_flac_frame(file: BinaryIO) -> bool:
    """Whether the file ends with a frame: from its sync code to its CRC-16 (RFC 9639, 9.3)."""
    tail = _tail(file, _LONGEST_FLAC_FRAME)
    start = len(tail)
    while (start := tail.rfind(b"\xff", 0, start)) >= 0:
        if tail[start + 1 : start + 2] in (b"\xf8", b"\xf9") and _crc16(tail[start:]) == 0:
            return True
    return False


def _crc16(content: bytes) -> int:
    """Of polynomial 0x8005; 0 over whatever ends in its own."""
    value = 0
    for byte in content:
        value = (value << 8 & 0xFFFF) ^ _CRC16[value >> 8 ^ byte]
    return value


def _tail(file: BinaryIO, length: int) -> bytes:
    file.seek(max(0, file.seek(0, os.SEEK_END) - length))
    return file.read()


def _mp3_frames(file: BinaryIO) -> tuple[bool, int, int]:
    """Whether a Xing or Info header tells the length; how many frames there are, and of how many samples.

    Frames are counted by their own headers (ISO 11172-3, layer III) up to the first that is none.
    """
    file.seek(0)
    content = file.read()
    place, count, size = 0, 0, 1152
    if content[:3] == b"ID3":
        # A number of seven bits a byte.
        place = 10 + (content[6] << 21 | content[7] << 14 | content[8] << 7 | content[9])
    length_known = any(name in content[place : place + 200] for name in (b"Xing", b"Info"))
    while not length_known and len(header := content[place : place + 4]) == 4:
        version, rate, bits = header[1] >> 3 & 3, header[2] >> 2 & 3, header[2] >> 4
        if (
            header[0] != 0xFF
            or header[1] >> 5 != 7
            or header[1] >> 1 & 3 != 1
            or rate == 3
            or bits in (0, 15)
        ):
            break
        first = version == 3
        hertz = (44100, 48000, 32000)[rate] // {3: 1, 2: 2}.get(version, 4)
        size = 1152 if first else 576
        place += size // 8 * 1000 * _MP3_KBIT[1 if first else 2][bits] // hertz + (header[2] >> 1 & 1)
        count += 1
    return length_known, count, size
