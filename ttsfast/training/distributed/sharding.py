"""``training.sharding=full``: each rank keeps a shard of the weights, gradients and optimiser state (FSDP2).

What is trained is a copy of the model whose parameters are DTensors, cut along their first axis. The model
itself stays plain and off the device, and takes the trained weights in to be measured. Checkpoints hold full
tensors, so they are those of a run without sharding, and of any number of ranks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast.config import TrainingConfig
from ttsfast.data.loading.batch import Batch
from ttsfast.errors import InputError
from ttsfast.losses.output import LossOutput
from ttsfast.terms.counts import Counts
from ttsfast.training.distributed.data_parallel import (
    DataParallel,
    ReplicatedDataParallel,
    communication_errors,
)
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.distributed.sharded_tensors import full_tensors
from ttsfast.training.objective import Objective


def data_parallel(
    training: TrainingConfig,
    model: nn.Module,
    objective_of: Callable[..., Objective],
    ranks: ProcessGroup,
) -> DataParallel:
    """The objective over ranks, as ``training.sharding`` says.

    Args:
        training: of the configuration.
        model: what is trained.
        objective_of: makes the objective of a model.
        ranks: that train it.

    Raises:
        InputError: sharding where there is one process, an optimiser that wants full matrices, a compiled
            model, or a torch before 2.8.
    """
    if training.sharding == "none":
        objective = objective_of(model, compiled=training.compile)
        return DataParallel(objective) if ranks.size == 1 else ReplicatedDataParallel(objective)
    if ranks.size == 1:
        raise InputError(
            "training.sharding=full shards a model among processes, and there is one: start with torchrun, "
            "or set training.sharding=none"
        )
    if training.optimizer not in ("adamw", "adam"):
        raise InputError(
            f"training.sharding=full does not go with training.optimizer={training.optimizer}: "
            "set adamw or adam, or training.sharding=none"
        )
    if training.compile:
        raise InputError(
            "training.sharding=full was not tried with training.compile: set one of them to none or false"
        )
    return FullyShardedDataParallel(model, objective_of, ranks)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """What is gathered and resharded together: the elements of every ``nn.ModuleList`` that is not inside
    another one's; what lies outside of them is gathered once for a whole step.

    Elements are to be called, as modules are: a parent that reads their weights finds a shard of them.
    """
    blocks: list[nn.Module] = []
    for child in model.children():
        elements = list(child) if isinstance(child, nn.ModuleList) else blocks_of(child)
        blocks += elements
    return blocks


class FullyShardedDataParallel(DataParallel):
    """A model that torch's ``fully_shard`` shards among ranks; gradients are summed.

    Every rank must call the same blocks in every step, and before torch 2.13 use the same parameters. One
    without a gradient counts as 0. Buffers are each rank's own.
    """

    def __init__(self, model: nn.Module, objective_of: Callable[..., Objective], ranks: ProcessGroup) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        # Torch 2.6 and 2.7 shard a model, too, but leave no parameter out and cannot be told to sum.
        if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
            raise InputError(
                f"training.sharding=full needs torch 2.8 or newer, this is {torch.__version__}: "
                "upgrade torch, or set training.sharding=none"
            )
        self._model, self._ranks = model, ranks
        self._device = next(model.parameters()).device
        ranks.broadcast_model(model)
        trained = copy.deepcopy(model)
        # torch shards no scalars: every rank keeps them, and their gradients are summed apart.
        self._scalars = [p for p in trained.parameters() if p.dim() == 0]
        options: dict[str, Any] = {
            "mesh": init_device_mesh(self._device.type, (ranks.size,)),
            "ignored_params": set(self._scalars),
        }
        for block in blocks_of(trained):
            fully_shard(block, **options)
        self.objective = objective_of(trained)
        root = _RootModule(self.objective)
        self._root: Any = fully_shard(root, **options)
        # The loss has been divided by the counts of all ranks.
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
                if hasattr(module, "set_reduce_scatter_unused_params"):  # torch 2.13
                    module.set_reduce_scatter_unused_params(True)
        self.module = self._losses
        model.cpu()

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        self._root.set_requires_gradient_sync(last)
        with communication_errors():
            yield
        gradients = [p.grad for p in self._scalars if p.grad is not None]
        if last and gradients:
            sums = self._ranks.all_reduce_async(torch.stack(gradients))()
            torch._foreach_copy_(gradients, list(sums.unbind()))

    @contextmanager
    def full_weights(self, *, everywhere: bool = False) -> Iterator[None]:
        weights = full_tensors(self.objective.model.state_dict())
        if self._ranks.is_first or everywhere:
            self._model.to(self._device).load_state_dict(weights)
        del weights
        try:
            yield
        finally:
            self._model.cpu()

    def _losses(self, batch: Batch, normalizer: Counts, grad_scale: Tensor | None) -> LossOutput:
        total = self._root(batch, normalizer, grad_scale)
        return replace(self._root.output, total=total)


class _RootModule(nn.Module):
    """The root of what ``fully_shard`` wraps: it ends in the one tensor that is differentiated."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: Batch, normalizer: Counts, grad_scale: Tensor | None) -> Tensor:
        self.output = self.objective(batch, normalizer, grad_scale)
        return self.output.total
