"""Which utterances form which batch: a pure function, so that resuming is a seek and ranks need not talk."""

from __future__ import annotations

import numpy as np

from ttsfast.data.batch import padded_length
from ttsfast.errors import InputError

# Of 13,000 utterances of speech in batches of 48 it pads 6% where a full sort pads 2%, and 7% of the pairs
# that share a batch do so again in the next epoch; 0.1 would pad 10% for 5%.
LENGTH_NOISE = 0.05


class BatchPlan:
    """Length-bucketed batches in random order.

    Utterances are sorted by their length times a random factor in 1 +- ``length_noise``, cut into batches,
    and the batches are shuffled. Without the noise the same utterances would meet in every epoch, and sorted
    batches drawn in order make the loss a sawtooth; with it padding stays near what a full sort gives.

    A *global* batch holds ``batch_size * world_size`` utterances and rank r takes every ``world_size``-th of
    them from r on, so that the ranks' parts are alike in length. Without a frame budget the global batches
    depend on that product only, so a run may go on with another number of ranks.

    Without a frame budget the global batches of an epoch differ in size by one utterance at most: there is no
    tiny last batch whose gradient would weigh as much as a full one's. With one, batches are filled in turn
    and the last may be small; the loss is normalised by frames, so it is right, if noisier.

    With one rank an epoch holds every index exactly once. With more, fewer than ``world_size`` utterances are
    repeated where a global batch would leave a rank without any, so that every rank takes as many steps.
    """

    def __init__(
        self,
        frames: np.ndarray,
        indices: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        frame_budget: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        tail_frames: int = 8,
        pad_to_multiple: int = 8,
        length_noise: float = LENGTH_NOISE,
    ) -> None:
        """
        Args:
            frames: (n,) frames of every utterance of the store.
            indices: (m,) the utterances to draw, each once an epoch.
            batch_size: utterances per batch and rank, at most.
            seed: any whole number.
            frame_budget: padded frames per batch and rank, at most; as :func:`padded_length` counts them.
            rank: which part of every global batch this plan gives.
            world_size: number of ranks.
            tail_frames: as the loader pads.
            pad_to_multiple: as the loader pads.
            length_noise: 0 for sorted buckets, above 0.5 for hardly any.

        Raises:
            InputError: there are no utterances, or one alone exceeds the budget.
            ValueError: an argument is out of range.
        """
        if batch_size < 1 or world_size < 1 or not 0 <= rank < world_size or not 0 <= length_noise < 1:
            raise ValueError(
                f"out of range: batch_size {batch_size}, rank {rank} of {world_size}, "
                f"length_noise {length_noise}"
            )
        self._indices = np.array(indices, dtype=np.int64)
        if self._indices.size == 0:
            raise InputError("no utterance to make batches of: relax the length limits, or prepare more data")
        if len(np.unique(self._indices)) != len(self._indices):
            raise ValueError("indices hold duplicates")
        if self._indices.min() < 0 or self._indices.max() >= len(frames):
            raise ValueError(f"indices outside the {len(frames)} utterances")
        self._frames = np.asarray(frames, dtype=np.int64)[self._indices]
        self._padded = padded_length(self._frames, tail_frames, pad_to_multiple)
        if frame_budget is not None and self._padded.max() > frame_budget:
            raise InputError(
                f"an utterance of {self._frames.max()} frames, padded to {self._padded.max()}, exceeds "
                f"the frame budget of {frame_budget}: raise data.frame_budget or lower data.max_mel_frames"
            )
        self._batch_size, self._seed, self._budget = batch_size, seed, frame_budget
        self._rank, self._world_size, self._noise = rank, world_size, length_noise

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, in order: int64 arrays of store indices, as many on every rank."""
        # The counter-based generator's raw output, because numpy keeps that stable from version to version,
        # which it does not promise for shuffles and normal deviates.
        key = np.array([self._seed % 2**64, epoch], dtype=np.uint64)
        generator = np.random.Philox(key=key)
        uniform = generator.random_raw(len(self._indices)) * 2.0**-64
        order = np.argsort(self._frames * (1 + self._noise * (2 * uniform - 1)), kind="stable")
        batches = np.split(order, self._cuts(order))
        batches = [self._at_least_one_each(batch, order) for batch in batches]
        shuffled = np.argsort(generator.random_raw(len(batches)), kind="stable")
        return [self._indices[batches[i][self._rank :: self._world_size]] for i in shuffled]

    def _cuts(self, order: np.ndarray) -> np.ndarray:
        """Where to cut utterances in ``order`` into global batches."""
        most = self._batch_size * self._world_size
        if self._budget is None:
            count = -(-len(order) // most)
            return np.arange(1, count) * len(order) // count
        padded = self._padded[order]
        per_rank = np.arange(self._world_size, most + self._world_size) // self._world_size
        cuts = [0]
        while True:
            window = padded[cuts[-1] : cuts[-1] + most]
            cost = np.maximum.accumulate(window) * per_rank[: len(window)]
            fits = int(np.count_nonzero(cost <= self._budget))
            if cuts[-1] + fits >= len(order):
                return np.array(cuts[1:], dtype=np.int64)
            # Whole rows, so that no rank has an utterance less than another.
            cuts.append(cuts[-1] + max(fits // self._world_size, 1) * self._world_size)

    def _at_least_one_each(self, batch: np.ndarray, order: np.ndarray) -> np.ndarray:
        missing = self._world_size - len(batch)
        return np.concatenate([batch, np.resize(order, missing)]) if missing > 0 else batch
