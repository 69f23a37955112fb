"""The gradient's norm, and the one multiplication that unscales, damps and clips it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def norm_of(gradients: Sequence[Tensor], scale: float) -> Tensor:
    """() norm of all gradients together, as it is without the loss scaler's ``scale``."""
    return torch.nn.utils.get_total_norm(gradients) / scale


def clip_(gradients: Sequence[Tensor], norm: Tensor, limit: float, scale: float, damping: Tensor) -> None:
    """Clip to ``limit``, then damp and take the loss scaler's ``scale`` off, in place.

    Not-finite gradients are left as bad as they are: they are for the caller to see, never to clean.
    """
    clip = (limit / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(list(gradients), clip * damping / scale)
