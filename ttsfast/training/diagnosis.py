"""Which tensor was the first that is not finite: the step is taken again, watched module by module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ttsfast.data.loading.batch import Batch, collate
from ttsfast.terms.spec import TERMS
from ttsfast.training.randomness import random_streams, set_random_streams
from ttsfast.training.setup import padding_of

if TYPE_CHECKING:
    from ttsfast.training.trainer import Trainer


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
        ids = [name for part in self.ids for name in part]
        return ", ".join(ids[:most]) + (f", ... ({len(ids)} in all)" if len(ids) > most else "")


def first_non_finite(trainer: Trainer, inputs: StepInputs) -> str:
    """Take a step again without moving the weights; say where the first NaN or infinity is.

    The weights must be those that the step had, which they are while a bad step is left out. Looked at in
    turn: the features, the weights, the output of every module as it ends (the innermost ends first), the
    terms of the loss, and the gradients as the backward pass makes them. -inf counts only when there is
    nothing else, since models mask scores with it.
    """
    device = trainer.device
    before = random_streams(device)
    set_random_streams(inputs.random, device)
    try:
        return _look(trainer, _batches(trainer, inputs))
    finally:
        trainer.optimizers.zero_grad()
        set_random_streams(before, device)


def _batches(trainer: Trainer, inputs: StepInputs) -> list[Batch]:
    store = trainer.store
    index = {str(name): place for place, name in enumerate(store.entries.id)}
    pad = padding_of(trainer.config, trainer.reduction_factor)
    return [
        collate([store[index[name]] for name in ids], pad_value=store.silence, **pad).to(trainer.device)
        for ids in inputs.ids
    ]


def _look(trainer: Trainer, batches: list[Batch]) -> str:
    for batch in batches:
        if place := _where("the features", batch.mel, batch.ids):
            return place
    for name, parameter in trainer.model.named_parameters():
        if place := _where(f"the weights {name}", parameter, ()):
            return place
    trainer.objective.train()
    # Hooks do not reach into a compiled call.
    trainer.objective.forward = trainer.model
    normalizer = trainer.objective.counts(batches)
    for batch in batches:
        with _watched(trainer.model, batch.ids) as found:
            out = trainer.objective(batch, normalizer, trainer.scaler.factor)
            if found:
                return _first(found)
            for name, value in zip(TERMS, out.values.tolist(), strict=True):
                if value != value or value in (float("inf"), -float("inf")):
                    return f"the {name} term of the loss, of finite outputs"
            out.total.backward(trainer.scaler.factor)
            if found:
                return _first(found)
    gradients = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
    if not torch.nn.utils.get_total_norm(list(gradients.values())).isfinite():
        largest = {name: float(gradient.abs().max()) for name, gradient in gradients.items()}
        name = max(largest, key=lambda name: largest[name])
        return (
            f"the norm of gradients that are each finite, the largest {largest[name]:.1e} in {name}: "
            "float32 cannot hold their squares, so the loss weights are too large"
        )
    return f"{NOWHERE}: an operation that is not deterministic, or faulty memory"


@contextmanager
def _watched(model: nn.Module, ids: Sequence[str]) -> Iterator[list[tuple[bool, str]]]:
    """Within the block, the list receives every non-finite output and gradient in the order of its making."""
    found: list[tuple[bool, str]] = []

    def look(what: str, tensor: Tensor) -> None:
        if place := _where(what, tensor, ids):
            found.append((bool((tensor.isnan() | tensor.isposinf()).any()), place))

    def watch(name: str, module: nn.Module, output: Any) -> None:
        label = f"{name or 'the model'} ({type(module).__name__})"
        for tensor in _tensors(output):
            look(f"the output of {label}", tensor.detach())
            if tensor.requires_grad:
                tensor.register_hook(
                    lambda gradient: look(f"the gradient of the output of {label}", gradient)
                )

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            handle = module.register_forward_hook(lambda m, _, out, name=name: watch(name, m, out))
            hooks.callback(handle.remove)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                gradient_hook = parameter.register_hook(
                    lambda gradient, name=name: look(f"the gradient of {name}", gradient)
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
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
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
