"""What fused backends share in their backward pass: gradients that were written before it began."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

graph_is_kept: Callable[[], bool] = getattr(
    torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True
)
"""Whether the backward pass under way may be repeated (``retain_graph``); True where torch does not tell."""


def is_plain(tensor: Tensor) -> bool:
    """Whether its memory can be read directly: no DTensor or other subclass, no sparse layout."""
    return type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout == torch.strided


class Once(torch.autograd.Function):
    """A gradient that refuses to be differentiated: silence would be a wrong second derivative.

    ``inputs`` are what it depends on: a search for them, too, must come through here.
    """

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Tensor:
        raise RuntimeError("the fused loss is differentiable once; use backend='torch' to go further")
