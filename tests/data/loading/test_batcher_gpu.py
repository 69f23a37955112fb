"""The C++ batcher's batches on a CUDA device, and the page-locked memory they come from."""

from __future__ import annotations

import pytest
import torch
from batcher_cases import DTYPES, assert_same, made_by_python, needs_native, plan_of

from ttsfast.data.loading.batcher import BatchFormat
from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.store.store import Store

pytestmark = [
    needs_native,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


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
