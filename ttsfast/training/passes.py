"""Forward, loss and backward of the micro-batches that make one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ttsfast.data.loading.batch import Batch
from ttsfast.losses.output import LossOutput
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import TERMS
from ttsfast.training.distributed.data_parallel import DataParallelObjective
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.objective import Objective
from ttsfast.training.precision import LossScaler


class PassFigures(NamedTuple):
    """What is kept of one micro-batch."""

    row: Tensor
    """(13,) detached: the total, then values, floors and weights of the four terms"""
    present: tuple[bool, ...]
    """Which terms had inputs."""

    @classmethod
    def of(cls, out: LossOutput) -> PassFigures:
        """Of what the loss returned."""
        parts = [out.total.detach()[None], out.values, out.floor_values, out.weight_values.detach()]
        return cls(torch.cat(parts), out.present)

    @property
    def weights(self) -> Tensor:
        """(4,)"""
        return self.row[-len(TERMS) :]


def sum_figures(parts: Sequence[PassFigures]) -> Tensor:
    """(9,) total, values and floors over micro-batches: what one small message sums over ranks."""
    return torch.stack([part.row[: -len(TERMS)] for part in parts]).sum(dim=0)


class Passes:
    """Makes the gradients of a step, those of the other ranks included.

    Args:
        objective: what is differentiated.
        parallel: the same, whose last backward pass of a step sums over ranks.
        scaler: fp16's.
        ranks: who else has a part of the batch.
    """

    def __init__(
        self, objective: Objective, parallel: DataParallelObjective, scaler: LossScaler, ranks: ProcessGroup
    ) -> None:
        self.objective, self.scaler = objective, scaler
        self._parallel, self._ranks = parallel, ranks

    def __call__(self, batches: Sequence[Batch], normalizer: Counts) -> tuple[Tensor, PassFigures]:
        """Add the gradients of ``batches`` to the parameters' ``grad``.

        Returns:
            :func:`sum_figures` over micro-batches and ranks, and the last micro-batch's figures.
        """
        done: list[PassFigures] = []
        for place, batch in enumerate(batches, start=1):
            last = place == len(batches)
            with self.objective.explained():
                out = self._parallel(batch, normalizer, self.scaler.factor, last=last)
                done.append(PassFigures.of(out))
                if last:
                    # On its way while the last gradients are made.
                    figures = self._ranks.all_reduce_async(sum_figures(done))
                self._parallel.backward(out.total, self.scaler.factor)
            self.objective.clock.lap("backward")
        return figures(), done[-1]

    def counters(self) -> dict[str, float]:
        """What a log line tells of how the passes were run."""
        return self.objective.counters()
