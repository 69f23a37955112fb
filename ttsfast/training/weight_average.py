"""Weights that are used but not trained: their moving average, or what a schedule-free optimiser averages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast.training.distributed.sharded_tensors import shard_like
from ttsfast.training.optimizers import Optimizers


class WeightAverage:
    """An exponential moving average (EMA) of the weights, off at a decay of 0, beside whatever the optimiser
    averages itself.

    The decay rises as ``(1 + n) / (10 + n)`` at first, so that the random start is forgotten soon.
    """

    def __init__(self, model: nn.Module, optimizers: Optimizers, decay: float) -> None:
        self._model, self._optimizers, self._decay = model, optimizers, decay
        self._parameters = dict(model.named_parameters())
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()} if decay else {}
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        if not self._averages:
            return
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(list(self._averages.values()), list(self._parameters.values()), 1 - decay)
        self._updates += 1

    @contextmanager
    def deployed(self) -> Iterator[None]:
        """In the block the model holds the weights to measure and keep; after it the trained ones, to the
        bit."""
        trained = {name: value.clone() for name, value in self._trained().items()}
        if not trained:
            yield
            return
        # An EMA of a schedule-free run averages what is trained; its own average is the better one.
        if self._optimizers.averages:
            self._optimizers.eval()
        else:
            self._copy(self._averages)
        try:
            yield
        finally:
            self._optimizers.train()
            self._copy(trained)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights to use: the average, and the weights in training where
        they are others."""
        return {
            "updates": self._updates,
            **{f"average.{name}": value for name, value in self._averages.items()},
            **{f"trained.{name}": value for name, value in self._trained().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; a run that kept no average starts one from its weights."""
        if any(name.startswith("trained.") for name in state):
            self._copy({name: state[f"trained.{name}"] for name in self._parameters})
        for name, average in self._averages.items():
            kept = state.get(f"average.{name}", self._parameters[name].detach())
            average.copy_(shard_like(kept, average))
        self._updates = state["updates"]

    def _trained(self) -> dict[str, Tensor]:
        """The weights in training, where they are not those to use."""
        if not (self._averages or self._optimizers.averages):
            return {}
        return {name: p.detach() for name, p in self._parameters.items()}

    @torch.no_grad()
    def _copy(self, weights: Mapping[str, Tensor]) -> None:
        """Into the model."""
        for name, value in weights.items():
            parameter = self._parameters[name]
            parameter.copy_(shard_like(value, parameter))
