"""Batches in the order of a plan, made ahead by threads."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from ttsfast.data.loading.batch import Batch
from ttsfast.data.loading.batcher import BatchFormat, open_batcher
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.loading.plan_loader import PlanLoader
from ttsfast.data.store.store import Store
from ttsfast.devices import available_cores


class MelLoader(PlanLoader):
    """Threads make the next batches of the plan, a bounded number ahead and on into the next epoch, while the
    consumer works; the bytes of a batch do not depend on how many there are. The memory of a batch is used
    again only when nothing refers to any of its tensors: keep as many batches as you like, each costs its
    memory. On CUDA the next batch is copied while this one is computed.

    For one thread at a time; :meth:`close` may come from any, at any moment. In a forked process the loader
    raises RuntimeError, since its threads stay behind; there, open another. Use as a context manager, or call
    :meth:`close`; a loader that is merely dropped leaves nothing behind either.
    """

    def __init__(
        self,
        store: Store,
        plan: BatchPlan,
        *,
        num_workers: int = 2,
        pin_memory: bool = False,
        device: torch.device | str | None = None,
        tail_frames: int = 8,
        pad_to_multiple: int = 8,
        dtype: torch.dtype = torch.float32,
        targets: bool = False,
        backend: str = "auto",
    ) -> None:
        """
        Args:
            store: where utterances come from.
            plan: which batches, in what order.
            num_workers: threads, capped at the cores this process may use; 0 works in the caller's thread.
            pin_memory: page-locked host memory; without CUDA it has no effect.
            device: where batches are delivered; on CUDA they are copied ahead on a stream of their own.
            tail_frames: see :func:`ttsfast.data.loading.batch.padded_length`.
            pad_to_multiple: the same.
            dtype: of ``Batch.mel``: float32, bfloat16 or float16.
            targets: also ``frame_mask`` and ``stop_targets``, for losses that want them made.
            backend: "cpp", "python" (the reference, with the same bytes), or "auto": C++ where the extension
                is there and the store holds its features.

        Raises:
            InputError: backend "cpp" cannot be had.
        """
        if num_workers < 0:
            raise ValueError(f"num_workers is {num_workers}, must be 0 or more")
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype is {dtype}, must be torch.float32, torch.bfloat16 or torch.float16")
        super().__init__(plan)
        self.store = store
        self._device = None if device is None else torch.device(device)
        on_cuda = self._device is not None and self._device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device) if on_cuda else None
        self._batcher = open_batcher(
            store,
            BatchFormat(tail_frames, pad_to_multiple, dtype, targets),
            min(num_workers, available_cores()),
            (pin_memory and torch.cuda.is_available()) or self._stream is not None,
            backend,
            (*plan.largest(), int(store.text_lengths[plan.indices].max())),
        )
        # The next batch to hand to the batcher, and those that it has and that were not delivered.
        self._submitted = self._cursor.place
        self._pending = 0
        # On CUDA at most one, whose copy is under way; or why there is none.
        self._staged: deque[_Staged | Exception] = deque()
        # False while a batch is on its way: an exception, KeyboardInterrupt for one, may come anywhere in it.
        self._settled = True
        self._process = os.getpid()

    @classmethod
    def _over(cls, store: Store, plan: BatchPlan, **delivery: Any) -> MelLoader:
        return cls(store, plan, **delivery)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Seek. Raises InputError for a state that is not of this plan."""
        self._refuse_after_a_fork()
        self._settled = False
        super().load_state_dict(state)

    def close(self) -> None:
        """Stop the threads; a batch being made is finished first. The loader cannot be used afterwards; what
        it delivered can.
        """
        self._batcher.close()

    def _next(self) -> Batch:
        self._refuse_after_a_fork()
        started = time.perf_counter()
        if not self._settled:
            self._start_over()
        self._settled = False
        self._push()
        batch = self._take() if self._stream is None else self._take_copied(self._stream)
        following = self._cursor.after(self._cursor.place)
        self.wait_seconds += time.perf_counter() - started
        self._cursor.place = following
        self._settled = True
        return batch

    def _take(self) -> Batch:
        batch = self._batcher.take()
        self._pending -= 1
        self._push()
        return batch if self._device is None else batch.to(self._device)

    def _take_copied(self, stream: torch.cuda.Stream) -> Batch:
        """The batch whose copy began a step ago; then begin the copy of the one after it."""
        if not self._staged:
            self._stage(stream)
        staged = self._staged.popleft()
        if isinstance(staged, Exception):
            raise staged
        self._push()
        if self._batcher.ready():
            self._stage(stream)
        return staged.receive()

    def _stage(self, stream: torch.cuda.Stream) -> None:
        self._pending -= 1
        try:
            self._staged.append(_Staged(self._batcher.take(), stream))
        except Exception as error:
            # It belongs to the next batch, and is raised in its place.
            self._staged.append(error)

    def _push(self) -> None:
        while self._pending < self._batcher.ahead:
            epoch, position = self._submitted
            self._batcher.push(self._cursor.batches(epoch)[position])
            self._pending += 1
            self._submitted = self._cursor.after(self._submitted)

    def _start_over(self) -> None:
        """From the cursor's place: what is under way may not be what follows it."""
        self._batcher.clear()
        self._staged.clear()
        self._pending = 0
        self._submitted = self._cursor.place

    def _refuse_after_a_fork(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("a MelLoader's threads do not survive a fork: open it in the new process")


class _Staged:
    """A batch on its way to a CUDA device."""

    def __init__(self, host: Batch, stream: torch.cuda.Stream) -> None:
        with torch.cuda.stream(stream):
            # The host tensors may go at once: torch keeps their page-locked memory until the copies end.
            self._batch = host.to(stream.device, non_blocking=True)
            self._copied = stream.record_event()

    def receive(self) -> Batch:
        """The batch, for work on the current stream."""
        current = torch.cuda.current_stream(self._batch.mel.device)
        current.wait_event(self._copied)
        # The memory is the copying stream's: it must not be given out again while this one reads it.
        for tensor in self._batch.tensors().values():
            tensor.record_stream(current)
        return self._batch
