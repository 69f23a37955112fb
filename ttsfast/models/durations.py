"""How long each symbol lasts: found in a recording, predicted for speech, and what follows for the steps."""

from __future__ import annotations

import torch
from torch import Tensor

from ttsfast.alignment.functional import monotonic_alignment


def found_durations(scores: Tensor, text_lengths: Tensor, step_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Durations on the best monotonic path, and whether there is one.

    An utterance of fewer steps than symbols has none; it is read at an even pace, past some of its symbols.

    Args:
        scores: (B, S, N)
        text_lengths, step_lengths: (B,)

    Returns:
        (B, N) int64 in steps, which add up to ``step_lengths``, and (B,) bool.
    """
    durations = monotonic_alignment(scores, text_lengths, step_lengths)
    assert isinstance(durations, Tensor)
    alignable = step_lengths >= text_lengths
    n = torch.arange(1, scores.shape[2] + 1, device=scores.device).minimum(text_lengths[:, None])
    ends = n * step_lengths[:, None] // text_lengths[:, None]
    return torch.where(alignable[:, None], durations, lasting(ends)), alignable


def spoken_durations(log_durations: Tensor, valid: Tensor, speed: Tensor | float, most: Tensor) -> Tensor:
    """Durations (B, N) int64 in steps that add up, to within half a step, to what was predicted.

    Where each symbol ends is rounded, and not how long it lasts, so that errors do not add up. At a speed of
    1 every symbol lasts a step at least; at higher ones short symbols may be passed over.

    Args:
        log_durations: (B, N)
        valid: (B, N) bool
        speed: 2 is twice as fast.
        most: () steps that a symbol may last.
    """
    lasts = log_durations.exp().clamp(min=1.0).minimum(most.to(log_durations.dtype)) * valid
    return lasting((lasts.cumsum(1) / speed + 0.5).floor().long())


def lasting(ends: Tensor) -> Tensor:
    """(B, N) from where symbols end to how long they last."""
    return torch.cat([ends[:, :1], ends[:, 1:] - ends[:, :-1]], 1)


def places(durations: Tensor, path: Tensor) -> Tensor:
    """(B, S, 2) float32: how much of its symbol has passed at a step, and how long that symbol lasts (log).

    Args:
        durations: (B, N)
        path: (B, S, N) bool, of ``durations``.
    """
    starts = durations.cumsum(1) - durations
    t = torch.arange(path.shape[1], device=path.device)
    # Beyond the end there is no symbol: as if there were one of a step.
    lasts = (path * durations[:, None]).sum(-1).clamp(min=1).float()
    since = (t - (path * starts[:, None]).sum(-1)).float()
    passed = torch.where(path.any(-1), (since + 0.5) / lasts, 0.5)
    return torch.stack([passed, lasts.log()], -1)
