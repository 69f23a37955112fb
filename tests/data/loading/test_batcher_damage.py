"""The C++ batcher over damaged or changing shards: an error in its place that names the utterance."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from batcher_cases import assert_same, made_by_python, needs_native, plan_of

from ttsfast.data.loading.batcher import BatchFormat, NativeBatcher
from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError

pytestmark = needs_native


@pytest.fixture
def copied(store: Store, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store.path, tmp_path / "store"))


def only_shard(folder: Path) -> Path:
    (shard,) = folder.glob("mel-*")
    return shard


@pytest.mark.parametrize("workers", [0, 2])
def test_a_flipped_bit_names_the_utterance(copied: Path, workers: int) -> None:
    store = Store.open(copied)
    begin, _ = store.shards[0].extent("mel")
    victim = 7
    content = bytearray(only_shard(copied).read_bytes())
    content[begin + int(store.entries.offset[victim]) * store.contract.n_mels * 2 + 9] ^= 1
    only_shard(copied).write_bytes(content)
    store = Store.open(copied)
    batcher = NativeBatcher(store, BatchFormat(), workers, False)
    batcher.push(np.array([1, 2]))
    batcher.push(np.array([3, victim]))
    batcher.push(np.array([4]))
    assert batcher.take().ids == (store.entries.id[1], store.entries.id[2])
    with pytest.raises(
        InputError, match=rf"mel-.*: utterance '{store.entries.id[victim]}': .* checksum"
    ) as error:
        batcher.take()
    assert "\n" not in str(error.value)
    assert batcher.take().ids == (store.entries.id[4],)
    trusting = NativeBatcher(Store.open(copied, verify=False), BatchFormat(), workers, False)
    trusting.push(np.array([victim]))
    assert trusting.take().frames == store.frames[victim]


def test_a_foreign_symbol_is_refused_even_unchecked(copied: Path) -> None:
    store = Store.open(copied, verify=False)
    begin, _ = store.shards[0].extent("text")
    content = bytearray(only_shard(copied).read_bytes())
    at = begin + int(store.entries.text_offset[2]) * 4
    content[at : at + 4] = (10**6).to_bytes(4, "little")
    only_shard(copied).write_bytes(content)
    batcher = NativeBatcher(Store.open(copied, verify=False), BatchFormat(), 1, False)
    batcher.push(np.array([2]))
    with pytest.raises(InputError, match=rf"'{store.entries.id[2]}': symbol id 1000000 is not from 1 to"):
        batcher.take()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_shortened_while_open_is_an_error_in_its_place(copied: Path, workers: int) -> None:
    store = Store.open(copied)
    plan = plan_of(store)
    expected = made_by_python(Store.open(copied), plan.epoch(0), BatchFormat())
    shard = only_shard(copied)
    content = shard.read_bytes()
    with MelLoader(store, plan, num_workers=workers) as loader:
        assert_same(next(iter(loader)), expected[0])
        os.truncate(shard, 5000)
        # What was read ahead still comes.
        with pytest.raises(InputError, match=r"utterance 'u0\d\d': cut short to 5000 bytes") as error:
            exhaust(loader, 3)
        assert "\n" not in str(error.value)
        # Put right in place, the same loader goes on where it stood.
        with open(shard, "r+b") as handle:
            handle.write(content)
        state = loader.state_dict()
        expected = made_by_python(store, plan.epoch(state["epoch"]), BatchFormat())
        for batch, other in zip(loader, expected[state["position"] :], strict=True):
            assert_same(batch, other)


def exhaust(loader: MelLoader, epochs: int) -> None:
    for _ in range(epochs):
        for _ in loader:
            pass


def test_a_file_that_shrinks_and_grows_all_the_time_kills_nobody(copied: Path) -> None:
    shard = only_shard(copied)
    store = Store.open(copied)
    content = shard.read_bytes()
    expected = {b.ids: b for b in made_by_python(Store.open(copied), plan_of(store).epoch(0), BatchFormat())}
    stop = threading.Event()

    def disturb() -> None:
        with open(shard, "r+b") as handle:
            while not stop.is_set():
                handle.truncate(3000)
                handle.seek(0)
                handle.write(content)
                handle.flush()

    thread = threading.Thread(target=disturb)
    thread.start()
    failures = good = 0
    try:
        with MelLoader(store, plan_of(store), num_workers=2) as loader:
            for _ in range(200):
                loader.load_state_dict({"epoch": 0, "position": 0})
                try:
                    for batch in loader:
                        assert_same(batch, expected[batch.ids])
                        good += 1
                except InputError:
                    failures += 1
    finally:
        stop.set()
        thread.join()
    assert failures + good > 0
