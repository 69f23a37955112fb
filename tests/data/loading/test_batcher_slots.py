"""The memory of the C++ batcher's batches: kept as long as anything refers to it, and used again."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batcher_cases import DTYPES, assert_same, core_of, made_by_python, needs_native, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast.data.loading.batcher import BatchFormat, NativeBatcher, _bytes_of
from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.store.store import Store

pytestmark = needs_native

SMAPS = Path("/proc/self/smaps_rollup")


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
