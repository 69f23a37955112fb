"""What the terms are divided by, and how accumulation and many ranks share it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ttsfast.terms.masks import stop_tail


class Counts(NamedTuple):
    """The element counts that normalise the terms: of a batch, or of everything one update sees.

    Numbers or () device tensors. Passed as ``normalizer=`` with the sums over all micro-batches and
    ranks, they make the parts of a batch add up to the whole, value and gradient.
    """

    frames: Tensor | float
    """Valid mel frames."""
    stop_steps: Tensor | float
    """Valid steps of the stop axis and the tail steps after them."""
    attention_steps: Tensor | float
    """Valid decoder steps."""
    utterances: Tensor | float
    """Utterances with at least one valid frame."""


def sum_counts(parts: Iterable[Counts]) -> Counts:
    """Add counts field by field."""
    return Counts(*(sum(column[1:], start=column[0]) for column in zip(*parts, strict=True)))


def count(
    mel_lengths: Tensor,
    step_lengths: Tensor | None = None,
    truncated: Tensor | None = None,
    *,
    stop_tail_frames: int = 8,
    steps: int | None = None,
) -> Counts:
    """Counts of one batch.

    Args:
        mel_lengths: (B,) valid frames.
        step_lengths: (B,) valid decoder steps; ``mel_lengths`` when None (r = 1).
        truncated: (B,) bool; a truncated utterance has no tail.
        stop_tail_frames: tail of the stop term, in steps.
        steps: S, the padded length of the stop axis, which cuts tails short; None when every
            utterance has room for its whole tail.
    """
    # Small integer types would overflow where lengths are added up.
    own = counts_by_utterance(
        mel_lengths.long(),
        (mel_lengths if step_lengths is None else step_lengths).long(),
        truncated,
        stop_tail_frames=stop_tail_frames,
        steps=steps,
    )
    return Counts(*(part.sum() for part in own))


class UtteranceCounts(NamedTuple):
    """:class:`Counts` of each utterance, (B,) int64."""

    frames: Tensor
    stop_steps: Tensor
    attention_steps: Tensor
    utterances: Tensor


def counts_by_utterance(
    mel_lengths: Tensor,
    step_lengths: Tensor,
    truncated: Tensor | None,
    *,
    stop_tail_frames: int,
    steps: int | None,
) -> UtteranceCounts:
    """The counts of each utterance; arguments as in :func:`count`."""
    tail = stop_tail(step_lengths, truncated, stop_tail_frames, steps)
    return UtteranceCounts(mel_lengths, step_lengths + tail, step_lengths, (mel_lengths > 0).long())


class Divisors(NamedTuple):
    """:class:`Counts` to divide by: () tensors of the compute dtype, each at least 1."""

    frames: Tensor
    stop_steps: Tensor
    attention_steps: Tensor
    utterances: Tensor


def resolve_normalizer(
    normalizer: Counts | Tensor | float | None,
    own: Sequence[Tensor],
    normalization: str,
    dtype: torch.dtype,
) -> Divisors:
    """What to divide by, given this call's own counts as () tensors in the order of :class:`Counts`.

    A scalar is the global number of valid frames (``"frame"``) or of utterances (``"utterance"``):
    the other counts are taken to grow in proportion.
    """
    if isinstance(normalizer, tuple):
        parts = [_scalar(part, own[0].device, dtype) for part in normalizer]
    else:
        parts = [part.to(dtype) for part in own]
        if normalizer is not None:
            known = Counts._fields.index("utterances" if normalization == "utterance" else "frames")
            total = _scalar(normalizer, own[0].device, dtype)
            growth = total / parts[known].clamp(min=1)
            parts = [total if i == known else part * growth for i, part in enumerate(parts)]
    return Divisors(*(part.clamp(min=1) for part in parts))


def _scalar(value: Tensor | float, device: torch.device, dtype: torch.dtype) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(device=device, dtype=dtype).reshape(())
    return torch.full((), float(value), dtype=dtype, device=device)
