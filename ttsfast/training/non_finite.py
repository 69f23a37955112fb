"""Which tensor was the first that is not finite: the step is taken again with hooks on every module."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ttsfast.config import Config
from ttsfast.data.loading.batch import Batch
from ttsfast.data.store.store import Store
from ttsfast.errors import TrainingError
from ttsfast.models.checkpoint import checkpoints
from ttsfast.terms.spec import TERMS
from ttsfast.training.distributed.data_parallel import DataParallel
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.objective import Objective
from ttsfast.training.randomness import random_streams, set_random_streams
from ttsfast.training.setup import collate_again

NOWHERE = "nowhere when the step was taken again"


@dataclass
class StepInputs:
    """What it takes to take a step again."""

    step: int
    ids: list[tuple[str, ...]]
    """Utterances of each micro-batch."""
    random: dict[str, Tensor]
    """The random streams before it."""

    @classmethod
    def of(cls, step: int, batches: Sequence[Batch], device: torch.device) -> StepInputs:
        """Keep a step's inputs in a few kilobytes."""
        return cls(step, [batch.ids for batch in batches], random_streams(device))

    def names(self, most: int = 8) -> str:
        """The utterances, for a message."""
        ids = [name for batch in self.ids for name in batch]
        return ", ".join(ids[:most]) + (f", ... ({len(ids)} in all)" if len(ids) > most else "")


class Fault(NamedTuple):
    """The first step that must end a run."""

    inputs: StepInputs
    not_finite: tuple[str, ...]
    """Its figures that are not finite."""
    clamped: int
    """How many of its lengths lay outside their tensors, and were clamped on a GPU."""

    def message(self, found: Sequence[tuple[str, str]], kept: Sequence[Path]) -> str:
        """One line for the user.

        Args:
            found: of each rank, where it found the first value that is not finite, and its utterances.
            kept: the run's checkpoints.
        """
        step = self.inputs.step
        if self.clamped:
            return (
                f"step {step}: {self.clamped} lengths lie outside their tensors, which a GPU clamps; the "
                f"batch is {'; '.join(names for _, names in found)}; check it with `ttsfast verify`, and the "
                "step_lengths that the model returns"
            )
        place, names = next((one for one in found if not one[0].startswith(NOWHERE)), found[0])
        where = f"resume from {kept[-1]}" if kept else "start again"
        return (
            f"step {step}: {', '.join(self.not_finite)} is not finite, first in {place}; the batch is "
            f"{names}; check it with `ttsfast verify`, then {where} with a lower training.learning_rate or "
            "data.mixed_precision=false"
        )


def training_error(
    fault: Fault,
    config: Config,
    store: Store,
    model: nn.Module,
    parallel: DataParallel,
    grad_scale: Tensor | None,
    ranks: ProcessGroup,
) -> TrainingError:
    """The error that ends a run, with the first tensor that is not finite; all ranks call it together.

    Args:
        fault: of the run.
        config: whose run folder's last checkpoint is named.
        store: where its batch is read again.
        model: as it is written.
        parallel: what trains it.
        grad_scale: fp16's.
        ranks: the figures are summed over them, and the cause may lie in one rank's batch.
    """
    place = ""
    if fault.not_finite:
        with parallel.full_weights(everywhere=True):
            objective = parallel.objective.uncompiled(model)
            batches = [
                collate_again(config, store, ids, objective.reduction_factor).to(objective.precision.device)
                for ids in fault.inputs.ids
            ]
            place = first_non_finite(fault.inputs, batches, objective, grad_scale)
    found = ranks.all_gather_object((place, fault.inputs.names()))
    return TrainingError(fault.message(found, checkpoints(Path(config.training.run_folder))))


