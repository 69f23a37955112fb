"""The terms of a learned alignment, by whichever backend computes the forward-sum loss.

``alignment`` is the forward-sum loss of ``log_probs + prior`` (Badlani et al., 2021), each utterance's
divided by its symbols and averaged over utterances, under either normalisation. ``binarization`` is the
negative logarithm of the soft alignment on the hard path (as FastPitch has it), averaged over steps; the soft
alignment is the softmax of the same scores over the text.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttsfast.alignment.functional import forward_sum_loss
from ttsfast.losses.average import Average, Lengths
from ttsfast.terms.masks import valid_mask
from ttsfast.terms.spec import AlignmentInputs

BLANK_LOG_PROB = -1.0
"""As RAD-TTS and FastPitch have it."""


def terms(
    alignment: AlignmentInputs,
    lengths: Lengths,
    average: Average,
    active: tuple[bool, ...],
    dtype: torch.dtype,
    backend: str,
) -> list[Tensor | None]:
    """The alignment and binarization terms, () each; None for the one without a path.

    Args:
        alignment: checked tensors.
        lengths, average: of the call.
        active: whether each of the two sends a gradient.
        dtype: to compute in.
        backend: of the forward-sum loss, of :data:`ttsfast.alignment.backends.NAMES`.
    """
    assert lengths.text is not None
    scores = alignment.log_probs.to(dtype)
    if alignment.prior is not None:
        scores = scores + alignment.prior.to(dtype)
    sums = forward_sum_loss(
        scores if active[0] else scores.detach(),
        lengths.text,
        lengths.steps,
        BLANK_LOG_PROB,
        "none",
        backend=backend,
    )
    found: list[Tensor | None] = [average(sums / lengths.text.clamp(min=1), "utterances"), None]
    if alignment.path is not None:
        steps = path_nats(scores if active[1] else scores.detach(), alignment.path, lengths)
        found[1] = average(steps.sum(1), "attention_steps")
    return found


def path_nats(scores: Tensor, path: Tensor, lengths: Lengths) -> Tensor:
    """(B, S) negative logarithm of the softmax of ``scores`` (B, S, N) over the valid text, at the symbol
    where the path is; 0 where it is nowhere, and in padding."""
    _, steps, symbols = scores.shape
    if symbols == 0:
        # Nothing, but differentiable.
        return scores.sum(2)
    assert lengths.text is not None
    rows = valid_mask(lengths.steps, steps) & (lengths.text > 0).unsqueeze(1)
    valid = rows.unsqueeze(2) & valid_mask(lengths.text, symbols).unsqueeze(1)
    # Rows of padding are of any finite number: a softmax over nothing would send back NaN.
    filling = torch.where(rows, -torch.inf, 0.0).to(scores.dtype).unsqueeze(2)
    soft = torch.where(valid, scores, filling).log_softmax(2)
    symbol, spoken = _symbols(path, steps)
    nats = -soft.gather(2, symbol.unsqueeze(2)).squeeze(2)
    return torch.where(rows & spoken, nats, 0.0)


def _symbols(path: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """(B, ``steps``) the symbol of each step, int64, and whether it has one."""
    if path.dim() == 3:
        return path.int().argmax(2), path.any(2)
    ends = path.long().cumsum(1)
    t = torch.arange(steps, device=path.device).expand(len(path), steps).contiguous()
    symbol = torch.searchsorted(ends, t, right=True)
    return symbol.clamp(max=path.shape[1] - 1), t < ends[:, -1:]


def unalignable(lengths: Lengths) -> Tensor:
    """() int64, utterances of fewer steps than symbols."""
    assert lengths.text is not None
    return (lengths.steps < lengths.text).sum()
