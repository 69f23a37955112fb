"""Batches in the order of a plan, gathered on the device from a corpus that lies there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from ttsfast.data.corpus.listings import Exclusion
from ttsfast.data.loading.batch import Batch
from ttsfast.data.loading.device_corpus import DeviceCorpus
from ttsfast.data.loading.loader import plan_of_split
from ttsfast.data.loading.plan import BatchPlan, Cursor
from ttsfast.data.store.store import Store


class DeviceLoader:
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
        self.corpus, self.plan = corpus, plan
        self.exclusions: list[Exclusion] = []
        """What :meth:`open` left out for its length."""
        self.wait_seconds = 0.0
        """How long the consumer has waited for launches so far."""
        self._options: dict[str, Any] = {
            "tail_frames": tail_frames,
            "pad_to_multiple": pad_to_multiple,
            "dtype": dtype,
            "targets": targets,
        }
        self._cursor = Cursor(plan)
        self._epoch = -1
        self._rows = self._ends = np.zeros(0, dtype=np.int64)
        self._order = torch.empty(0, dtype=torch.int64)

    @classmethod
    def open(
        cls,
        store: Store | Path | str,
        split: str = "train",
        *,
        device: torch.device | str,
        batch_size: int,
        seed: int = 0,
        frame_budget: int | None = None,
        speaker_balance: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
        max_mel_frames: int | None = None,
        max_text_length: int | None = None,
        tail_frames: int = 8,
        pad_to_multiple: int = 8,
        dtype: torch.dtype = torch.float32,
        targets: bool = False,
    ) -> DeviceLoader:
        """A loader over one split; what the length limits leave out is in ``exclusions``.

        Raises InputError where the corpus does not fit on the device.
        """
        opened = store if isinstance(store, Store) else Store.open(store)
        padding: dict[str, Any] = {"tail_frames": tail_frames, "pad_to_multiple": pad_to_multiple}
        plan, exclusions = plan_of_split(
            opened,
            split,
            max_mel_frames,
            max_text_length,
            batch_size=batch_size,
            seed=seed,
            frame_budget=frame_budget,
            speaker_balance=speaker_balance,
            rank=rank,
            world_size=world_size,
            **padding,
        )
        loader = cls(
            DeviceCorpus(opened, plan.indices, device), plan, dtype=dtype, targets=targets, **padding
        )
        loader.exclusions = exclusions
        return loader

    def __len__(self) -> int:
        """Batches in the current epoch."""
        return len(self._cursor.batches(self._cursor.place[0]))

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the current epoch that have not been delivered yet."""
        epoch = self._cursor.place[0]
        while self._cursor.place[0] == epoch:
            yield self._next()

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

    def state_dict(self) -> dict[str, int]:
        """Where the next batch lies: {"epoch", "position"}."""
        return self._cursor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Seek. Raises InputError for a state that is not of this plan."""
        self._cursor.load_state_dict(state)

    def close(self) -> None:
        """Nothing to stop; the device's memory is freed with the loader."""

    def __enter__(self) -> DeviceLoader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