def first_non_finite(
    inputs: StepInputs, batches: Sequence[Batch], objective: Objective, grad_scale: Tensor | None
) -> str:
    """Take a step again without moving the weights; say where the first NaN or infinity is.

    The weights must be those that the step had, which they are while a bad step is left out. Checked in
    turn: the features, the weights, the output of every module as it ends (the innermost ends first), the
    terms of the loss, and the gradients as the backward pass makes them. -inf counts only when there is
    nothing else, since models mask scores with it.

    Args:
        inputs: of the step.
        batches: its micro-batches, on the device.
        objective: of a model that is not compiled, since hooks do not reach into a compiled call.
        grad_scale: fp16's.
    """
    device = batches[0].mel.device
    before = random_streams(device)
    set_random_streams(inputs.random, device)
    try:
        return _search(batches, objective, grad_scale)
    finally:
        objective.model.zero_grad()
        set_random_streams(before, device)


def _search(batches: Sequence[Batch], objective: Objective, grad_scale: Tensor | None) -> str:
    model = objective.model
    for batch in batches:
        if place := _where("the features", batch.mel, batch.ids):
            return place
    for name, parameter in model.named_parameters():
        if place := _where(f"the weights {name}", parameter, ()):
            return place
    objective.train()
    normalizer = objective.counts(batches)
    for batch in batches:
        with _recording_non_finite(model, batch.ids) as found:
            out = objective(batch, normalizer, grad_scale)
            if found:
                return _first(found)
            for name, value in zip(TERMS, out.values.tolist(), strict=False):
                if not math.isfinite(value):
                    return f"the {name} term of the loss, of finite outputs"
            out.total.backward(grad_scale)
            if found:
                return _first(found)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    if not torch.nn.utils.get_total_norm(list(gradients.values())).isfinite():
        largest = {name: float(gradient.abs().max()) for name, gradient in gradients.items()}
        name = max(largest, key=lambda name: largest[name])
        return (
            f"the norm of gradients that are each finite, the largest {largest[name]:.1e} in {name}: "
            "float32 cannot hold their squares, so the loss weights are too large"
        )
    return f"{NOWHERE}: an operation that is not deterministic, or faulty memory"


@contextmanager
def _recording_non_finite(model: nn.Module, ids: Sequence[str]) -> Iterator[list[tuple[bool, str]]]:
    """Within the block, the list receives every non-finite output and gradient in the order of its making."""
    found: list[tuple[bool, str]] = []

    def record(what: str, tensor: Tensor) -> None:
        if place := _where(what, tensor, ids):
            found.append((bool((tensor.isnan() | tensor.isposinf()).any()), place))

    def after(name: str, module: nn.Module, output: Any) -> None:
        label = f"{name or 'the model'} ({type(module).__name__})"
        for tensor in _tensors(output):
            record(f"the output of {label}", tensor.detach())
            if tensor.requires_grad:
                tensor.register_hook(
                    lambda gradient: record(f"the gradient of the output of {label}", gradient)
                )

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            handle = module.register_forward_hook(lambda m, _, out, name=name: after(name, m, out))
            hooks.callback(handle.remove)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                gradient_hook = parameter.register_hook(
                    lambda gradient, name=name: record(f"the gradient of {name}", gradient)
                )
                hooks.callback(gradient_hook.remove)
        yield found


def _first(found: list[tuple[bool, str]]) -> str:
    return next((place for certain, place in found if certain), found[0][1])


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every floating tensor in a module's output."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors(inner)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from _tensors(getattr(value, name))


def _where(what: str, tensor: Tensor, ids: Sequence[str]) -> str | None:
    """One phrase on a tensor's non-finite values; None where there are none."""
    bad = ~tensor.detach().isfinite()
    count = int(bad.sum())
    if not count:
        return None
    kind = str(tensor.dtype).removeprefix("torch.")
    text = f"{what}, {kind} {tuple(tensor.shape)}, {count} of {tensor.numel()} values"
    if ids and tensor.dim() and tensor.shape[0] == len(ids):
        rows = bad.reshape(len(ids), -1).any(dim=1).tolist()
        named = [name for name, is_bad in zip(ids, rows, strict=True) if is_bad]
        text += f", in utterance {', '.join(named[:8])}"
    return text
