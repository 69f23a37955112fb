"""Tensors of which each rank may hold a part (DTensors), beside plain ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast import native
from ttsfast.losses.sweep import READS_TENSORS


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors, those that are parted among ranks gathered on the host; all ranks call it alike."""
    return {
        name: _gathered(value.detach()).cpu() if is_parted(value) else value.detach().clone()
        for name, value in tensors.items()
    }


def parted_like(value: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor, where ``like`` is parted and of its shape; else the tensor."""
    if not is_parted(like) or is_parted(value) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    there: Any = like
    whole_value = value.to(device=like.device, dtype=like.dtype)
    return distribute_tensor(whole_value, there.device_mesh, there.placements, src_data_rank=None)


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """() norm of all together, the parts on other ranks included."""
    if not any(map(is_parted, tensors)):
        return _norm(tensors)
    kinds = ([t for t in tensors if is_parted(t)], [t for t in tensors if not is_parted(t)])
    norms = [_norm(kind) for kind in kinds if kind]
    return _norm([_gathered(norm) if is_parted(norm) else norm for norm in norms])


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """What ``torch.nn.utils.get_total_norm`` gives, which first sorts tensors by device and type: that takes
    as long as the norm of a small model. On a CPU the extension reads them on all threads."""
    if not tensors:
        return torch.zeros(())
    if READS_TENSORS and tensors[0].is_cpu:
        assert native.core is not None
        result = torch.empty((), dtype=torch.float32, device="cpu")
        if native.core.norm(list(tensors), result, torch.get_num_threads()):
            return result
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


def is_parted(tensor: Tensor) -> bool:
    """Whether it is a DTensor; importing that class takes half as long as torch."""
    return hasattr(tensor, "full_tensor")


def _gathered(tensor: Any) -> Tensor:
    gathered: Tensor = tensor.full_tensor()
    return gathered


def load_whole(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model, parted or not, the weights of a state dict of whole tensors."""
    own = model.state_dict()
    model.load_state_dict(
        {name: parted_like(value, own[name]) if name in own else value for name, value in weights.items()}
    )
