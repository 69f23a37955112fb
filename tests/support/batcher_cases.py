"""What the tests of the batchers and loaders share: plans, batches made in plain Python, comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ttsfast import native
from ttsfast.data.loading.batch import Batch
from ttsfast.data.loading.batcher import BatchFormat, PythonBatcher
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.store.store import Store

needs_native = pytest.mark.skipif(native.core is None, reason=native.why_missing or "the extension is there")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def plan_of(store: Store, batch_size: int = 4) -> BatchPlan:
    return BatchPlan(store.frames, store.indices("train"), batch_size=batch_size, seed=3)


def made_by_python(store: Store, batches: list[np.ndarray], batch_format: BatchFormat) -> list[Batch]:
    batcher = PythonBatcher(store, batch_format, 0, False)
    for batch in batches:
        batcher.push(batch)
    return [batcher.take() for _ in batches]


def assert_same(one: Batch, other: Batch) -> None:
    """Bit for bit, of two batches that are not one."""
    assert one is not other
    assert (one.ids, one.frames) == (other.ids, other.frames)
    assert one.tensors().keys() == other.tensors().keys()
    for name, tensor in one.tensors().items():
        twin = other.tensors()[name]
        assert (tensor.dtype, tensor.shape) == (twin.dtype, twin.shape), name
        assert torch.equal(tensor.contiguous().view(torch.uint8), twin.contiguous().view(torch.uint8)), name


def assert_all_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert_same(one, other)


def core_of(store: Store, **changes: Any) -> Any:
    """The extension's own batcher over a store, with some of its arguments or ``columns`` changed."""
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
