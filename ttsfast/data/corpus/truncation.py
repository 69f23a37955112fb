"""Whether a recording is whole. libsndfile reads many files that were cut short without a word."""

from __future__ import annotations

import os
from typing import BinaryIO, Literal

_MP3_KBIT = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


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
        lacking = _lacking_wav_bytes(file)
        return f"its data should go on for {lacking} bytes" if lacking > 0 else ""
    if container == "OGG":
        return "" if missing <= 0 and _has_last_ogg_page(file) else "its stream has no proper end"
    if container == "MP3":
        length_known, frames, size = _mp3_frames(file)
        # Where no header tells the length, libsndfile stops where its estimate says. A decoder may keep back
        # a frame or two.
        if not length_known and read < (frames - 3) * size:
            return f"{read} of {frames * size} samples can be read (encode it again, as FLAC say)"
        missing = missing if length_known else 0
    return f"{missing} samples that its header announces are not there" if missing > 0 else ""


def _lacking_wav_bytes(file: BinaryIO) -> int:
    """How far the data chunk's stated size reaches beyond the file; streamed files, which state none: 0."""
    unknown = 0xFFFFFFFF
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    order: Literal["big", "little"] = "big" if file.read(12)[:4] == b"RIFX" else "little"
    long_size = unknown
    while len(header := file.read(8)) == 8:
        length = int.from_bytes(header[4:], order)
        if header[:4] == b"ds64":
            long_size = int.from_bytes(file.read(16)[8:], order)
            file.seek(length - 16, os.SEEK_CUR)
        elif header[:4] == b"data":
            length = long_size if length == unknown else length
            return 0 if length == unknown else file.tell() + length - size
        else:
            # Chunks begin at even places.
            file.seek(length + length % 2, os.SEEK_CUR)
    return 0


def _has_last_ogg_page(file: BinaryIO) -> bool:
    """Whether the last page is there, whole, and marked as the stream's end (RFC 3533)."""
    # No page is longer than this.
    file.seek(max(0, file.seek(0, os.SEEK_END) - 65_307))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return False
    table = page[27 : 27 + page[26]]
    return len(page) >= 27 + len(table) + sum(table)


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
