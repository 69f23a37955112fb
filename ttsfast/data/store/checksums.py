"""CRC32C (Castagnoli; RFC 3720, appendix B.4): by the C++ extension, or by numpy with the same result.

The numpy version runs many lanes at once: the message is cut into equal lanes, every lane's checksum is
advanced one byte at a time through the usual 256-entry table, and the lanes are joined two by two. Joining
uses that a CRC is linear over GF(2): crc(a + b) = advance(crc(a), len(b)) ^ crc(b), where ``advance`` by n
zero bytes is a 32 x 32 bit matrix, kept as four 256-entry tables.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ttsfast import native

_POLYNOMIAL = 0x82F63B78
_LANES = 512


def crc32c(data: bytes | bytearray | memoryview | np.ndarray, crc: int = 0) -> int:
    """The checksum of contiguous ``data``, continuing from ``crc``; an unsigned 32-bit number."""
    if native.core is not None:
        return native.core.crc32c(data, crc)
    return crc32c_numpy(data, crc)


def crc32c_numpy(data: bytes | bytearray | memoryview | np.ndarray, crc: int = 0) -> int:
    """:func:`crc32c` without the extension."""
    # An empty array cannot be cast to bytes.
    message = np.frombuffer(memoryview(data).cast("B") if len(data) else b"", dtype=np.uint8)  # type: ignore[arg-type]
    state = crc ^ 0xFFFFFFFF
    lane = len(message) // _LANES
    if lane >= 16:
        lanes = np.ascontiguousarray(message[: lane * _LANES].reshape(_LANES, lane).T)
        states = np.zeros(_LANES, dtype=np.uint32)
        states[0] = state
        table = _table()
        for column in lanes:
            states = table[(states & 0xFF) ^ column] ^ (states >> np.uint32(8))
        while len(states) > 1:
            states = _advance(states[0::2], lane) ^ states[1::2]
            lane *= 2
        state = int(states[0])
        message = message[lane:]
    entries = _table_list()
    for byte in message.tobytes():
        state = entries[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """(256,) uint32: the effect of one byte on a state of zero."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table


@lru_cache(maxsize=1)
def _table_list() -> list[int]:
    return _table().tolist()


def _advance(states: np.ndarray, zeros: int) -> np.ndarray:
    """States (n,) uint32 after ``zeros`` more zero bytes."""
    power = 0
    while zeros:
        if zeros & 1:
            states = _apply(_operator(power), states)
        zeros >>= 1
        power += 1
    return states


@lru_cache(maxsize=64)
def _operator(power: int) -> np.ndarray:
    """(4, 256) uint32: what each byte of a state becomes after 2**power zero bytes."""
    if power:
        half = _operator(power - 1)
        return _apply(half, half)
    states = np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32)[:, None])
    return _table()[states & 0xFF] ^ (states >> np.uint32(8))


def _apply(operator: np.ndarray, states: np.ndarray) -> np.ndarray:
    result = operator[0][states & 0xFF]
    for byte in range(1, 4):
        result = result ^ operator[byte][(states >> np.uint32(8 * byte)) & 0xFF]
    return result
