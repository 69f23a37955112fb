"""The norm of all gradients together, and the one division that unscales, damps and clips them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ttsfast import native
from ttsfast.training.distributed.sharded_tensors import full_tensor, is_dtensor


def gradient_norm(gradients: Sequence[Tensor], scale: Tensor | None) -> Tensor:
    """() norm of all gradients together, as it is without the loss scaler's ``scale``."""
    norm = total_norm(gradients)
    return norm if scale is None else norm / scale


def gradient_divisor(norm: Tensor, limit: float, scale: Tensor | None, damping: Tensor) -> Tensor:
    """() float32: what to divide gradients by to clip them to ``limit``, damp them (by so much) and take the
    loss scaler's ``scale`` off.
    """
    divisor = (norm / limit).clamp(min=1.0) * damping
    return (divisor if scale is None else divisor * scale).float()


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """() norm of all together, the shards on other ranks included."""
    if not any(map(is_dtensor, tensors)):
        return _norm(tensors)
    kinds = ([t for t in tensors if is_dtensor(t)], [t for t in tensors if not is_dtensor(t)])
    norms = [_norm(kind) for kind in kinds if kind]
    return _norm([full_tensor(norm) if is_dtensor(norm) else norm for norm in norms])


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """What ``torch.nn.utils.get_total_norm`` gives, which first sorts tensors by device and type: that takes
    as long as the norm of a small model. On a CPU the extension reads them on all threads."""
    if not tensors:
        return torch.zeros(())
    if native.core is not None and tensors[0].is_cpu:
        result = torch.empty((), dtype=torch.float32, device="cpu")
        if native.with_torch().norm(list(tensors), result, torch.get_num_threads()):
            return result
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
