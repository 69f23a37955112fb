"""Which part of which term a program works on."""

# mypy: allow-untyped-defs, allow-incomplete-defs
# A branch on a constexpr is compiled away only where it stands alone.
# ruff: noqa: SIM102

import triton
import triton.language as tl

from ttsfast.kernels.attention import attention_rows
from ttsfast.kernels.counts import clamped, stop_lengths
from ttsfast.kernels.kl import kl_rows
from ttsfast.kernels.mel import mel_tiles
from ttsfast.kernels.stop import stop_steps


@triton.jit
def choose_term(pid, ranges, mel, kl, stop, attention, PRESENT: tl.constexpr):
    """Of four values, that of this program's term."""
    chosen = mel
    if PRESENT[0]:
        chosen = tl.where(pid >= ranges.mel_end, kl, chosen)
    if PRESENT[1]:
        chosen = tl.where(pid >= ranges.kl_end, stop, chosen)
    if PRESENT[2]:
        chosen = tl.where(pid >= ranges.stop_end, attention, chosen)
    return chosen


@triton.jit
def part_of_term(pid, work, step, scale, PRESENT: tl.constexpr, OPT: tl.constexpr):
    """Write this program's gradients times ``scale``; its sum, unweighted, divided only within utterances."""
    lengths, mel, latents, stop, attention, axes, ranges, numbers, seed = work
    BY_UTTERANCE: tl.constexpr = OPT.BY_UTTERANCE
    part = tl.zeros([], OPT.ACC)
    if pid < ranges.mel_end:
        utterance = (pid // ranges.mel_blocks).to(tl.int64)
        length = clamped(lengths.mel, utterance, utterance < axes.batch, axes.frames)
        own = _share(length, BY_UTTERANCE, OPT)
        first = (pid % ranges.mel_blocks) * ranges.mel_tiles
        tiles = ranges.mel_tiles
        part = own * mel_tiles(
            mel, utterance, length, axes.frames, first, tiles, scale * own, numbers, seed, step, OPT
        )
    if PRESENT[0]:
        if (pid >= ranges.mel_end) & (pid < ranges.kl_end):
            unit = pid - ranges.mel_end
            utterance = (unit // ranges.kl_blocks).to(tl.int64)
            length = clamped(lengths.mel, utterance, True, axes.frames)
            within: tl.constexpr = OPT.BY_UTTERANCE and OPT.KL_BY == "frames"
            own = _share(length, within, OPT)
            rows = axes.frames
            if not OPT.KL_PER_FRAME:
                length = tl.minimum(length, 1)
                rows = 1
            first = (unit % ranges.kl_blocks) * ranges.kl_tiles
            for i in range(ranges.kl_tiles):
                part += kl_rows(
                    latents, utterance, length, rows, first + i, scale * own, numbers.free_bits, OPT
                )
            part *= own
    if PRESENT[1]:
        if (pid >= ranges.kl_end) & (pid < ranges.stop_end):
            unit = pid - ranges.kl_end
            utterance = (unit // ranges.stop_blocks).to(tl.int64)
            length, tail, cut = stop_lengths(lengths, utterance, True, axes)
            own = _share(length + tail, BY_UTTERANCE, OPT)
            block = unit % ranges.stop_blocks
            part = own * stop_steps(
                stop, utterance, length, tail, cut, axes.stop_size, block, scale * own, numbers, OPT
            )
    if PRESENT[2]:
        if pid >= ranges.stop_end:
            unit = pid - ranges.stop_end
            first = (unit % ranges.attention_blocks) * ranges.attention_tiles
            head = (unit // ranges.attention_blocks) % OPT.HEADS[-1]
            utterance = (unit // ranges.attention_blocks // OPT.HEADS[-1]).to(tl.int64)
            length = clamped(lengths.steps, utterance, True, axes.steps)
            own = _share(length, BY_UTTERANCE, OPT)
            symbols = clamped(lengths.text, utterance, True, axes.symbols)
            # A branch for each layer: choosing among pointers is beyond some compilers.
            for k in tl.static_range(len(OPT.HEADS) - 1):
                if (head >= OPT.HEADS[k]) & (head < OPT.HEADS[k + 1]):
                    for i in range(ranges.attention_tiles):
                        part += attention_rows(
                            attention.layers[k],
                            attention.gradients[k],
                            attention.strides[k],
                            utterance,
                            (head - OPT.HEADS[k]).to(tl.int64),
                            axes,
                            length,
                            symbols,
                            first + i,
                            scale * own,
                            numbers.inverse_sigma,
                            OPT,
                        )
            part *= own
    return part


@triton.jit
def _share(count, OF_UTTERANCE: tl.constexpr, OPT: tl.constexpr):
    """One over an utterance's own count where its sum is averaged within it, 1 otherwise."""
    if OF_UTTERANCE:
        share = 1.0 / tl.maximum(count, 1).to(OPT.ACC)
    else:
        share = tl.full([], 1.0, OPT.ACC)
    return share
