"""A position in the endless stream of a plan's batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ttsfast.data.loading.plan import BatchPlan
from ttsfast.errors import InputError

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

    def state_dict(self) -> dict[str, int]:
        """Where the next batch lies: {"epoch", "position"}."""
        return {"epoch": self.place[0], "position": self.place[1]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Seek. Raises InputError for a state that is not of this plan."""
        place = tuple(state.values()) if isinstance(state, Mapping) else ()
        if not place or set(state) != {"epoch", "position"} or not all(map(_counts, place)):
            raise InputError(f"loader state {state!r}: expected whole numbers epoch and position")
        epoch, position = int(state["epoch"]), int(state["position"])
        count = len(self.batches(epoch))
        if position > count:
            raise InputError(
                f"loader state: batch {position} of epoch {epoch}, which has {count}; resume with the same "
                "store, split, seed and global batch"
            )
        self.place = (epoch, position) if position < count else (epoch + 1, 0)
