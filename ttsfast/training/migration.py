"""Checkpoint formats, and how an older one becomes today's.

1: one optimiser; torch's GradScaler.
2: a list of optimisers; our own loss scaler; averaged weights; steps that are not reported yet; the random
   streams of Python and numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

FORMAT = 2


def migrate(state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Bring what was read from a checkpoint, ``state["format"]`` in 1..FORMAT, to :data:`FORMAT` in place."""
    while state["format"] < FORMAT:
        _TO_NEXT[state["format"]](state, tensors)
        state["format"] += 1


def _from_1(state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("optimizer.")]:
        tensors[name.replace("optimizer.", "optimizer.0.", 1)] = tensors.pop(name)
    state["optimizer"] = [state["optimizer"]["param_groups"]]
    scaler = state["scaler"]
    state["scaler"] = {
        "scale": scaler.get("scale", 1.0),
        "good_steps": scaler.get("_growth_tracker", 0),
        "skipped": 0,
    }
    state["unreported"] = []


_TO_NEXT: dict[int, Callable[[dict[str, Any], dict[str, Tensor]], None]] = {1: _from_1}
