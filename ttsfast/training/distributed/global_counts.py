"""What all ranks' batches of a step add up to, from the plan alone: nobody has to ask."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.store.store import Store
from ttsfast.terms.counts import Counts, counts_by_utterance


class GlobalCounts:
    """The normaliser of a step over all ranks.

    Args:
        plan: of any rank's training batches.
        store: what it draws from.
        reduction_factor: frames per decoder step.
        tail_steps: the loss's ``stop_tail_frames``.
    """

    def __init__(self, plan: BatchPlan, store: Store, reduction_factor: int, tail_steps: int) -> None:
        self._plan = plan
        frames = torch.from_numpy(store.frames.astype(np.int64))
        steps = (frames + reduction_factor - 1) // reduction_factor
        truncated = torch.from_numpy(store.entries.truncated)
        columns = counts_by_utterance(frames, steps, truncated, stop_tail_frames=tail_steps, steps=None)
        self._by_utterance = torch.stack(columns, dim=1).numpy()
        self._epochs: dict[int, list[list[int]]] = {}

    def of(self, place: Mapping[str, int], batches: int) -> Counts:
        """Counts of ``batches`` micro-batches from a loader's ``state_dict`` on, as numbers."""
        epoch, position = place["epoch"], place["position"]
        rows = []
        for _ in range(batches):
            if position == len(self._epoch(epoch)):
                epoch, position = epoch + 1, 0
            rows.append(self._epoch(epoch)[position])
            position += 1
        return Counts(*map(sum, zip(*rows, strict=True)))

    def _epoch(self, epoch: int) -> list[list[int]]:
        """Four counts of each global batch."""
        if epoch not in self._epochs:
            self._epochs = {e: counts for e, counts in self._epochs.items() if e == epoch - 1}
            batches = self._plan.global_epoch(epoch)
            self._epochs[epoch] = [self._by_utterance[batch].sum(axis=0).tolist() for batch in batches]
        return self._epochs[epoch]
