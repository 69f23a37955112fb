"""Whether an exported ParallelTTS says what the model says: for as long, and by the same mels."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch

from ttsfast.alignment.functional import path_of
from ttsfast.export.check import LONGEST, encoded_texts
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.terms.masks import valid_mask

if TYPE_CHECKING:
    from ttsfast.models.voice import Voice

ASKED = {"speed": (1.0, 1.3), "pitch": (0.0, 3.0)}
"""What is tried of each control."""
SLACK = 1e-3
"""steps by which the end of a symbol may be off before it is rounded"""


@torch.no_grad()
def compare_durations(voice: Voice, exported: Voice, texts: Sequence[str]) -> tuple[int, float]:
    """Frames compared, and the largest difference of two voices' mels; infinity where durations differ.

    A symbol's end is rounded to whole steps, so that any rounding before may move it by one. So ends are
    compared with what the model computes in float64 before it rounds them, and mels on the file's own
    durations.
    """
    model = voice.model
    assert isinstance(model, ParallelTTS)
    exact = deepcopy(model).double()
    text, lengths, speaker = encoded_texts(voice, texts)
    valid = valid_mask(lengths, text.shape[1])
    _, symbols = exact.encode_text(text, lengths, speaker)
    lasts = exact.durations(symbols, valid).exp().clamp(min=1.0)
    limit, r = min(voice.max_frames, LONGEST), model.reduction_factor
    frames, worst = 0, 0.0
    for tried in range(2):
        asked = {name: ASKED[name][tried] for name in model.controls}
        limits = {"max_frames": limit, **asked}
        theirs = exported.model.synthesize(text, lengths, speaker, **limits)  # type: ignore[operator]
        encoded, durations, mel_lengths, _ = model.plan(text, lengths, speaker, torch.tensor(limit), **asked)
        steps = theirs.attention.shape[1]
        found = theirs.attention.sum(1).long()
        ends = lasts.cumsum(1) / asked["speed"]
        off = (found.cumsum(1) - ends).abs()[valid & (ends < steps - 1)]
        if bool((off > 0.5 + SLACK).any()) or bool(((theirs.mel_lengths - mel_lengths).abs() > r).any()):
            return frames, float("inf")
        # Of a symbol that the limit cuts, the file says only how much was left.
        found = torch.where(durations.cumsum(1) <= steps, found, durations)
        ours = model.spoken(encoded, found, path_of(found, steps), theirs.mel_lengths)
        for row, length in enumerate(theirs.mel_lengths.tolist()):
            apart = (ours[row, :length] - theirs.mel[row, :length]).abs().max().numpy()
            # NaN must not pass for agreement, which a Python maximum would let it.
            worst = float(np.maximum(worst, apart))
            frames += length
    return frames, worst
