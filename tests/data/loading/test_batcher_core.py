"""The extension's batcher itself: lent memory, what is refused before any is touched, and who may ask."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from batcher_cases import core_of, made_by_python, needs_native, plan_of

from ttsfast import native
from ttsfast.data.loading.batcher import BatchFormat
from ttsfast.data.store.store import Store

pytestmark = needs_native


def aligned(size: int) -> np.ndarray:
    memory = np.empty(size + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:size]


def test_lent_memory_is_filled_and_given_back(store: Store) -> None:
    core = core_of(store)
    batches = plan_of(store).epoch(0)
    lent = [aligned(core.bytes(batch)) for batch in batches]
    for batch, memory in zip(batches, lent, strict=True):
        memory.fill(0xA5)
        core.push(batch, memory, "owner")
    expected = made_by_python(store, batches, BatchFormat())
    for memory, other in zip(lent, expected, strict=True):
        failure, layout, slot, owner = core.take()
        assert (failure, slot, owner) == (None, None, "owner")
        mel = other.mel.numpy().tobytes()
        assert memory[layout["mel"] :][: len(mel)].tobytes() == mel
    core.push(batches[0], lent[0])
    core.clear()
    core.close()


def test_what_cannot_be_is_refused_before_memory_is_touched(store: Store) -> None:
    n = len(store)

    def column(name: str, value: int) -> dict[str, np.ndarray]:
        changed = np.asarray(getattr(store.entries, name), dtype=np.int64).copy()
        changed[5] = value
        return {name: changed}

    for name, values in {
        "shard": (-1, 1, 2**40),
        "offset": (-1, int(store.frames.sum()), 2**62, -(2**63)),
        "frames": (-1, int(store.frames.sum()) + 1, 2**32, 2**62, 2**63 - 1),
        "text_offset": (-1, 2**31, 2**63 - 1),
        "symbols": (-1, 2**31, 2**63 - 1),
        "crc32c": (-1, 2**32),
    }.items():
        for value in values:
            with pytest.raises(IndexError) as error:
                core_of(store, columns=column(name, value))
            assert error.value.args[0] == 5, name
    content = store.shards[0].content()
    _, *extents = (None, *store.shards[0].extent("mel"), *store.shards[0].extent("text"))
    for changes in (
        {"columns": {"frames": np.zeros(n - 1, np.int64)}},
        {"columns": {"frames": np.zeros(n, np.int32)}},
        {"columns": {"frames": np.zeros((n, 1), np.int64)}},
        {"bins": 0},
        {"bins": 2**60},
        {"alphabet": 0},
        {"dtype": "int8"},
        {"silence": [0.0]},
        {"frame_multiple": 0},
        {"text_multiple": 2**40},
        {"tail_frames": 2**63},
        {"shards": [(content[:-1], *extents)]},
        {"shards": [(content, extents[0], 2**62, *extents[2:])]},
        {"shards": [(content, 2**63, *extents[1:])]},
        {"shards": [(memoryview(content)[::2], *extents)]},
    ):
        with pytest.raises((ValueError, IndexError)):
            core_of(store, **changes)
    with pytest.raises(RuntimeError):
        core_of(store, shards=[(10**6, *extents)])
    core = core_of(store)
    for bad in ([], [n], [-1], [2**63 - 1]):
        with pytest.raises(ValueError):
            core.push(np.array(bad, dtype=np.int64))
    good = np.array([0, 1])
    size = core.bytes(good)
    for memory in (aligned(size - 1), aligned(size + 1)[1:], np.empty((size, 2), np.uint8), np.empty(size)):
        with pytest.raises(ValueError):
            core.push(good, memory)
    with pytest.raises(RuntimeError, match="nothing was pushed"):
        core.take()
    core.close()


def test_an_unreadable_descriptor_is_an_error(store: Store, tmp_path: Path) -> None:
    write_only = os.open(tmp_path / "shard", os.O_WRONLY | os.O_CREAT)
    extents = (*store.shards[0].extent("mel"), *store.shards[0].extent("text"))
    core = core_of(store, shards=[(write_only, *extents)])
    os.close(write_only)
    core.push(np.array([3]))
    failure, *_ = core.take()
    assert failure == ("unreadable", 3, os.strerror(9))
    core.close()


def test_a_batch_beyond_all_memory_is_an_error_of_its_own(store: Store) -> None:
    core = core_of(store, tail_frames=2**20, frame_multiple=2**20)
    with pytest.raises(ValueError, match="2\\^40"):
        core.push(np.zeros(2**18, np.int64))
    core.close()


def test_closing_wakes_whoever_asks(store: Store) -> None:
    assert native.core is not None
    core = core_of(store, threads=1)
    closer = threading.Timer(0.05, core.close)
    closer.start()

    def ask() -> None:
        while True:
            core.push(np.array([0]))
            core.take()

    with pytest.raises(native.core.BatcherClosed):
        ask()
    closer.join()
    core.close()


def test_two_threads_may_not_ask_at_once(store: Store) -> None:
    refused = False
    while not refused:
        core = core_of(store, threads=1, tail_frames=2**15)
        core.push(np.zeros(64, np.int64))
        asker = threading.Thread(target=core.take)
        asker.start()
        # While the other is in it: before and after that there is nothing to refuse, and a busy machine may
        # let that moment pass.
        while asker.is_alive() and not refused:
            try:
                core.push(np.array([0]))
                time.sleep(0.001)
            except RuntimeError:
                refused = True
        asker.join()
        core.close()
