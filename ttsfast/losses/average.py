"""What the terms are averaged over: lengths within their axes, and the counts that divide their sums."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ttsfast.terms.counts import Counts, counts_by_utterance, resolve_normalizer
from ttsfast.terms.spec import LossInputs, LossSpec


class Lengths(NamedTuple):
    """(B,) int64 each, within their axes."""

    mel: Tensor
    steps: Tensor
    text: Tensor | None
    """None where no tensor has an axis of symbols."""


def lengths_of(inputs: LossInputs) -> Lengths:
    """The lengths of a call, clamped to its axes."""
    layers = [*inputs.attention]
    if inputs.alignment is not None:
        layers.append(inputs.alignment.log_probs)
    steps = [layer.shape[-2] for layer in layers]
    if inputs.stop_logits is not None:
        steps.append(inputs.stop_logits.shape[1])
    symbols = [layer.shape[-1] for layer in layers]
    text = inputs.text_lengths
    return Lengths(
        inputs.mel_lengths.long().clamp(0, inputs.target.shape[1]),
        # Not by min's default, which compilers of sizes that vary do not know.
        inputs.step_lengths.long().clamp(min=0, max=min(steps) if steps else None),
        text.long().clamp(0, min(symbols)) if symbols and text is not None else None,
    )


def lengths_outside(inputs: LossInputs, kept: Lengths) -> Tensor:
    """() int64, how many lengths of a call lie outside their axes; ``kept`` are those clamped to them."""
    pairs = [(inputs.mel_lengths, kept.mel)]
    if kept.text is not None or inputs.stop_logits is not None:
        pairs.append((inputs.step_lengths, kept.steps))
    if kept.text is not None and inputs.text_lengths is not None:
        pairs.append((inputs.text_lengths, kept.text))
    return torch.stack([(given != within).sum() for given, within in pairs]).sum()


class Average:
    """Divides sums per utterance as ``normalization`` and the normaliser say.

    Args:
        spec: resolved options.
        inputs: of the call.
        lengths: its own, within their axes.
        normalizer: as in :meth:`ttsfast.losses.module.TTSLoss.forward`.
    """

    def __init__(
        self,
        spec: LossSpec,
        inputs: LossInputs,
        lengths: Lengths,
        normalizer: Counts | Tensor | float | None,
    ) -> None:
        self.own = counts_by_utterance(
            lengths.mel,
            lengths.steps,
            inputs.truncated,
            stop_tail_frames=spec.stop_tail_frames,
            steps=None if inputs.stop_logits is None else inputs.stop_logits.shape[1],
        )
        own = [part.sum() for part in self.own]
        self.totals = resolve_normalizer(normalizer, own, spec.normalization, inputs.compute_dtype())
        self.by_utterance = spec.normalization == "utterance"

    def __call__(self, sums: Tensor, unit: str) -> Tensor:
        """Average of ``sums`` (B,) per ``unit``, a field of :class:`Counts`."""
        if self.by_utterance:
            return (sums / getattr(self.own, unit).clamp(min=1)).sum() / self.totals.utterances
        return sums.sum() / getattr(self.totals, unit)
