"""What every loader is: a plan of batches over one split, and a position in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from ttsfast.data.corpus.listings import Exclusion
from ttsfast.data.loading.batch import Batch
from ttsfast.data.loading.plan import BatchPlan, Cursor
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError

Loader = TypeVar("Loader", bound="PlanLoader")


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
            "with another --validation-fraction or --test-fraction, or with other ids in the corpus's "
            "validation.txt and test.txt"
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


class PlanLoader:
    """An endless stream of batches with a position; iterating gives the rest of the current epoch."""

    def __init__(self, plan: BatchPlan) -> None:
        """``plan`` says which batches, in what order."""
        self.plan = plan
        self.exclusions: list[Exclusion] = []
        """What :meth:`open` left out for its length."""
        self.wait_seconds = 0.0
        """How long the consumer has waited for batches so far."""
        self._cursor = Cursor(plan)

    @classmethod
    def open(
        cls: type[Loader],
        store: Store | Path | str,
        split: str = "train",
        *,
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
        **delivery: Any,
    ) -> Loader:
        """A loader over one split; what the length limits leave out is in ``exclusions``.

        ``delivery`` are further arguments of the loader, and ``device`` of a :class:`DeviceLoader`.

        Raises InputError where no utterance is left, or where a corpus does not fit on its device.
        """
        opened = store if isinstance(store, Store) else Store.open(store)
        indices, exclusions = select(opened, split, max_mel_frames, max_text_length)
        padding: dict[str, Any] = {"tail_frames": tail_frames, "pad_to_multiple": pad_to_multiple}
        plan = BatchPlan(
            opened.frames,
            indices,
            batch_size=batch_size,
            seed=seed,
            frame_budget=frame_budget,
            rank=rank,
            world_size=world_size,
            speakers=opened.entries.speaker,
            speaker_balance=speaker_balance,
            **padding,
        )
        loader = cls._over(opened, plan, **padding, **delivery)
        loader.exclusions = exclusions
        return loader

    @classmethod
    def _over(cls: type[Loader], store: Store, plan: BatchPlan, **delivery: Any) -> Loader:
        raise NotImplementedError

    def _next(self) -> Batch:
        """The batch at the cursor, which moves on."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Batches in the current epoch."""
        return len(self._cursor.batches(self._cursor.place[0]))

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the current epoch that have not been delivered yet.

        Raises InputError, naming the utterance, where one cannot be read; the position stays at its batch.
        """
        epoch = self._cursor.place[0]
        while self._cursor.place[0] == epoch:
            yield self._next()

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch lies: {"epoch", "position"}, and in an epoch that is cut short its "left"."""
        return self._cursor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Seek. Raises InputError for a state that is not of this plan."""
        self._cursor.load_state_dict(state)

    def close(self) -> None:
        """Stop what works ahead; the loader cannot be used afterwards, what it delivered can."""

    def __enter__(self: Loader) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
