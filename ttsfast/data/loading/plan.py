"""Which utterances form which batch: a pure function, so that resuming is a seek and ranks need not talk; and
a position in the endless stream of its batches.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ttsfast.data.loading.batch import padded_length
from ttsfast.errors import InputError

# Of 13,000 utterances of speech in batches of 48 it pads 6% where a full sort pads 2%, and 7% of the pairs
# that share a batch do so again in the next epoch; 0.1 would pad 10% for 5%.
LENGTH_NOISE = 0.05


class BatchPlan:
    """Length-bucketed batches in random order.

    Utterances are sorted by their length times a random factor in 1 +- ``length_noise``, cut into batches,
    and the batches are shuffled. Without the noise the same utterances would meet in every epoch, and sorted
    batches drawn in order make the loss a sawtooth; with it padding stays near what a full sort gives.

    A *global* batch holds ``batch_size * world_size`` utterances, one row of ``world_size`` after the other
    dealt to the ranks, to and fro, so that the ranks' parts are alike in length. The global batches depend on
    that product only, so a run may go on at any position with another number of ranks. With a frame budget
    they do so among 1, 2, 4 and 8 ranks (and among any number's halves and doubles), as long as
    ``frame_budget * world_size`` is kept too: batches of eight or more hold whole multiples of eight.

    Without a frame budget the global batches of an epoch differ in size by one utterance at most: there is no
    tiny last batch whose gradient would weigh as much as a full one's. With one, batches are filled in turn
    and the last may be small; the loss is normalised by frames, so it is right, if noisier.

    With one rank an epoch holds every index exactly once (where :meth:`leave` cut it short, every one that is
    left). With more, fewer than ``world_size`` utterances are
    repeated where a global batch would leave a rank without any, so that every rank takes as many steps.

    ``speaker_balance`` above 0 draws a speaker of n utterances in proportion to ``n ** (1 - balance)``: 1
    gives every speaker as many draws. An epoch keeps its number of draws. A speaker's utterances are taken
    round and round in a fixed random order, each epoch going on where the last one ended: within an epoch and
    over any number of epochs from the first, the draws of two of them differ by one at most.
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
        speakers: np.ndarray | None = None,
        speaker_balance: float = 0.0,
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
            speakers: (n,) speaker of every utterance of the store; read where ``speaker_balance`` is not 0.
            speaker_balance: 0 for every utterance once, 1 for every speaker as often.

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
        if self._indices.min() < 0 or self._indices.max() >= len(frames):
            raise ValueError(f"indices outside the {len(frames)} utterances")
        if np.bincount(self._indices).max() > 1:
            raise ValueError("indices hold duplicates")
        self._frames = np.asarray(frames, dtype=np.int64)[self._indices]
        self._padded = padded_length(self._frames, tail_frames, pad_to_multiple)
        if frame_budget is not None and self._padded.max() > frame_budget:
            raise InputError(
                f"an utterance of {self._frames.max()} frames, padded to {self._padded.max()}, exceeds "
                f"the frame budget of {frame_budget}: raise data.frame_budget or lower data.max_mel_frames"
            )
        self._batch_size, self._seed, self._budget = batch_size, seed, frame_budget
        self._rank, self._world_size, self._noise = rank, world_size, length_noise
        self._sizes = _batch_sizes(batch_size * world_size, world_size, self._indices.size)
        # An epoch that is cut short, and the places among the indices that are left of it.
        self._rest: tuple[int, np.ndarray] | None = None
        # Without a budget the sizes differ by one at most, in an epoch that is cut short too.
        most = batch_size * world_size
        self._global_size = -(-self._indices.size // -(-self._indices.size // most))
        self._rotation = None
        if speaker_balance:
            if speakers is None or not 0 <= speaker_balance <= 1:
                raise ValueError(f"speaker_balance {speaker_balance}: must be 0 to 1, with speakers")
            self._rotation = _Rotation(np.asarray(speakers)[self._indices], speaker_balance, seed)

    @property
    def indices(self) -> np.ndarray:
        """(m,) int64, the utterances that are drawn, as they were given."""
        return self._indices

    @property
    def balanced(self) -> bool:
        """Whether speakers are, so that an epoch does not hold each utterance once."""
        return self._rotation is not None

    def leave(self, epoch: int, left: Sequence[int] | None) -> None:
        """Have ``epoch`` hold these utterances only, given by the store's numbers; None: all, as any other.

        Raises InputError when they are none, or not distinct ones of the plan.
        """
        self._rest = None
        if left is None:
            return
        wanted = np.array(left, dtype=np.int64)
        places = np.flatnonzero(np.isin(self._indices, wanted))
        if self.balanced or not len(places) or len(places) != len(wanted):
            raise InputError(
                f"of the {len(wanted)} utterances that are left of epoch {epoch}, {len(places)} are in its "
                "plan; resume with the same store and split"
            )
        self._rest = epoch, places

    def largest(self) -> tuple[int, int]:
        """Utterances, and padded frames of all of them together, that no batch of any epoch exceeds."""
        global_size = self._global_size if self._budget is None else len(self._indices)
        rows = min(self._batch_size, -(-global_size // self._world_size))
        frames = rows * int(self._padded.max())
        return rows, frames if self._budget is None else min(frames, self._budget)

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, in order: int64 arrays of store indices, as many on every rank."""
        batches = self.global_epoch(epoch)
        if self._world_size == 1:
            return batches
        return [self._dealt(batch, step) for step, batch in enumerate(batches)]

    def global_epoch(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch as all ranks together have them, what is repeated among them included."""
        generator = _generator(self._seed, epoch)
        uniform = generator.random_raw(len(self._indices)) * 2.0**-64
        factor = 1 + self._noise * (2 * uniform - 1)
        drawn = np.arange(len(self._indices)) if self._rotation is None else self._rotation.draws(epoch)
        if self._rest is not None and self._rest[0] == epoch:
            drawn = self._rest[1]
        order = drawn[np.argsort(self._frames[drawn] * factor[: len(drawn)], kind="stable")]
        batches = np.split(self._indices[order], self._cuts(order))
        shuffled = np.argsort(generator.random_raw(len(batches)), kind="stable")
        shortest = self._indices[order[: self._world_size]]
        return [self._filled(batches[i], shortest) for i in shuffled]

    def _cuts(self, order: np.ndarray) -> np.ndarray:
        """Where to cut utterances in ``order`` into global batches."""
        most = self._batch_size * self._world_size
        if self._budget is None:
            count = -(-len(order) // self._global_size)
            return np.arange(1, count) * len(order) // count
        # The longest so far stands for the longest of a batch: in this order they are all but the same, and
        # then whether a size fits depends on where the batch ends alone.
        budget, longest = self._budget * self._world_size, np.maximum.accumulate(self._padded[order])
        sizes = self._sizes.tolist()
        ends = np.searchsorted(longest, budget // self._sizes, side="right").tolist()
        cuts: list[int] = []
        begin, k = 0, len(sizes) - 1
        while True:
            left = len(order) - begin
            # What is left need not be a whole size, but must not cost more if it were the next one.
            if left <= most and longest[-1] * sizes[bisect_left(sizes, left)] <= budget:
                return np.array(cuts, dtype=np.int64)
            while begin + sizes[k] > ends[k]:
                k -= 1
            begin += sizes[k]
            cuts.append(begin)

    def _filled(self, batch: np.ndarray, spare: np.ndarray) -> np.ndarray:
        """``spare`` fills up a global batch with fewer utterances than ranks."""
        missing = self._world_size - len(batch)
        return np.concatenate([batch, np.resize(spare, missing)]) if missing > 0 else batch

    def _dealt(self, batch: np.ndarray, step: int) -> np.ndarray:
        """This rank's part of a global batch."""
        size = self._world_size
        rows = np.arange(-(-len(batch) // size))
        # Rows go up in length, so who comes last in one comes first in the next; and the last row may be
        # short, so that a seat there goes round.
        seat = (self._rank + step) % size
        places = rows * size + np.where(rows % 2, size - 1 - seat, seat)
        return batch[places[places < len(batch)]]


def _batch_sizes(most: int, world_size: int, utterances: int) -> np.ndarray:
    """Sizes that a global batch of ``utterances`` in all may have under a frame budget, ascending: any number
    of ranks from ``world_size`` down by halves divides each of them that has an utterance for every rank.
    """
    odd = world_size // (world_size & -world_size)
    step = max(8 * odd, world_size)
    small = [odd << k for k in range(step.bit_length()) if odd << k < step]
    # One beyond all utterances is looked at, where they do not fill it; larger ones never are.
    largest = min(most, utterances + step)
    sizes = np.array([1, *small, *range(step, largest + 1, step), most], dtype=np.int64)
    return np.unique(sizes[sizes <= largest])


def _generator(seed: int, stream: int) -> np.random.Philox:
    """Raw output of a counter-based generator, because numpy keeps that stable from version to version, which
    it does not promise for shuffles and normal deviates.
    """
    return np.random.Philox(key=np.array([seed % 2**64, stream], dtype=np.uint64))


# No epoch comes this far.
_ROTATION_STREAM = 2**64 - 1


class _Rotation:
    """Speakers' utterances, each speaker's taken round and round."""

    def __init__(self, speakers: np.ndarray, balance: float, seed: int) -> None:
        _, group, self._counts = np.unique(speakers, return_inverse=True, return_counts=True)
        share = self._counts.astype(np.float64) ** (1 - balance)
        # Rounded, so that the last bit of a power, which machines do not agree on, decides nothing.
        exact = np.round(share * (len(speakers) / share.sum()), 6)
        self._quotas = exact.astype(np.int64)
        missing = len(speakers) - int(self._quotas.sum())
        self._quotas[np.argsort(self._quotas - exact, kind="stable")[:missing]] += 1
        mixed = np.argsort(_generator(seed, _ROTATION_STREAM).random_raw(len(speakers)), kind="stable")
        self._cycle = mixed[np.argsort(group[mixed], kind="stable")]
        self._starts = np.cumsum(self._counts) - self._counts

    def draws(self, epoch: int) -> np.ndarray:
        """(m,) int64 positions among the plan's indices."""
        begun = epoch % self._counts * self._quotas % self._counts
        firsts = np.cumsum(self._quotas) - self._quotas
        counts, starts, skipped = (
            np.repeat(each, self._quotas) for each in (self._counts, self._starts, begun - firsts)
        )
        return self._cycle[starts + (np.arange(len(self._cycle)) + skipped) % counts]


Place = tuple[int, int]
"""Epoch, and batch within it."""


def _counts(number: object) -> bool:
    return type(number) is int and 0 <= number < 2**62


class Cursor:
    """Where the next batch lies; epochs are planned when they are first asked for."""

    def __init__(self, plan: BatchPlan) -> None:
        self.plan = plan
        self.place: Place = (0, 0)
        self._epochs: dict[int, list[np.ndarray]] = {}
        # As the plan was told; a list, since checkpoints keep it.
        self._left: tuple[int, list[int]] | None = None

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, in order."""
        if epoch not in self._epochs:
            # The epoch being delivered, and the next, which look-ahead is already in.
            self._epochs = {e: batches for e, batches in self._epochs.items() if e == epoch - 1}
            self._epochs[epoch] = self.plan.epoch(epoch)
        return self._epochs[epoch]

    def after(self, place: Place) -> Place:
        """The place that follows, in the next epoch where this one ends."""
        epoch, position = place
        return (epoch, position + 1) if position + 1 < len(self.batches(epoch)) else (epoch + 1, 0)

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch lies: {"epoch", "position"}, and in an epoch that is cut short its "left"."""
        place: dict[str, Any] = {"epoch": self.place[0], "position": self.place[1]}
        if self._left is not None and self._left[0] == place["epoch"]:
            place["left"] = self._left[1]
        return place

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Seek. Raises InputError for a state that is not of this plan."""
        place = (
            {name: value for name, value in state.items() if name != "left"}
            if isinstance(state, Mapping)
            else {}
        )
        if set(place) != {"epoch", "position"} or not all(map(_counts, place.values())):
            raise InputError(f"loader state {state!r}: expected whole numbers epoch and position")
        epoch, position = int(state["epoch"]), int(state["position"])
        left = state.get("left")
        if left is not None and not (isinstance(left, list) and left and all(map(_counts, left))):
            raise InputError("loader state: left must be the numbers of utterances")
        self.plan.leave(epoch, left)
        self._left = None if left is None else (epoch, left)
        self._epochs.clear()
        count = len(self.batches(epoch))
        if position > count:
            raise InputError(
                f"loader state: batch {position} of epoch {epoch}, which has {count}; resume with the same "
                "store, split, seed and global batch"
            )
        self.place = (epoch, position) if position < count else (epoch + 1, 0)
