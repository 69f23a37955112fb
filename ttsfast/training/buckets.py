"""The shapes that batches are padded to, few enough that each is worth a recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ttsfast.config import Config
from ttsfast.data.loading.batch import TEXT_MULTIPLE, Batch, padded_length
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.store.store import Store
from ttsfast.training.setup import padding_of

FRAMES, SYMBOLS = 64, 32
"""What a bucket's frames and symbols are multiples of, at least. 13,000 utterances of 1 to 9 seconds in
batches of 48 make 40 buckets so, and are padded by 5% more frames and 10% more symbols than without; 32 and
16 would make 82 buckets for 2% and 4%."""


class Bucket(NamedTuple):
    """The shapes of a padded batch."""

    utterances: int
    frames: int
    symbols: int


@dataclass(frozen=True)
class Buckets:
    """Rounds a batch's frames and symbols up, the number of its utterances being what it is.

    ``frames`` and ``symbols`` are what they become multiples of, but for the longest utterance of the corpus:
    no batch is padded beyond what that needs.
    """

    frames: int
    symbols: int
    most_frames: int
    most_symbols: int

    def __call__(self, batch: Batch) -> Bucket:
        """Where ``batch`` belongs."""
        utterances, frames = batch.mel.shape[:2]
        symbols = batch.text.shape[1]
        # A batch from elsewhere may be longer than the corpus's own.
        return Bucket(
            utterances,
            max(frames, min(self.most_frames, -(-frames // self.frames) * self.frames)),
            max(symbols, min(self.most_symbols, -(-symbols // self.symbols) * self.symbols)),
        )


def training_buckets(config: Config, store: Store, plan: BatchPlan, reduction_factor: int) -> Buckets:
    """For the utterances of ``plan``: multiples of what the loader pads to, too."""
    padding = padding_of(config, reduction_factor)
    multiple, tail = padding["pad_to_multiple"], padding["tail_frames"]
    return Buckets(
        frames=-(-FRAMES // multiple) * multiple,
        symbols=SYMBOLS,
        most_frames=padded_length(int(store.frames[plan.indices].max()), tail, multiple),
        most_symbols=padded_length(int(store.text_lengths[plan.indices].max()), 0, TEXT_MULTIPLE),
    )
