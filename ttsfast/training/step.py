"""The two halves of a step: gradients from micro-batches, and what the optimiser makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ttsfast.config import TrainingConfig
from ttsfast.data.loading.batch import Batch
from ttsfast.losses.module import TTSLoss
from ttsfast.losses.output import LossOutput
from ttsfast.terms.counts import Counts
from ttsfast.training.distributed.data_parallel import DataParallel
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.gradients import gradient_divisor, gradient_norm
from ttsfast.training.optimizers import Optimizers
from ttsfast.training.precision import LossScaler
from ttsfast.training.ratios import ModuleRatios
from ttsfast.training.spike_guard import SpikeGuard
from ttsfast.training.telemetry.timing import StepClock
from ttsfast.training.weight_average import WeightAverage


class StepStats(NamedTuple):
    """A step's figures, on the device."""

    sums: Tensor
    """(1 + 2n + ...,) over micro-batches and ranks: the total, then values and floors of the n terms; with an
    alignment, how many utterances are too short for their text; where lengths are clamped instead of refused,
    how many were"""
    weights: Tensor
    """(n,) of the terms in the last micro-batch"""
    present: tuple[bool, ...]
    """(n,) Which terms had inputs."""

    @property
    def total(self) -> Tensor:
        """()"""
        return self.sums[0]


def stats_of(out: LossOutput) -> StepStats:
    """Of one micro-batch."""
    sums = [out.total.detach()[None], out.values, out.floor_values]
    sums += [n[None].to(out.values.dtype) for n in (out.unalignable, out.clamped) if n is not None]
    return StepStats(torch.cat(sums), out.weight_values.detach(), out.present)


class ForwardBackward:
    """Makes the gradients of a step, those of the other ranks included.

    Args:
        parallel: the objective, whose last backward pass of a step sums gradients over ranks.
        scaler: fp16's.
        ranks: who else has a part of the batch.
    """

    def __init__(self, parallel: DataParallel, scaler: LossScaler, ranks: ProcessGroup) -> None:
        self.parallel, self.objective = parallel, parallel.objective
        self._scaler, self._ranks = scaler, ranks

    def __call__(self, batches: Sequence[Batch], normalizer: Counts) -> StepStats:
        """Add the gradients of ``batches`` to the parameters' ``grad``."""
        scale = self._scaler.factor
        sums: list[Tensor] = []
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            with self.objective.around_passes(), self.parallel.accumulating(last=last):
                out = self.parallel.module(batch, normalizer, scale)
                stats = stats_of(out)
                sums.append(stats.sums)
                if last:
                    # On its way while the last gradients are made.
                    summed = self._ranks.all_reduce_async(torch.stack(sums).sum(dim=0))
                out.total.backward(scale)
            self.objective.clock.lap("backward")
        return stats._replace(sums=summed())

    def figures(self) -> dict[str, float]:
        """What a log line tells of how the passes were run."""
        return self.objective.counters()


class OptimizerStep:
    """What a step's gradients and figures change: adaptive weights, spike guard, model weights.

    It reads and writes device tensors only, so that no step waits for the device; fp16, and an optimiser
    that is not fused, read one flag.

    Args:
        config: thresholds.
        loss: its adaptive weights follow from the figures.
        optimizers: move the weights.
        average: follows them.
        scaler: fp16's.
        clock: told where the time goes.
    """

    def __init__(
        self,
        config: TrainingConfig,
        loss: TTSLoss,
        optimizers: Optimizers,
        average: WeightAverage,
        scaler: LossScaler,
        clock: StepClock,
    ) -> None:
        self._clip_norm = config.gradient_clip_norm
        self._loss, self._optimizers, self._average = loss, optimizers, average
        self._scaler, self._clock = scaler, clock
        device = scaler.tensor.device
        self.guard = SpikeGuard(config.loss_smoothing_factor, config.max_loss_spike_threshold, device)
        self.ratios = ModuleRatios(optimizers.model, config.log_step)
        self.found_inf = torch.zeros((), dtype=torch.float32, device=device)
        """() 1 from the first step on that was not finite. No update is applied then: when the host learns of
        it at the next log point, the weights are those the bad step had, and it can be taken again to find
        the culprit."""

    def __call__(self, stats: StepStats, step: int) -> Tensor | None:
        """Take step ``step`` (1, 2, ...), and forget the gradients.

        Returns:
            () the gradient's norm before clipping; None where fp16 overflowed: then nothing has moved.
        """
        gradients = [gradient for p in self._optimizers.parameters if (gradient := p.grad) is not None]
        norm = gradient_norm(gradients, self._scaler.factor)
        # Zero times what is finite is 0; else it is NaN, which is not 0.
        bad = torch.add(stats.total * 0, norm, alpha=0) != 0
        if self._scaler.enabled and bad:
            self._optimizers.zero_grad()
            return None
        with_ratios = self.ratios.due(step)
        self._apply(stats.sums, norm, bad, terms=len(stats.present), with_ratios=with_ratios)
        self._scaler.grow()
        self._average.update()
        if with_ratios:
            self.ratios.after_update()
        return norm

    def figures(self) -> dict[str, float]:
        """What a log line tells of the guard, and of gradients and updates where they were measured."""
        guard = {"smoothed_loss": float(self.guard.average), "spikes": int(self.guard.spikes)}
        return {**guard, **self.ratios.take()}

    def _apply(self, sums: Tensor, norm: Tensor, bad: Tensor, *, terms: int, with_ratios: bool) -> None:
        """All that is decided and done on the device, from ``sums`` of so many terms as in
        :class:`StepStats`."""
        total, values, floors, _ = sums.split((1, terms, terms, len(sums) - 1 - 2 * terms))
        self._loss.update_weights(values, floors)
        damping = self.guard.update(total[0])
        divisor = gradient_divisor(norm, self._clip_norm, self._scaler.factor, damping)
        if with_ratios:
            self.ratios.before_update(divisor)
        self.found_inf.masked_fill_(bad, 1.0)
        self._clock.lap("trainer")
        self._optimizers.step(self.found_inf, divisor)
        self._optimizers.zero_grad()
        self._clock.lap("optimizer")
