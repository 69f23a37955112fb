"""Makers of batches: the C++ threads, and the plain Python that says what their bytes must be.

Both are fed the batches of a plan in order and give them back in order. ``NativeBatcher`` fills slots, memory
that is used again: a slot is leased to the batch that it holds until the last tensor over it has gone, views,
numpy arrays and an autograd graph's saved tensors among them. The slots bound how far the threads work ahead;
a consumer that keeps its batches gets further memory for each, so it waits for nothing but its own batches.
Memory beyond the slots goes back to the system with its batch.

For CUDA the memory is torch's own page-locked memory instead, which torch does not give out again before the
copies from it have ended.
"""

from __future__ import annotations

import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ttsfast import native
from ttsfast.data.loading.batch import TEXT_MULTIPLE, Batch, collate, pad_track, padded_length
from ttsfast.data.store.shard import REMEDY
from ttsfast.data.store.store import Store
from ttsfast.data.store.utterance import Utterance
from ttsfast.data.store.utterance_table import UtteranceTable
from ttsfast.errors import InputError


@dataclass(frozen=True)
class BatchFormat:
    """How utterances become a batch; the arguments of :func:`ttsfast.data.loading.batch.collate`."""

    tail_frames: int = 8
    pad_to_multiple: int = 8
    dtype: torch.dtype = torch.float32
    targets: bool = False


class Batcher(Protocol):
    """What a loader feeds and empties, from one thread at a time."""

    ahead: int
    """How many batches to push before the first is taken."""
    workers: int

    def push(self, indices: np.ndarray) -> None:
        """Queue a batch of these utterances of the store, (B,) int64."""

    def take(self) -> Batch:
        """The next batch in the order of :meth:`push`, in host memory; waits for it.

        Raises InputError, naming the utterance, where one cannot be read; the batch then counts as taken.
        """

    def ready(self) -> bool:
        """Whether :meth:`take` would return, or raise, at once."""

    def clear(self) -> None:
        """Forget what was pushed and not taken."""

    def close(self) -> None:
        """Stop the threads; a batch being made is finished first. Harmless a second time."""


def open_batcher(
    store: Store,
    batch_format: BatchFormat,
    workers: int,
    pin: bool,
    backend: str,
    largest: tuple[int, int, int] = (0, 0, 0),
) -> Batcher:
    """``backend`` "cpp", "python", or "auto": C++ where it is built and the store holds its features.
    ``largest`` as in :class:`NativeBatcher`.

    Raises InputError where "cpp" cannot be had.
    """
    reason = _why_not_native(store)
    if backend == "python" or (backend == "auto" and reason):
        return PythonBatcher(store, batch_format, workers, pin)
    if backend not in ("auto", "cpp"):
        raise ValueError(f"backend is {backend!r}, must be 'auto', 'cpp' or 'python'")
    if reason:
        raise InputError(f"backend 'cpp': {reason}; use backend 'auto'")
    return NativeBatcher(store, batch_format, workers, pin, largest)


def _why_not_native(store: Store) -> str:
    if native.core is None:
        return native.why_missing
    if type(store) is not Store:
        return f"a {type(store).__name__} makes its utterances in Python"
    if store.recordings is not None:
        return "its features are computed at every read, in Python"
    if sys.byteorder != "little":
        return "stores are little-endian, this processor is not"
    return ""


class PythonBatcher:
    """Reads through ``store[i]`` and :func:`collate`, in Python threads or in the caller's."""

    def __init__(self, store: Store, batch_format: BatchFormat, workers: int, pin: bool) -> None:
        self._store, self._format, self._pin = store, batch_format, pin
        self.workers = workers
        self.ahead = workers + 1
        self._threads = ThreadPoolExecutor(workers, "ttsfast-batcher") if workers else None
        self._queue: deque[np.ndarray | Future[Batch]] = deque()
        self._closed = False

    def push(self, indices: np.ndarray) -> None:
        if self._closed:
            raise RuntimeError("the batcher is closed")
        self._queue.append(indices if self._threads is None else self._threads.submit(self._make, indices))

    def take(self) -> Batch:
        if self._closed:
            raise RuntimeError("the batcher is closed")
        first = self._queue.popleft()
        return first.result() if isinstance(first, Future) else self._make(first)

    def ready(self) -> bool:
        return bool(self._queue) and isinstance(self._queue[0], Future) and self._queue[0].done()

    def clear(self) -> None:
        for waiting in self._queue:
            if isinstance(waiting, Future):
                waiting.cancel()
        self._queue.clear()

    def close(self) -> None:
        self._closed = True
        self.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def _make(self, indices: np.ndarray) -> Batch:
        batch = collate(
            [self._read(int(index)) for index in indices],
            pad_value=self._store.silence,
            tail_frames=self._format.tail_frames,
            pad_to_multiple=self._format.pad_to_multiple,
            dtype=self._format.dtype,
            targets=self._format.targets,
        )
        return batch.pin_memory() if self._pin else batch

    def _read(self, index: int) -> Utterance:
        try:
            return self._store[index]
        except InputError:
            raise
        except Exception as error:
            raise RuntimeError(f"utterance {self._store.entries.id[index]!r}: {error}") from error


