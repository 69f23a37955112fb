"""Batches in the order of a plan, gathered on the device from a corpus that lies there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ttsfast.data.loading.batch import Batch
from ttsfast.data.loading.device_corpus import DeviceCorpus
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.loading.plan_loader import PlanLoader
from ttsfast.data.store.store import Store


class DeviceLoader(PlanLoader):
    """The same batches as :class:`~ttsfast.data.loading.loader.MelLoader` gives, bit for bit, at the same
    positions: a run may go on with either. There are no threads: a batch is one launch, done between steps.
    """

    def __init__(
        self,
        corpus: DeviceCorpus,
        plan: BatchPlan,
        *,
        tail_frames: int = 8,
        pad_to_multiple: int = 8,
        dtype: torch.dtype = torch.float32,
        targets: bool = False,
    ) -> None:
        """
        Args:
            corpus: every utterance of the plan.
            plan: which batches, in what order.
            tail_frames: see :func:`ttsfast.data.loading.batch.padded_length`.
            pad_to_multiple: the same.
            dtype: of ``Batch.mel``.
            targets: also ``frame_mask`` and ``stop_targets``, for losses that want them made.
        """
        super().__init__(plan)
        self.corpus = corpus
        self._options: dict[str, Any] = {
            "tail_frames": tail_frames,
            "pad_to_multiple": pad_to_multiple,
            "dtype": dtype,
            "targets": targets,
        }
        self._epoch = -1
        self._rows = self._ends = np.zeros(0, dtype=np.int64)
        self._order = torch.empty(0, dtype=torch.int64)

    @classmethod
    def _over(  # type: ignore[override]
        cls, store: Store, plan: BatchPlan, *, device: torch.device | str, **delivery: Any
    ) -> DeviceLoader:
        return cls(DeviceCorpus(store, plan.indices, device), plan, **delivery)

    def _next(self) -> Batch:
        started = time.perf_counter()
        epoch, position = self._cursor.place
        if epoch != self._epoch:
            self._begin(epoch)
        first = int(self._ends[position - 1]) if position else 0
        rows = self._rows[first : self._ends[position]]
        batch = self.corpus.gather(rows, self._order, first, **self._options)
        self._cursor.place = self._cursor.after(self._cursor.place)
        self.wait_seconds += time.perf_counter() - started
        return batch

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Seek. Raises InputError for a state that is not of this plan."""
        super().load_state_dict(state)
        # The same epoch may hold others now.
        self._epoch = -1

    def _begin(self, epoch: int) -> None:
        """Tell the device the order of an epoch, once, so that no batch has to."""
        batches = self._cursor.batches(epoch)
        self._rows = self.corpus.rows(np.concatenate(batches))
        self._ends = np.cumsum([len(batch) for batch in batches])
        order = torch.from_numpy(self._rows)
        if self.corpus.device.type == "cuda":
            order = order.pin_memory()  # else the host waits here for all steps before
        self._order = order.to(self.corpus.device, non_blocking=True)
        self._epoch = epoch
