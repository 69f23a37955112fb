"""One padded batch, and the collate function that makes it from ragged utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass
class Utterance:
    """One utterance's features as they leave the store."""

    id: str
    text: np.ndarray
    """(N,) int64 symbol ids"""
    mel: np.ndarray
    """(T, C) float16 or float32, normalised"""
    speaker: int = 0
    truncated: bool = False
    """The recording was cut before the speaker finished: it teaches no stop."""


@dataclass
class Batch:
    """B utterances padded to T frames and N symbols."""

    ids: tuple[str, ...]
    text: Tensor
    """(B, N) int64, padded with 0"""
    text_lengths: Tensor
    """(B,) int64"""
    mel: Tensor
    """(B, T, C) normalised, padded with silence"""
    mel_lengths: Tensor
    """(B,) int64"""
    speaker: Tensor
    """(B,) int64"""
    truncated: Tensor
    """(B,) bool"""
    frames: int
    """Valid frames in the batch, on the host: the trainer's normaliser needs no synchronisation."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Copy every tensor to ``device``."""
        return replace(self, **{k: v.to(device, non_blocking=non_blocking) for k, v in self.tensors().items()})

    def pin_memory(self) -> Batch:
        """Copy every tensor to page-locked memory (also what ``DataLoader(pin_memory=True)`` calls)."""
        return replace(self, **{k: v.pin_memory() for k, v in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """The tensor fields by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def padded_length(longest: int, tail: int, multiple: int) -> int:
    """Frames to pad to: room for ``tail`` frames after the longest utterance, in whole multiples.

    The tail makes a batch's stop targets independent of who else is in the batch, so accumulation over
    micro-batches equals one large batch exactly.
    """
    return -(-(longest + tail) // multiple) * multiple


def collate(
    utterances: Sequence[Utterance],
    *,
    pad_value: np.ndarray | float = 0.0,
    tail_frames: int = 8,
    pad_to_multiple: int = 8,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Pad utterances into one :class:`Batch`; usable as ``DataLoader(collate_fn=ttsfast.collate)``.

    ``pad_value`` is silence in normalised units, one value or one per bin (C,).
    """
    longest = max(u.mel.shape[0] for u in utterances)
    frames = padded_length(longest, tail_frames, pad_to_multiple)
    bins = utterances[0].mel.shape[1]
    mel = np.empty((len(utterances), frames, bins), dtype=np.float32)
    text = np.zeros((len(utterances), max(len(u.text) for u in utterances)), dtype=np.int64)
    for row, utterance in enumerate(utterances):
        valid = utterance.mel.shape[0]
        mel[row, :valid] = utterance.mel
        mel[row, valid:] = pad_value
        text[row, : len(utterance.text)] = utterance.text
    mel_lengths = [u.mel.shape[0] for u in utterances]
    return Batch(
        ids=tuple(u.id for u in utterances),
        text=torch.from_numpy(text),
        text_lengths=torch.tensor([len(u.text) for u in utterances]),
        mel=torch.from_numpy(mel).to(dtype),
        mel_lengths=torch.tensor(mel_lengths),
        speaker=torch.tensor([u.speaker for u in utterances]),
        truncated=torch.tensor([u.truncated for u in utterances]),
        frames=sum(mel_lengths),
    )
