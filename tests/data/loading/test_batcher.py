"""The C++ batcher: its batches are those of the Python one, in any format, and so are their targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batcher_cases import DTYPES, assert_same, made_by_python, needs_native, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast.data.loading.batcher import BatchFormat, NativeBatcher, open_batcher
from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.store.store import Store

pytestmark = needs_native


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
