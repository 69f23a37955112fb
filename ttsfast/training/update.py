"""What a step's figures change: adaptive weights, spike guard, and the weights by the optimiser."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ttsfast.terms.spec import TERMS
from ttsfast.training.gradients import gradient_divisor, gradient_norm

if TYPE_CHECKING:
    from ttsfast.training.trainer import Trainer


class Judged(NamedTuple):
    """A step's figures over all micro-batches and ranks, on the device."""

    figures: Tensor
    """(9,) the total, then values and floors of the four terms"""
    norm: Tensor
    """() of the gradient, before clipping and without the loss scaler's scale"""
    bad: Tensor
    """() bool: the total or the norm is not finite"""

    @property
    def total(self) -> Tensor:
        """()"""
        return self.figures[0]


class Update:
    """Reads and writes device tensors only, so that no step waits for the device."""

    def __init__(self, trainer: Trainer) -> None:
        self.scaler = trainer.scaler
        self._limit = trainer.config.training.gradient_clip_norm
        self._loss, self._watch, self._ratios = trainer.loss, trainer.watch, trainer.ratios
        self._parameters, self._optimizers, self._clock = (
            trainer.parameters,
            trainer.optimizers,
            trainer.clock,
        )

    def judge(self, figures: Tensor) -> Judged:
        """Measure the gradient; ``figures`` (9,) are total, values and floors."""
        gradients = [gradient for p in self._parameters if (gradient := p.grad) is not None]
        norm = gradient_norm(gradients, self.scaler.factor)
        # Zero times what is finite is 0; else it is NaN, which is not 0.
        bad = torch.add(figures[0] * 0, norm, alpha=0) != 0
        return Judged(figures, norm, bad)

    def __call__(self, judged: Judged, *, look_closely: bool) -> None:
        """Take the step, and forget the gradients.

        Args:
            judged: from :meth:`judge`.
            look_closely: whether the ratios of gradients and weights are due.
        """
        total, values, floors = judged.figures.split((1, len(TERMS), len(TERMS)))
        self._loss.update_weights(values, floors)
        damping = self._watch.guard.update(total[0])
        divisor = gradient_divisor(judged.norm, self._limit, self.scaler.factor, damping)
        if look_closely:
            self._ratios.before_update(divisor)
        skip = self._watch.freeze_if(judged.bad)
        self._clock.lap("trainer")
        self._optimizers.step(skip, divisor)
        self._optimizers.zero_grad()
        self._clock.lap("optimizer")
