"""What lengths say about padded axes: which elements are valid, and which steps are trained as stops."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """(B, size) bool, True below each of the ``lengths`` (B,)."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


def stop_tail(step_lengths: Tensor, truncated: Tensor | None, tail_frames: int, steps: int | None) -> Tensor:
    """(B,) tail steps after each utterance: none after an empty or truncated one, none past S."""
    room = torch.full_like(step_lengths, tail_frames)
    if steps is not None:
        room = room.minimum(steps - step_lengths)
    without = step_lengths == 0 if truncated is None else (step_lengths == 0) | truncated
    return torch.where(without, torch.zeros_like(room), room)


def stop_targets(
    step_lengths: Tensor, truncated: Tensor | None, tail_frames: int, steps: int
) -> tuple[Tensor, Tensor]:
    """(positive, included), each (B, S) bool: target 1 from the last valid step through the tail."""
    tail = stop_tail(step_lengths, truncated, tail_frames, steps)
    included = valid_mask(step_lengths + tail, steps)
    positive = included & ~valid_mask(step_lengths - 1, steps)
    if truncated is not None:
        positive = positive & ~truncated.unsqueeze(1)
    return positive, included
