"""What a run holds, as tests compare it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ttsfast.training.resume import Stateful
from ttsfast.training.trainer import Trainer


def tensors_of(component: Stateful) -> dict[str, Tensor]:
    """The tensors of its state, copied."""
    state: dict[str, Any] = component.state_dict()
    return {name: value.detach().clone() for name, value in state.items() if isinstance(value, Tensor)}


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor that a step moves, copied; the random streams apart."""
    components = {"model": trainer.model, **trainer.checkpointer.components}
    del components["random"]
    return {
        f"{name} {key}": value
        for name, component in components.items()
        for key, value in tensors_of(component).items()
    }


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether both hold the same, NaN nowhere."""
    assert a
    assert all(value.isfinite().all() for value in a.values())
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
