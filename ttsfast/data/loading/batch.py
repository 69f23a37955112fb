"""One padded batch, and the collate function that makes it from ragged utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ttsfast import native
from ttsfast.data.features.tracks import NAMES
from ttsfast.data.loading.utterance_like import UtteranceLike, as_utterance
from ttsfast.data.store.utterance import Utterance
from ttsfast.errors import InputError
from ttsfast.terms.masks import valid_mask

Lengths = TypeVar("Lengths", int, np.ndarray)


TEXT_MULTIPLE = 8
"""Symbols are padded to a multiple of it: a row of attention weights is then whole accesses of 16 bytes."""


@dataclass
class Batch:
    """B utterances padded to T frames and N symbols."""

    ids: tuple[str, ...]
    text: Tensor
    """(B, N) int64, padded with 0 to a multiple of TEXT_MULTIPLE"""
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
    frame_mask: Tensor | None = None
    """(B, T) bool: an utterance's own frames; only where ``targets`` were asked for"""
    stop_targets: Tensor | None = None
    """(B, T) float32: 1 from the last own frame on, never for a truncated utterance; as frame_mask"""
    pitch: Tensor | None = None
    """(B, T) float32 Hz, 0 where unvoiced and as padding; only where the utterances have it"""
    energy: Tensor | None = None
    """(B, T) float32, padded with 0; only where the utterances have it"""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """With every tensor on ``device``; the batch itself where all are there."""
        device = torch.device(device)
        moved: dict[str, Any] = {
            k: v.to(device, non_blocking=non_blocking)
            for k, v in self.tensors().items()
            if v.device != device
        }
        return replace(self, **moved) if moved else self

    def pin_memory(self) -> Batch:
        """Copy every tensor to page-locked memory (also what ``DataLoader(pin_memory=True)`` calls)."""
        pinned: dict[str, Any] = {k: v.pin_memory() for k, v in self.tensors().items()}
        return replace(self, **pinned)

    def tensors(self) -> dict[str, Tensor]:
        """The tensor fields by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


def padded_length(longest: Lengths, tail: int, multiple: int) -> Lengths:
    """Frames to pad to: room for ``tail`` frames after the longest utterance, in whole multiples; a number,
    or an array of them.

    The tail makes a batch's stop targets independent of who else is in the batch, so accumulation over
    micro-batches equals one large batch exactly.
    """
    return -(-(longest + tail) // multiple) * multiple


def collate(
    items: Sequence[UtteranceLike],
    *,
    pad_value: np.ndarray | float = 0.0,
    tail_frames: int = 8,
    pad_to_multiple: int = 8,
    dtype: torch.dtype = torch.float32,
    targets: bool = False,
) -> Batch:
    """Pad utterances into one :class:`Batch`; usable as ``DataLoader(collate_fn=ttsfast.collate)``.

    ``items`` are utterances, mappings or tuples: see ``utterance_like.UtteranceLike``. ``pad_value`` is
    silence in normalised units, one value or one per bin (C,). The frames T are the longest utterance's, as
    :func:`padded_length` rounds them; the symbols N are the longest text's, rounded up to a multiple of
    ``TEXT_MULTIPLE``. ``targets`` asks for ``frame_mask`` and ``stop_targets`` too, which
    :class:`ttsfast.TTSLoss` does without.

    Raises InputError, naming the utterance, for an item of another form, for arrays that are not (T, C) and
    (N,), for another number of bins than the first utterance's, or for no utterances at all.
    """
    if not items:
        raise InputError("collate: no utterances to make a batch of; check the sampler for empty batches")
    utterances = [as_utterance(item, place) for place, item in enumerate(items)]
    bins = _checked_bins(utterances)
    mel_lengths = [u.mel.shape[0] for u in utterances]
    text_lengths = [len(u.text) for u in utterances]
    frames = padded_length(max(mel_lengths), tail_frames, pad_to_multiple)
    mel = torch.empty(len(utterances), frames, bins)
    silence = np.ascontiguousarray(np.broadcast_to(np.asarray(pad_value, dtype=np.float32), (bins,)))
    pad_frames([u.mel for u in utterances], mel.numpy(), silence)
    text = np.zeros((len(utterances), padded_length(max(text_lengths), 0, TEXT_MULTIPLE)), dtype=np.int64)
    for row, utterance in zip(text, utterances, strict=True):
        row[: len(utterance.text)] = utterance.text
    lengths = torch.tensor(mel_lengths)
    truncated = torch.tensor([u.truncated for u in utterances])
    return Batch(
        ids=tuple(u.id for u in utterances),
        text=torch.from_numpy(text),
        text_lengths=torch.tensor(text_lengths),
        mel=mel.to(dtype),
        mel_lengths=lengths,
        speaker=torch.tensor([u.speaker for u in utterances]),
        truncated=truncated,
        frames=sum(mel_lengths),
        **(frame_targets(lengths, truncated, frames) if targets else {}),
        **_tracks(utterances, frames),
    )


def pad_track(tracks: Sequence[np.ndarray], frames: int) -> Tensor:
    """Ragged (T_b,) tracks as (B, T) float32, 0 after T_b."""
    padded = np.zeros((len(tracks), frames), dtype=np.float32)
    for row, track in zip(padded, tracks, strict=True):
        row[: len(track)] = track
    return torch.from_numpy(padded)


def _tracks(utterances: Sequence[Utterance], frames: int) -> dict[str, Tensor]:
    found = {}
    for name in NAMES:
        held = [getattr(utterance, name) for utterance in utterances]
        if all(track is None for track in held):
            continue
        for utterance, track in zip(utterances, held, strict=True):
            if track is None:
                raise InputError(
                    f"utterance {utterance.id!r}: no {name}, which others of the batch have; give it to all "
                    "or to none"
                )
            if track.shape != utterance.mel.shape[:1] or track.dtype.kind not in "fiu":
                raise InputError(
                    f"utterance {utterance.id!r}: {name} is {track.dtype} {track.shape}, expected a number "
                    f"for each of {len(utterance.mel)} frames"
                )
        found[name] = pad_track(held, frames)
    return found


def frame_targets(lengths: Tensor, truncated: Tensor, frames: int) -> dict[str, Tensor]:
    """``Batch.frame_mask`` and ``Batch.stop_targets`` (B, frames) of clips (B,), on their device."""
    stop = ~valid_mask(lengths - 1, frames) & ~truncated[:, None]
    return {"frame_mask": valid_mask(lengths, frames), "stop_targets": stop.float()}


def pad_frames(sources: Sequence[np.ndarray], out: np.ndarray, pad: np.ndarray) -> None:
    """Copy ragged (T_b, C) float arrays into ``out`` (B, T, C) float32; frames after T_b become ``pad`` (C,).

    One pass of the C++ extension without the interpreter lock, or numpy: the same bytes.
    """
    if native.core is not None:
        native.core.gather_frames([_gatherable(source) for source in sources], out, pad)
        return
    for row, source in zip(out, sources, strict=True):
        row[: len(source)] = source
        row[len(source) :] = pad


def _gatherable(source: np.ndarray) -> np.ndarray:
    """float16 and float32 go as they are; anything else, and any strided array, is copied first."""
    dtype = source.dtype if source.dtype in (np.float16, np.float32) else np.dtype(np.float32)
    return np.ascontiguousarray(source, dtype=dtype)


def _checked_bins(utterances: Sequence[Utterance]) -> int:
    bins = utterances[0].mel.shape[-1] if utterances[0].mel.ndim else 0
    for utterance in utterances:
        if utterance.mel.ndim != 2 or utterance.mel.shape[1] != bins or bins == 0:
            raise InputError(
                f"utterance {utterance.id!r}: mel has shape {utterance.mel.shape}, expected (T, {bins}) "
                f"as in {utterances[0].id!r}; frames come first, and all features from one mel contract"
            )
        if np.ndim(utterance.text) != 1:
            raise InputError(
                f"utterance {utterance.id!r}: text has shape {np.shape(utterance.text)}, expected (N,) "
                "symbol ids; encode the text first"
            )
    return bins
