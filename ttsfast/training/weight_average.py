"""Weights that are used but not trained: their moving average, or what a schedule-free optimiser averages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ttsfast.training.distributed.sharded_tensors import shard_like
from ttsfast.training.optimizers import Optimizers


class WeightAverage:
    """An exponential moving average (EMA) of the weights, off at a decay of 0.

    The decay rises as ``(1 + n) / (10 + n)`` at first, so that the random start is forgotten soon.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._model = model
        self._parameters = dict(model.named_parameters()) if decay else {}
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        if not self._averages:
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self._averages.values()), list(self._parameters.values()), 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def put_in(self) -> None:
        """Copy the averages into the model."""
        for name, average in self._averages.items():
            self._parameters[name].copy_(average)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {**self._averages, "updates": torch.tensor(self.updates)} if self._averages else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from :meth:`state_dict`; a run that kept no average starts one from its weights."""
        for name, average in self._averages.items():
            average.copy_(shard_like(state.get(name, self._parameters[name].detach()), average))
        self.updates = int(state["updates"]) if "updates" in state else 0


@contextmanager
def deployed_weights(
    model: nn.Module, optimizers: Optimizers, average: WeightAverage
) -> Iterator[dict[str, Tensor] | None]:
    """In the block the model holds the weights to measure and keep; after it the trained ones, to the bit.

    Yields the trained weights by name, or None where they are the ones to keep.
    """
    if not (average.decay or optimizers.averages):
        yield None
        return
    trained = {name: p.detach().clone() for name, p in model.named_parameters()}
    # An EMA of a schedule-free run averages what is trained; its own average is the better one.
    optimizers.eval() if optimizers.averages else average.put_in()
    try:
        yield trained
    finally:
        optimizers.train()
        put_back(model, trained)


@torch.no_grad()
def put_back(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights by name into the model."""
    for name, parameter in model.named_parameters():
        parameter.copy_(shard_like(weights[name], parameter))
