"""What happens inside a model during a call: what is dropped, and what activations say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ttsfast.data.loading.batch import Batch
from ttsfast.models.checks.probe import DROPOUTS, masks

_RECTIFIERS = {
    F.relu: "ReLU",
    torch.relu: "ReLU",
    Tensor.relu: "ReLU",
    F.relu_: "ReLU",
    torch.relu_: "ReLU",
    F.gelu: "GELU",
    F.silu: "SiLU",
    F.elu: "ELU",
}
_SQUASHERS = {torch.tanh: 0.0, Tensor.tanh: 0.0, torch.sigmoid: 0.5, Tensor.sigmoid: 0.5}
"""With their middle; they end at 1."""
_MASKED = (
    F.scaled_dot_product_attention,
    F.multi_head_attention_forward,
    Tensor.masked_fill,
    Tensor.masked_fill_,
    torch.masked_fill,
)


class Watch(TorchFunctionMode):
    """Sees the calls of torch's functions; ``where`` has the name of the module that makes them last."""

    def __init__(self, where: list[str], lengths: set[int], valid: dict[str, Tensor]) -> None:
        super().__init__()
        self._where, self._lengths, self._valid = where, lengths, valid
        self.inverted: dict[str, str] = {}
        """By module, the mask that is the wrong way round."""
        self.dropped: dict[str, str] = {}
        """By module, what it drops."""
        self.shares: dict[str, float] = {}
        """By module, the share that it drops."""
        self.dead: dict[str, float] = {}
        """By activation, the share of its units that were 0 throughout."""
        self.saturated: dict[str, float] = {}
        """By activation, the share of its values that lay at an end."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, module = kwargs or {}, self._where[-1] or "the model"
        if func in DROPOUTS:
            p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            if kwargs.get("training", args[2] if len(args) > 2 else True) and p:
                self.dropped.setdefault(module, f"{DROPOUTS[func]} of {p:g} with training=True")
                self.shares[module] = max(p, self.shares.get(module, 0.0))
        if func in _MASKED:
            self._look_at_mask(func, module, args, kwargs)
        output = func(*args, **kwargs)
        # The same layer on other inputs, as in a decoder step by step: dead only where it always is.
        if func in _RECTIFIERS and output.dim() > 1:
            place = f"the {_RECTIFIERS[func]} of {module}"
            self.dead[place] = min(self._share_dead(output.detach()), self.dead.get(place, 1.0))
        elif func in _SQUASHERS and output.dim() > 1:
            middle, place = _SQUASHERS[func], f"the {func.__name__} of {module}"
            at_end = (output.detach() - middle).abs() > 0.999 * (1.0 - middle)
            self.saturated[place] = min(float(at_end.float().mean()), self.saturated.get(place, 1.0))
        return output

    def _look_at_mask(self, func: Any, module: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A mask that is True where it should not be, by what the function makes of it."""
        if func is F.scaled_dot_product_attention:
            mask, attends = kwargs.get("attn_mask", args[3] if len(args) > 3 else None), True
        elif func is F.multi_head_attention_forward:
            mask, attends = kwargs.get("key_padding_mask"), False
        else:
            value = kwargs.get("value", args[2] if len(args) > 2 else 0.0)
            if not (isinstance(value, (int, float)) and value < -1e3):
                return
            mask, attends = kwargs.get("mask", args[1] if len(args) > 1 else None), False
        if not isinstance(mask, Tensor) or mask.dtype is not torch.bool or mask.dim() < 2:
            return
        rows = mask.flatten(1, -2).transpose(0, 1) if mask.dim() > 2 else mask[None]
        for what, valid in self._valid.items():
            wrong = ~valid if attends else valid
            if rows.shape[1:] == valid.shape and bool((rows == wrong).all()):
                self.inverted.setdefault(module, f"{func.__name__} is given that of the {what} inverted")

    def _share_dead(self, output: Tensor) -> float:
        """Of the units, which lie along the axis that is as long as no sequence of the batch."""
        axes = [a for a in range(1, output.dim()) if output.shape[a] not in self._lengths]
        units = output.transpose(0, axes[-1] if axes else -1).flatten(1)
        return 1.0 - float((units.abs() > 1e-6).any(dim=1).float().mean())


@contextmanager
def watched(model: nn.Module, batch: Batch, r: int) -> Iterator[Watch]:
    """Within it calls of ``model`` with ``batch`` are seen; ``r`` is its reduction factor."""
    where, handles = [""], []

    def enter(name: str, *_: Any) -> None:
        where.append(name)

    def leave(*_: Any) -> None:
        where.pop()

    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(partial(enter, name)),
            module.register_forward_hook(leave),
        ]
    frames = batch.mel.shape[1]
    lengths = {len(batch.ids), frames, -(-frames // r), batch.text.shape[1]}
    text, mel = masks(batch)
    try:
        with Watch(where, lengths, {"text": text, "mel": mel}) as watch:
            yield watch
    finally:
        for handle in handles:
            handle.remove()
