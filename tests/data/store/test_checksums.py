"""CRC32C against published check values, and the implementations against each other."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast import native
from ttsfast.data.store.checksums import crc32c, crc32c_numpy

needs_native = pytest.mark.skipif(native.core is None, reason=native.why_missing or "the extension is there")

# RFC 3720, appendix B.4, and the customary check value.
PUBLISHED = [
    (b"", 0x00000000),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
]


def implementations() -> list:
    found = [crc32c, crc32c_numpy]
    if native.core is not None:
        found += [native.core.crc32c, native.core.crc32c_table]
    return found


@pytest.mark.parametrize(("message", "expected"), PUBLISHED)
def test_published_values(message: bytes, expected: int) -> None:
    for implementation in implementations():
        assert implementation(message) == expected


@pytest.mark.parametrize("size", [1, 7, 8, 9, 63, 65, 512 * 16 - 1, 512 * 16, 512 * 16 + 1, 100_003])
def test_implementations_agree_on_every_length_class(size: int) -> None:
    message = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert len({implementation(message.tobytes()) for implementation in implementations()}) == 1


@given(message=st.binary(max_size=9000), cut=st.integers(0, 9000))
@settings(max_examples=60, deadline=None)
def test_continues_where_it_stopped(message: bytes, cut: int) -> None:
    head, tail = message[:cut], message[cut:]
    for implementation in implementations():
        assert implementation(tail, implementation(head)) == implementation(message)


def test_every_bit_flip_changes_it() -> None:
    message = bytearray(np.random.default_rng(0).bytes(300))
    whole = crc32c(bytes(message))
    for bit in range(len(message) * 8):
        message[bit // 8] ^= 1 << (bit % 8)
        assert crc32c(bytes(message)) != whole
        message[bit // 8] ^= 1 << (bit % 8)


def test_takes_arrays_of_any_type_by_their_bytes() -> None:
    frames = np.arange(60, dtype=np.float16).reshape(6, 10)
    for implementation in implementations():
        assert implementation(frames) == crc32c(frames.tobytes())


@needs_native
def test_strided_buffer_is_refused() -> None:
    with pytest.raises((BufferError, ValueError)):
        native.core.crc32c(np.arange(10)[::2])


@needs_native
def test_the_lock_is_released() -> None:
    """Other Python threads run while a large buffer is summed."""
    import threading

    ticks = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(1)
            time.sleep(0)

    message = np.zeros(200_000_000, dtype=np.uint8)
    thread = threading.Thread(target=tick)
    thread.start()
    before = len(ticks)
    native.core.crc32c_table(message)
    during = len(ticks) - before
    stop.set()
    thread.join()
    assert during > 1