class NativeBatcher:
    """The threads of ``csrc/batcher/batcher.h``. They read as the store does, through its open files or from
    its memory, never through a map: a file that is shortened meanwhile is an error, not the process's end.

    ``largest`` are utterances, padded frames of all together and symbols of one text that batches do not
    exceed. Slots have memory for them from the beginning, where they would otherwise grow one by one, for
    epochs, as each meets a large batch. It is a hint: a larger batch gets what it needs.
    """

    def __init__(
        self,
        store: Store,
        batch_format: BatchFormat,
        workers: int,
        pin: bool,
        largest: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        assert native.core is not None
        self._store, self._format, self._pin = store, batch_format, pin
        # Pushed beyond what the slots let begin are batches that the system is asked to read ahead.
        self.ahead = workers + 4 if workers else 1
        try:
            self._core = native.core.Batcher(
                shards=[
                    (shard.source(), *shard.extent("mel"), *shard.extent("text")) for shard in store.shards
                ],
                columns=_columns(store.entries),
                bins=store.contract.n_mels,
                alphabet=len(store.symbols),
                verify=store.verify,
                dtype=str(batch_format.dtype).removeprefix("torch."),
                silence=store.silence.tolist(),
                tail_frames=batch_format.tail_frames,
                frame_multiple=batch_format.pad_to_multiple,
                text_multiple=TEXT_MULTIPLE,
                targets=batch_format.targets,
                threads=workers,
                # The consumer's current batch, the one before it, which it still holds while it asks, and
                # one for each thread.
                slots=workers + 2,
                usual_bytes=_bytes_of(largest, batch_format, store.contract.n_mels),
            )
        except IndexError as error:
            index, why = error.args
            raise InputError(
                f"{store.path}: utterance {store.entries.id[index]!r}: {why}; {REMEDY}"
            ) from None
        self.workers = int(self._core.threads)
        self._indices: deque[np.ndarray] = deque()

    def push(self, indices: np.ndarray) -> None:
        if self._pin:
            memory = torch.empty(self._core.bytes(indices), dtype=torch.uint8, pin_memory=True)
            self._core.push(indices, memory.numpy(), (indices, memory))
        else:
            self._core.push(indices, owner=(indices, None))

    def take(self) -> Batch:
        failure, layout, slot, (indices, lent) = self._core.take()
        if failure is not None:
            raise self._error(*failure)
        memory = lent if lent is not None else torch.utils.dlpack.from_dlpack(slot)
        return self._batch(indices, layout, memory)

    def ready(self) -> bool:
        return bool(self._core.ready())

    def clear(self) -> None:
        self._core.clear()

    def close(self) -> None:
        self._core.close()

    def _batch(self, indices: np.ndarray, layout: dict[str, int], memory: Tensor) -> Batch:
        rows, frames = layout["utterances"], layout["frames"]

        def part(name: str, dtype: torch.dtype, *shape: int) -> Tensor:
            start, count = layout[name], int(np.prod(shape))
            return memory[start : start + count * dtype.itemsize].view(dtype).view(shape)

        masks = {}
        if self._format.targets:
            masks = {
                "frame_mask": part("frame_mask", torch.bool, rows, frames),
                "stop_targets": part("stop_targets", torch.float32, rows, frames),
            }
        return Batch(
            ids=tuple(self._store.entries.id[index] for index in indices),
            text=part("text", torch.int64, rows, layout["symbols"]),
            text_lengths=part("text_lengths", torch.int64, rows),
            mel=part("mel", self._format.dtype, rows, frames, self._store.contract.n_mels),
            mel_lengths=part("mel_lengths", torch.int64, rows),
            speaker=part("speaker", torch.int64, rows),
            truncated=part("truncated", torch.bool, rows),
            frames=layout["valid_frames"],
            **masks,
            **self._tracks(indices, frames),
        )

    def _tracks(self, indices: np.ndarray, frames: int) -> dict[str, Tensor]:
        """Pitch and energy, where the store holds them: too little to be worth a thread."""
        if not self._store.tracks:
            return {}
        read = [self._store.tracks_of(int(index)) for index in indices]
        tracks = {name: pad_track([one[name] for one in read], frames) for name in self._store.tracks}
        return {name: track.pin_memory() for name, track in tracks.items()} if self._pin else tracks

    def _error(self, what: str, index: int, detail: str) -> Exception:
        if what == "memory":
            return MemoryError(
                f"no memory for a batch of {detail}: lower data.batch_size or data.num_workers"
            )
        store = self._store
        shard = store.shards[store.entries.shard[index]]
        why = {
            "checksum": "the stored bytes do not fit their checksum",
            "symbol": f"symbol id {detail} is not from 1 to {len(store.symbols) - 1}",
            "shortened": f"cut short to {detail} bytes while it is in use",
            "unreadable": f"cannot be read ({detail})",
        }[what]
        return InputError(f"{shard.path}: utterance {store.entries.id[index]!r}: {why}; {shard.remedy}")


def _bytes_of(largest: tuple[int, int, int], batch_format: BatchFormat, bins: int) -> int:
    """What ``csrc/batcher/layout.cpp`` lays out for them, or a little more."""
    rows, frames, symbols = largest
    a_frame = bins * batch_format.dtype.itemsize + (1 + 4 if batch_format.targets else 0)
    a_row = 8 * int(padded_length(symbols, 0, TEXT_MULTIPLE)) + 3 * 8 + 1
    arrays = 8
    return frames * a_frame + rows * a_row + arrays * 64 if rows else 0


def _columns(entries: UtteranceTable) -> dict[str, np.ndarray]:
    names = ("shard", "offset", "frames", "text_offset", "symbols", "speaker", "crc32c", "truncated")
    return {name: np.asarray(getattr(entries, name), dtype=np.int64) for name in names}
