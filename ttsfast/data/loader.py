"""Batches in the order of a plan, gathered ahead by threads."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from ttsfast.data.batch import Batch, Utterance, collate
from ttsfast.data.corpora import Exclusion
from ttsfast.data.engines import available_cores
from ttsfast.data.sampler import BatchPlan
from ttsfast.data.store import Store
from ttsfast.errors import InputError


def select(
    store: Store, split: str, max_mel_frames: int | None = None, max_text_length: int | None = None
) -> tuple[np.ndarray, list[Exclusion]]:
    """The utterances of a split within the limits, ascending (m,) int64, and the rest, each with its reason.

    Raises InputError when no utterance is left, or when the split has none to begin with.
    """
    indices = store.indices(split)
    if not len(indices):
        raise InputError(
            f"{store.path}: its {split} split has no utterance; prepare it again from more distinct texts, "
            "with another --validation-fraction, or with other ids in the corpus's validation.txt"
        )
    keep = np.ones(len(indices), dtype=bool)
    exclusions = []
    for name, limit, lengths, unit in (
        ("max_mel_frames", max_mel_frames, store.frames[indices], "frames"),
        ("max_text_length", max_text_length, store.text_lengths[indices], "symbols"),
    ):
        if limit is None:
            continue
        for place in np.flatnonzero(keep & (lengths > limit)):
            detail = f"{lengths[place]} {unit}, {name} is {limit}"
            exclusions.append(Exclusion(id=store.entries.id[indices[place]], reason=name, detail=detail))
        keep &= lengths <= limit
    if not keep.any():
        raise InputError(
            f"{store.path}: no {split} utterance of {len(indices)} is left within max_mel_frames "
            f"{max_mel_frames} and max_text_length {max_text_length}; raise the limits, or prepare more data"
        )
    return indices[keep], exclusions


class MelLoader:
    """An endless stream of batches with a position; iterating gives the rest of the current epoch.

    Threads read and collate the next batches of the plan, a bounded number ahead and on into the next epoch,
    while the consumer works; the bytes of a batch do not depend on how many there are. Use as a context
    manager, or call :meth:`close`; a loader that is merely dropped leaves nothing behind either.
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
    ) -> None:
        """
        Args:
            store: where utterances come from.
            plan: which batches, in what order.
            num_workers: threads, capped at the cores this process may use; 0 works in the caller's thread.
            pin_memory: page-locked host memory; without CUDA it has no effect.
            device: where batches are delivered; on CUDA they are copied ahead on a stream of their own.
            tail_frames: see :func:`ttsfast.data.batch.padded_length`.
            pad_to_multiple: the same.
        """
        if num_workers < 0:
            raise ValueError(f"num_workers is {num_workers}, must be 0 or more")
        self.store, self.plan = store, plan
        self.exclusions: list[Exclusion] = []
        """What :meth:`open` left out for its length."""
        self.wait_seconds = 0.0
        """How long the consumer has waited for batches so far."""
        self._padding: dict[str, Any] = {"tail_frames": tail_frames, "pad_to_multiple": pad_to_multiple}
        self._device = None if device is None else torch.device(device)
        on_cuda = self._device is not None and self._device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device) if on_cuda else None
        self._pin = (pin_memory and torch.cuda.is_available()) or self._stream is not None
        workers = min(num_workers, available_cores())
        self._threads = ThreadPoolExecutor(workers, "ttsfast-batcher") if workers else None
        self._ahead = workers + 1
        self._pending: deque[Future[tuple[Batch, torch.cuda.Event | None]]] = deque()
        self._epochs: dict[int, list[np.ndarray]] = {}
        # The next batch to deliver, and the next to hand to a thread.
        self._place = self._submitted = (0, 0)
        self._process = os.getpid()

    @classmethod
    def open(
        cls,
        store: Store | Path | str,
        split: str = "train",
        *,
        batch_size: int,
        seed: int = 0,
        frame_budget: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        max_mel_frames: int | None = None,
        max_text_length: int | None = None,
        num_workers: int = 2,
        pin_memory: bool = False,
        device: torch.device | str | None = None,
        tail_frames: int = 8,
        pad_to_multiple: int = 8,
    ) -> MelLoader:
        """A loader over one split; what the length limits leave out is in ``exclusions``."""
        opened = store if isinstance(store, Store) else Store.open(store)
        indices, exclusions = select(opened, split, max_mel_frames, max_text_length)
        plan = BatchPlan(
            opened.frames,
            indices,
            batch_size=batch_size,
            seed=seed,
            frame_budget=frame_budget,
            rank=rank,
            world_size=world_size,
            tail_frames=tail_frames,
            pad_to_multiple=pad_to_multiple,
        )
        loader = cls(
            opened,
            plan,
            num_workers=num_workers,
            pin_memory=pin_memory,
            device=device,
            tail_frames=tail_frames,
            pad_to_multiple=pad_to_multiple,
        )
        loader.exclusions = exclusions
        return loader

    def __len__(self) -> int:
        """Batches in the current epoch."""
        return len(self._batches(self._place[0]))

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the current epoch that have not been delivered yet.

        Raises InputError, naming the utterance, where one cannot be read; the position stays at its batch.
        """
        epoch = self._place[0]
        while self._place[0] == epoch:
            yield self._next()

    def state_dict(self) -> dict[str, int]:
        """Where the next batch lies: {"epoch", "position"}."""
        return {"epoch": self._place[0], "position": self._place[1]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Seek. Raises InputError for a state that is not of this plan."""
        place = (state.get("epoch"), state.get("position"))
        if set(state) != {"epoch", "position"} or any(type(n) is not int or n < 0 for n in place):
            raise InputError(f"loader state {dict(state)!r}: expected whole numbers epoch and position")
        epoch, position = int(state["epoch"]), int(state["position"])
        count = len(self._batches(epoch))
        if position > count:
            raise InputError(
                f"loader state: batch {position} of epoch {epoch}, which has {count}; resume with the same "
                "store, split, seed and batch size"
            )
        self._drop_pending()
        self._place = self._submitted = (epoch, position) if position < count else (epoch + 1, 0)

    def close(self) -> None:
        """Stop the threads; a batch being made is finished first. The loader cannot be used afterwards."""
        self._drop_pending()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> MelLoader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _next(self) -> Batch:
        if os.getpid() != self._process:
            raise RuntimeError("a MelLoader's threads do not survive a fork: open it in the new process")
        started = time.perf_counter()
        try:
            if self._threads is None:
                made = self._make(self._indices(self._place))
            else:
                self._submit(self._threads)
                made = self._pending.popleft().result()
        except BaseException:
            # What is under way no longer follows the position, which stays where it was.
            self._drop_pending()
            self._submitted = self._place
            raise
        self._place = self._after(*self._place)
        if self._threads is not None:
            self._submit(self._threads)
        batch = self._receive(*made)
        self.wait_seconds += time.perf_counter() - started
        return batch

    def _make(self, indices: np.ndarray) -> tuple[Batch, torch.cuda.Event | None]:
        """Runs in the threads. On CUDA the event marks the end of the copy."""
        utterances = [self._read(int(index)) for index in indices]
        batch = collate(utterances, pad_value=self.store.silence, **self._padding)
        if self._pin:
            batch = batch.pin_memory()
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                batch = batch.to(self._stream.device, non_blocking=True)
                return batch, self._stream.record_event()
        return (batch if self._device is None else batch.to(self._device)), None

    def _read(self, index: int) -> Utterance:
        try:
            return self.store[index]
        except InputError:
            raise
        except Exception as error:
            raise RuntimeError(f"utterance {self.store.entries.id[index]!r}: {error}") from error

    def _receive(self, batch: Batch, copied: torch.cuda.Event | None) -> Batch:
        if copied is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(copied)
            # The memory is the copying stream's: it must not be given out again while this one reads it.
            for tensor in batch.tensors().values():
                tensor.record_stream(current)
        return batch

    def _submit(self, threads: ThreadPoolExecutor) -> None:
        while len(self._pending) < self._ahead:
            self._pending.append(threads.submit(self._make, self._indices(self._submitted)))
            self._submitted = self._after(*self._submitted)

    def _drop_pending(self) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()

    def _indices(self, place: tuple[int, int]) -> np.ndarray:
        return self._batches(place[0])[place[1]]

    def _after(self, epoch: int, position: int) -> tuple[int, int]:
        return (epoch, position + 1) if position + 1 < len(self._batches(epoch)) else (epoch + 1, 0)

    def _batches(self, epoch: int) -> list[np.ndarray]:
        if epoch not in self._epochs:
            # The epoch being delivered, and the next, which the threads are already in.
            self._epochs = {e: batches for e, batches in self._epochs.items() if e == epoch - 1}
            self._epochs[epoch] = self.plan.epoch(epoch)
        return self._epochs[epoch]
