"""The C++ batcher: leases, lent memory, errors that name the utterance, and what is refused."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import prepare_small, write_corpus

from ttsfast import native
from ttsfast.data.batch import Batch
from ttsfast.data.batcher import BatchFormat, NativeBatcher, PythonBatcher, _bytes_of, open_batcher
from ttsfast.data.loader import MelLoader
from ttsfast.data.sampler import BatchPlan
from ttsfast.data.store import Store
from ttsfast.errors import InputError

pytestmark = pytest.mark.skipif(native.core is None, reason=native.why_missing or "the extension is there")

SMAPS = Path("/proc/self/smaps_rollup")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    prepare_small(write_corpus(tmp_path_factory.mktemp("corpus"), 24), folder)
    return Store.open(folder)


@pytest.fixture
def copied(store: Store, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store.path, tmp_path / "store"))


def only_shard(folder: Path) -> Path:
    (shard,) = folder.glob("mel-*")
    return shard


def plan_of(store: Store, batch_size: int = 4) -> BatchPlan:
    return BatchPlan(store.frames, store.indices("train"), batch_size=batch_size, seed=3)


def exhaust(loader: MelLoader, epochs: int) -> None:
    for _ in range(epochs):
        for _ in loader:
            pass


def made_by_python(store: Store, batches: list[np.ndarray], batch_format: BatchFormat) -> list[Batch]:
    batcher = PythonBatcher(store, batch_format, 0, False)
    for batch in batches:
        batcher.push(batch)
    return [batcher.take() for _ in batches]


def assert_same(one: Batch, other: Batch) -> None:
    assert one is not other
    assert (one.ids, one.frames) == (other.ids, other.frames)
    assert one.tensors().keys() == other.tensors().keys()
    for name, tensor in one.tensors().items():
        twin = other.tensors()[name]
        assert (tensor.dtype, tensor.shape) == (twin.dtype, twin.shape), name
        assert torch.equal(tensor.view(torch.uint8), twin.view(torch.uint8)), name


@given(
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    targets=st.booleans(),
    tail=st.integers(0, 9),
    multiple=st.integers(1, 9),
    workers=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_any_batch_in_any_format_is_collate_s(
    store: Store, data: Any, dtype: torch.dtype, targets: bool, tail: int, multiple: int, workers: int
) -> None:
    rows = st.lists(st.integers(0, len(store) - 1), min_size=1, max_size=6)
    batches = [np.array(b, dtype=np.int64) for b in data.draw(st.lists(rows, min_size=1, max_size=6))]
    batch_format = BatchFormat(tail, multiple, dtype, targets)
    batcher = NativeBatcher(store, batch_format, workers, False)
    for batch in batches:
        batcher.push(batch)
    for expected in made_by_python(store, batches, batch_format):
        assert_same(batcher.take(), expected)
    batcher.close()


@pytest.mark.parametrize("multiple", [8, 7, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_written_past_the_caches_are_collate_s(
    store: Store, dtype: torch.dtype, multiple: int
) -> None:
    rng = np.random.default_rng(multiple)
    batches = [rng.integers(0, len(store), size) for size in (2500, 1999, 2200)]
    batch_format = BatchFormat(3, multiple, dtype, True)
    expected = made_by_python(store, batches, batch_format)
    assert all(batch.mel.nbytes > 1 << 20 for batch in expected)
    for workers in (0, 1, 2, 4):
        batcher = NativeBatcher(store, batch_format, workers, False)
        for batch in batches:
            batcher.push(batch)
        for batch in expected:
            assert_same(batcher.take(), batch)
        batcher.close()


def test_targets_are_the_loss_s(store: Store) -> None:
    truncated = int(np.flatnonzero(store.entries.truncated)[0])
    whole = int(np.flatnonzero(~store.entries.truncated)[0])
    with MelLoader(store, plan_of(store), targets=True) as loader:
        first = next(iter(loader))
    assert first.frame_mask is not None
    assert first.stop_targets is not None
    assert first.frame_mask.sum() == first.frames
    batcher = open_batcher(store, BatchFormat(targets=True), 0, False, "cpp")
    batcher.push(np.array([truncated, whole]))
    batch = batcher.take()
    assert batch.stop_targets is not None
    assert batch.stop_targets[0].sum() == 0
    last = int(batch.mel_lengths[1]) - 1
    assert batch.stop_targets[1, last - 1 : last + 2].tolist() == [0, 1, 1]


def test_all_batches_of_an_epoch_may_be_kept(store: Store) -> None:
    plan = plan_of(store, batch_size=2)
    expected = made_by_python(store, plan.epoch(0) + plan.epoch(1), BatchFormat())
    with MelLoader(store, plan, num_workers=2) as loader:
        kept = [batch for _ in range(2) for batch in loader]
        # Each has memory of its own, and stays what it was after the loader has gone.
        assert len({batch.mel.data_ptr() for batch in kept}) == len(kept)
        assert len(kept) > 3 * (loader._batcher.workers + 2)
    del loader
    gc.collect()
    for one, other in zip(kept, expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("keep", ["view", "numpy", "saved for backward"])
def test_anything_that_refers_to_a_batch_keeps_its_slot(store: Store, keep: str) -> None:
    weight = torch.ones((), requires_grad=True)
    with MelLoader(store, plan_of(store), num_workers=1) as loader:
        batch = next(iter(loader))
        mel, before = batch.mel, batch.mel.clone()
        held: Any = mel[1:, ::2, 3]
        if keep == "numpy":
            held = mel.numpy()
        elif keep == "saved for backward":
            held = (mel * weight).sum()
        del batch, mel
        gc.collect()
        for _ in range(3):
            for later in loader:
                later.mel.fill_(float("nan"))
        if keep == "view":
            assert torch.equal(held, before[1:, ::2, 3])
        elif keep == "numpy":
            assert np.array_equal(held, before.numpy())
        else:
            held.backward()
            assert weight.grad == before.sum()


@given(
    batch_size=st.integers(1, 30),
    world_size=st.integers(1, 3),
    budget=st.none() | st.integers(40, 400),
    dtype=st.sampled_from(DTYPES),
    targets=st.booleans(),
    multiple=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_no_batch_is_larger_than_what_slots_have(
    store: Store,
    batch_size: int,
    world_size: int,
    budget: int | None,
    dtype: torch.dtype,
    targets: bool,
    multiple: int,
) -> None:
    padding = {"tail_frames": 3, "pad_to_multiple": multiple}
    batch_format = BatchFormat(3, multiple, dtype, targets)
    names = ("float32", "bfloat16", "float16")
    core = core_of(
        store,
        threads=0,
        dtype=names[DTYPES.index(dtype)],
        tail_frames=3,
        frame_multiple=multiple,
        text_multiple=8,
        targets=targets,
    )
    for rank in range(world_size):
        plan = BatchPlan(
            store.frames,
            store.indices("train"),
            batch_size=batch_size,
            seed=5,
            frame_budget=budget and budget + int(store.frames.max()),
            rank=rank,
            world_size=world_size,
            **padding,
        )
        largest = (*plan.largest(), int(store.text_lengths[plan.indices].max()))
        for epoch in range(3):
            needed = max(core.bytes(batch) for batch in plan.epoch(epoch))
            assert needed <= _bytes_of(largest, batch_format, store.contract.n_mels)
    core.close()


@pytest.mark.skipif(not SMAPS.exists(), reason="no smaps_rollup to read memory from")
def test_slots_have_memory_for_the_largest_batch_from_the_beginning(store: Store) -> None:
    alone = np.array([int(np.argmin(store.frames))])
    sizes = []
    for largest in ((1, 1, 1), (64, 64 * 4_000, 8)):
        before = anonymous_bytes()
        batcher = NativeBatcher(store, BatchFormat(), 1, False, largest)
        for _ in range(6):
            batcher.push(alone)
        kept = [batcher.take() for _ in range(3)]
        sizes.append(anonymous_bytes() - before)
        del kept
        batcher.close()
    # Three slots of 64 rows of 4,000 frames of 12 floats.
    assert sizes[1] - sizes[0] > 0.95 * 3 * 64 * 4_000 * 12 * 4


def anonymous_bytes() -> int:
    lines = SMAPS.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))


def test_slots_are_used_again(store: Store) -> None:
    with MelLoader(store, plan_of(store, batch_size=2), num_workers=1) as loader:
        seen = [int(batch.mel.data_ptr()) for _ in range(6) for batch in loader]
    assert len(set(seen)) <= 1 + 2 + 1
    assert len(seen) > 40


def test_writing_into_a_batch_spoils_no_other(store: Store) -> None:
    plan = plan_of(store)
    expected = made_by_python(store, plan.epoch(0) + plan.epoch(1), BatchFormat())
    with MelLoader(store, plan, num_workers=2) as loader:
        stream = (batch for _ in range(2) for batch in loader)
        for batch, other in zip(stream, expected, strict=True):
            assert_same(batch, other)
            for tensor in batch.tensors().values():
                tensor.zero_()


def test_a_batch_may_die_in_another_thread(store: Store) -> None:
    plan = plan_of(store)
    expected = made_by_python(store, plan.epoch(0) + plan.epoch(1), BatchFormat())
    waiting: list[threading.Timer] = []
    with MelLoader(store, plan, num_workers=2) as loader:
        stream = (batch for _ in range(2) for batch in loader)
        for batch, other in zip(stream, expected, strict=True):
            assert_same(batch, other)
            waiting.append(threading.Timer(0.002, lambda kept=batch: kept.mel.sum()))
            waiting[-1].start()
    for timer in waiting:
        timer.join()


def core_of(store: Store, **changes: Any) -> Any:
    entries = store.entries
    names = ("shard", "offset", "frames", "text_offset", "symbols", "speaker", "crc32c", "truncated")
    columns = {name: np.asarray(getattr(entries, name), dtype=np.int64) for name in names}
    columns |= changes.pop("columns", {})
    arguments = {
        "shards": [(s.source(), *s.extent("mel"), *s.extent("text")) for s in store.shards],
        "columns": columns,
        "bins": store.contract.n_mels,
        "alphabet": len(store.symbols),
        "verify": True,
        "dtype": "float32",
        "silence": store.silence.tolist(),
        "tail_frames": 8,
        "frame_multiple": 8,
        "text_multiple": 1,
        "targets": False,
        "threads": 2,
        "slots": 2,
    }
    assert native.core is not None
    return native.core.Batcher(**(arguments | changes))


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
    deadline = time.monotonic() + 1.0
    try:
        with MelLoader(store, plan_of(store), num_workers=2) as loader:
            while time.monotonic() < deadline:
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
    core = core_of(store, threads=1, tail_frames=2**15)
    core.push(np.zeros(64, np.int64))
    asker = threading.Thread(target=core.take)
    asker.start()
    while asker.is_alive():
        # As soon as the other is in it; before and after that there is nothing to refuse.
        with contextlib.suppress(RuntimeError):
            core.push(np.array([0]))
            time.sleep(0.001)
            continue
        break
    else:
        pytest.fail("the second thread was never refused")
    asker.join()
    core.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["python", "cpp"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_on_the_device_are_the_host_s(store: Store, backend: str, dtype: torch.dtype) -> None:
    plan = plan_of(store, batch_size=2)
    batches = [batch for epoch in range(3) for batch in plan.epoch(epoch)]
    expected = made_by_python(store, batches, BatchFormat(dtype=dtype, targets=True))
    with MelLoader(
        store, plan, num_workers=2, device="cuda", dtype=dtype, targets=True, backend=backend
    ) as loader:
        kept = []
        for _ in range(3):
            for batch in loader:
                # Work that is queued long behind, so that memory given back too early would show.
                torch.cuda._sleep(2_000_000)
                kept.append(batch)
        for batch, other in zip(kept, expected, strict=True):
            assert batch.mel.is_cuda
            assert_same(batch.to("cpu"), other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_copy_under_way_keeps_pinned_memory(store: Store) -> None:
    plan = plan_of(store, batch_size=2)
    batches = [batch for epoch in range(4) for batch in plan.epoch(epoch)]
    expected = made_by_python(store, batches, BatchFormat())
    copies = []
    with MelLoader(store, plan, num_workers=2, pin_memory=True) as loader:
        for _ in range(4):
            for batch in loader:
                assert batch.mel.is_pinned()
                torch.cuda._sleep(2_000_000)
                copies.append(batch.to("cuda", non_blocking=True))
                del batch
    torch.cuda.synchronize()
    for copy, other in zip(copies, expected, strict=True):
        assert_same(copy.to("cpu"), other)
