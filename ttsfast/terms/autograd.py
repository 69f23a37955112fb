"""What fused backends and autograd agree on: tensors they can read, gradients of the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

graph_is_kept: Callable[[], bool] = getattr(
    torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True
)
"""Whether the backward pass under way may be repeated (``retain_graph``); True where torch does not tell."""


_PLAIN = (Tensor, torch.nn.Parameter)
# Private names of torch, and what errs on the safe side where a version has none of that name.
_transforms_active: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
_is_wrapped: Callable[[Tensor], bool] = getattr(
    torch._C._functorch, "is_functorch_wrapped_tensor", lambda tensor: _transforms_active()
)
_is_zero: Callable[[Tensor], bool] = getattr(
    Tensor, "_is_zerotensor", lambda tensor: tensor.numel() > 0 and tensor.data_ptr() == 0
)


def in_forward_mode() -> bool:
    """Whether derivatives may be computed forwards, which a tensor does not show."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def why_not_plain(tensors: Iterable[Tensor | None]) -> str | None:
    """Why a fused backend cannot read these tensors' memory, or cannot differentiate them as asked; None when
    it can. No DTensor or other subclass, no sparse layout, no wrapper of ``torch.func``, no lazy sign or
    zero, no forward-mode derivative.
    """
    forward_mode = in_forward_mode()
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in _PLAIN or tensor.layout != torch.strided:
            return f"it reads plain tensors, not {type(tensor).__name__}; use backend='torch'"
        if _is_wrapped(tensor):
            return "it does not run inside transforms of torch.func; use backend='torch'"
        if tensor.is_neg() or _is_zero(tensor):
            return "it reads memory as it lies, and a tensor is a lazy view: call .resolve_neg() or .clone()"
        if forward_mode and forward_ad.unpack_dual(tensor).tangent is not None:
            return "it has no forward-mode derivative; use backend='torch'"
    return None


class FusedFunction(torch.autograd.Function):
    """A function that fused backends call after :func:`why_not_plain`."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Without what torch does first, as much as the rest together, for the sake of ``torch.func``."""
        if _transforms_active():
            return super().apply(*args)
        plain: Any = super(torch.autograd.Function, cls)
        return plain.apply(*args)


class OnceDifferentiable(torch.autograd.Function):
    """A gradient that refuses to be differentiated: silence would be a wrong second derivative.

    ``inputs`` are what it depends on: a search for them, too, must come through here.
    """

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Tensor:
        raise RuntimeError("the fused loss is differentiable once; use backend='torch' to go further")


def differentiated_again() -> RuntimeError:
    """For a backward pass whose gradients an earlier one has given away."""
    return RuntimeError(
        "the loss is differentiated a second time, after its gradients were handed over: "
        "pass retain_graph=True to the first backward"
    )
