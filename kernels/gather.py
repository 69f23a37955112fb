"""One launch that makes a padded batch from a corpus that lies on the device.

The first ``batch * tiles`` programs copy frames, TILE values each; the last ``batch`` write one utterance's
text, lengths, masks, stop targets, pitch and energy each. Nothing is computed: values are widened or rounded,
never changed.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttsfast.kernels import settings

TILE = 2048
"""Values per program: two 16-byte loads of float16 a thread, and as many stores of float32 in flight as hide
the latency of memory at full occupancy."""
WIDTH = 256

# They differ from batch to batch: a variant for each that happens to be 1 or a multiple of 16 would be
# compiled in the middle of an epoch.
_VARYING = ["first", "batch", "tiles", "frames", "symbols"]


@triton.jit(do_not_specialize=_VARYING)
def gather_batch(
    mel,
    mel_starts,
    text,
    text_starts,
    speaker,
    truncated,
    silence,
    pitch,
    energy,
    order,
    out_mel,
    out_text,
    out_mel_lengths,
    out_text_lengths,
    out_speaker,
    out_truncated,
    out_mask,
    out_stop,
    out_pitch,
    out_energy,
    first,
    batch,
    tiles,
    frames,
    symbols,
    BINS: tl.constexpr,
    TILE: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write one batch; :func:`gather` launches it.

    Args:
        mel: (F, BINS) float16, dense, utterance after utterance.
        mel_starts: (n + 1,) int64 first frame of each utterance, and the end of the last.
        text, text_starts: the same of symbol ids, int32.
        speaker, truncated: (n,) int64 and bool.
        silence: (BINS,) float32.
        pitch, energy: (F,) float32, or None.
        order: int64 utterances; the batch's are ``order[first : first + batch]``.
        out_mel: (batch, frames, BINS), dense, of any floating type; out_text: (batch, symbols) int64.
        out_mel_lengths, out_text_lengths, out_speaker, out_truncated: (batch,).
        out_mask, out_stop: (batch, frames) bool and float32, or None.
        out_pitch, out_energy: (batch, frames) float32, or None, as what they are of.
        tiles: of TILE values, per utterance.
        WIDTH: symbols, or frames of the mask, at a time.
    """
    program = tl.program_id(0)
    if program < batch * tiles:
        row = program // tiles
        utterance = tl.load(order + first + row)
        start = tl.load(mel_starts + utterance)
        valid = (tl.load(mel_starts + utterance + 1) - start).to(tl.int32) * BINS
        at = (program % tiles) * TILE + tl.arange(0, TILE)
        size = frames * BINS
        inside = at < valid
        values = tl.load(mel + start * BINS + at, mask=inside, other=0.0).to(tl.float32)
        padding = tl.load(silence + at % BINS, mask=(at >= valid) & (at < size), other=0.0)
        values = tl.where(inside, values, padding)
        pointers = out_mel + row.to(tl.int64) * size + at
        tl.store(pointers, values.to(out_mel.dtype.element_ty), mask=at < size)
    else:
        row = program - batch * tiles
        utterance = tl.load(order + first + row)
        start = tl.load(mel_starts + utterance)
        length = tl.load(mel_starts + utterance + 1) - start
        tl.store(out_mel_lengths + row, length)
        text_start = tl.load(text_starts + utterance)
        text_length = tl.load(text_starts + utterance + 1) - text_start
        tl.store(out_text_lengths + row, text_length)
        tl.store(out_speaker + row, tl.load(speaker + utterance))
        cut = tl.load(truncated + utterance)
        tl.store(out_truncated + row, cut)
        lane = tl.arange(0, WIDTH)
        for begin in range(0, symbols, WIDTH):
            n = begin + lane
            ids = tl.load(text + text_start + n, mask=n < text_length, other=0)
            tl.store(out_text + row.to(tl.int64) * symbols + n, ids.to(tl.int64), mask=n < symbols)
        if out_mask is not None:
            for begin in range(0, frames, WIDTH):
                t = begin + lane
                tl.store(out_mask + row.to(tl.int64) * frames + t, t < length, mask=t < frames)
        if out_stop is not None:
            for begin in range(0, frames, WIDTH):
                t = begin + lane
                ends = (t >= length - 1) & (cut == 0)
                tl.store(out_stop + row.to(tl.int64) * frames + t, ends.to(tl.float32), mask=t < frames)
        if out_pitch is not None:
            for begin in range(0, frames, WIDTH):
                t = begin + lane
                values = tl.load(pitch + start + t, mask=t < length, other=0.0)
                tl.store(out_pitch + row.to(tl.int64) * frames + t, values, mask=t < frames)
        if out_energy is not None:
            for begin in range(0, frames, WIDTH):
                t = begin + lane
                values = tl.load(energy + start + t, mask=t < length, other=0.0)
                tl.store(out_energy + row.to(tl.int64) * frames + t, values, mask=t < frames)


class Corpus(NamedTuple):
    """What utterances are gathered from, on one device; all dense."""

    mel: Tensor
    """(F, C) float16"""
    mel_starts: Tensor
    """(n + 1,) int64"""
    text: Tensor
    """(S,) int32"""
    text_starts: Tensor
    """(n + 1,) int64"""
    speaker: Tensor
    """(n,) int64"""
    truncated: Tensor
    """(n,) bool"""
    silence: Tensor
    """(C,) float32"""
    pitch: Tensor | None = None
    energy: Tensor | None = None
    """(F,) float32, each; None where the store holds none"""


class Gathered(NamedTuple):
    """What the kernel writes, every element of it; all dense."""

    mel: Tensor
    """(B, T, C) of any floating type"""
    text: Tensor
    """(B, N) int64"""
    mel_lengths: Tensor
    text_lengths: Tensor
    speaker: Tensor
    """(B,) int64, each"""
    truncated: Tensor
    """(B,) bool"""
    frame_mask: Tensor | None
    """(B, T) bool, true at valid frames"""
    stop_targets: Tensor | None
    """(B, T) float32, 1 from the last valid frame on unless truncated"""
    pitch: Tensor | None = None
    energy: Tensor | None = None
    """(B, T) float32, each, 0 after the last valid frame; where the corpus has it"""


def gather(corpus: Corpus, order: Tensor, first: int, out: Gathered) -> None:
    """Launch on the current stream: utterances ``order[first : first + B]`` of ``corpus`` into ``out``.

    Nothing is checked here: the caller knows that every utterance is one of the corpus's and fits.
    """
    batch, frames, bins = out.mel.shape
    tiles = triton.cdiv(frames * bins, TILE)
    with torch.cuda.device_of(order):
        gather_batch[(batch * (tiles + 1),)](
            *corpus,
            order,
            *out,
            first,
            batch,
            tiles,
            frames,
            out.text.shape[1],
            BINS=bins,
            TILE=TILE,
            WIDTH=WIDTH,
            **settings.SETTINGS.options,
        )
