"""Tensors that are sharded among ranks, torch's DTensors, to full ones and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def is_dtensor(tensor: Tensor) -> bool:
    """Whether it is sharded; importing that class takes half as long as torch."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Any) -> Tensor:
    """All shards of a DTensor together, on every rank; all ranks call it alike."""
    full: Tensor = tensor.full_tensor()
    return full


def full_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors, the sharded ones gathered on the host; all ranks call it alike."""
    return {
        name: full_tensor(value.detach()).cpu() if is_dtensor(value) else value.detach().clone()
        for name, value in tensors.items()
    }


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """This rank's shard of a full tensor, where ``like`` is sharded and of its shape; else the tensor."""
    if not is_dtensor(like) or is_dtensor(value) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = like
    full = value.to(device=like.device, dtype=like.dtype)
    return distribute_tensor(full, sharded.device_mesh, sharded.placements, src_data_rank=None)


def load_full_state_dict(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model, sharded or not, the weights of a state dict of full tensors."""
    own = model.state_dict()
    model.load_state_dict(
        {name: shard_like(value, own[name]) if name in own else value for name, value in weights.items()}
    )
