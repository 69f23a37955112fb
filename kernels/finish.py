"""What the last program does: sum the partial results in a fixed order, and step the adaptive weights."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from ttsfast.kernels.adaptive import observe
from ttsfast.kernels.counts import clamped, stop_lengths
from ttsfast.kernels.report import APPLIED, COLUMNS, FLOORS, NORMS, VALUES, WEIGHTS
from ttsfast.kernels.weighting import applied, norms, weight


@triton.jit
def ordered_sum(partials, first, end, OPT: tl.constexpr):
    """Sum of partials ``first .. end``, the same bits whichever programs finished when."""
    BLOCK: tl.constexpr = OPT.REDUCE_BLOCK
    acc = tl.zeros([BLOCK], OPT.ACC)
    for start in range(first, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        # From L2: the first-level cache does not see what other multiprocessors wrote.
        acc += tl.load(partials + at, mask=at < end, other=0.0, cache_modifier=".cg")
    return tl.sum(acc)


@triton.jit
def finish(lengths, weighting, results, axes, ranges, numbers, PRESENT: tl.constexpr, OPT: tl.constexpr):
    """Sum each term's partials, write the report and the total, and move the state on."""
    own_frames, mel_norm, kl_norm, stop_norm, attention_norm = norms(lengths, axes, weighting.normalizer, OPT)
    ends = tl.num_programs(0)
    mel = ordered_sum(results.partials, 0, ranges.mel_end, OPT) * mel_norm
    kl = tl.zeros([], OPT.ACC)
    stop = tl.zeros([], OPT.ACC)
    attention = tl.zeros([], OPT.ACC)
    if PRESENT[0]:
        kl = ordered_sum(results.partials, ranges.mel_end, ranges.kl_end, OPT) * kl_norm
    if PRESENT[1]:
        stop = ordered_sum(results.partials, ranges.kl_end, ranges.stop_end, OPT) * stop_norm
    if PRESENT[2]:
        attention = ordered_sum(results.partials, ranges.stop_end, ends, OPT) * attention_norm
    mel_floors, kl_floors, stop_floors = floor_sums(lengths, axes, numbers, PRESENT[1], OPT)
    kl_floor = tl.zeros([], OPT.ACC)
    if PRESENT[0]:
        kl_floor = kl_floors * numbers.free_bits * kl_norm
    # A prediction's floor is per element, so the bins cancel.
    mel_floor = mel_floors * numbers.mel_floor * mel_norm * OPT.BINS
    values = pack(mel, kl, stop, attention)
    floors = pack(mel_floor, kl_floor, stop_floors * stop_norm, 0.0).to(OPT.ACC)
    i = tl.arange(0, COLUMNS)
    used = weight(weighting, i, OPT)
    active = ((OPT.ACTIVE >> i) & 1) == 1
    # Inactive terms are left out, not multiplied by 0: they may be infinite.
    tl.store(results.total, tl.sum(tl.where(active, values * used, 0.0)))
    tl.store(results.report + VALUES + i, values)
    tl.store(results.report + FLOORS + i, floors)
    tl.store(results.report + WEIGHTS + i, used)
    tl.store(results.report + NORMS + i, pack(mel_norm, kl_norm, stop_norm, attention_norm))
    tl.store(results.report + APPLIED, applied(weighting.grad_scale, OPT))
    tl.store(results.integers, own_frames)
    tl.store(results.integers + 1, lengths_outside(lengths, axes, OPT))
    step = tl.load(weighting.step)
    tl.store(results.integers + 2, step)
    if OPT.METHOD != "fixed":
        observe(values, floors, active, weighting.state, None, OPT.METHOD)
    if OPT.ADVANCE:
        tl.store(weighting.step, step + 1)


@triton.jit
def floor_sums(lengths, axes, numbers, HAS_STOP: tl.constexpr, OPT: tl.constexpr):
    """(valid frames, latent vectors, floors of stop steps) of the batch, each utterance's divided as its
    term is under ``"utterance"``."""
    BLOCK: tl.constexpr = OPT.BATCH_BLOCK
    mel = tl.zeros([BLOCK], OPT.ACC)
    kl = tl.zeros([BLOCK], OPT.ACC)
    stop = tl.zeros([BLOCK], OPT.ACC)
    for start in range(0, axes.batch, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < axes.batch
        length = clamped(lengths.mel, at, mask, axes.frames).to(OPT.ACC)
        vectors = length if OPT.KL_PER_FRAME else tl.where(length > 0, 1.0, 0.0).to(OPT.ACC)
        unit = tl.maximum(length, 1.0)
        if OPT.BY_UTTERANCE:
            mel += length / unit
            kl += vectors / (unit if OPT.KL_BY == "frames" else tl.maximum(vectors, 1.0))
        else:
            mel += length
            kl += vectors
        if HAS_STOP:
            own, tail, cut = stop_lengths(lengths, at, mask, axes)
            positives = tl.where((own == 0) | cut, 0, tail + 1).to(OPT.ACC)
            included = (own + tail).to(OPT.ACC)
            least = positives * numbers.stop_floors[1] + (included - positives) * numbers.stop_floors[0]
            stop += least / tl.maximum(included, 1.0) if OPT.BY_UTTERANCE else least
    return tl.sum(mel), tl.sum(kl), tl.sum(stop)


@triton.jit
def lengths_outside(lengths, axes, OPT: tl.constexpr):
    """How many lengths lie outside their axes, int64."""
    BLOCK: tl.constexpr = OPT.BATCH_BLOCK
    count = tl.zeros([BLOCK], tl.int64)
    for start in range(0, axes.batch, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < axes.batch
        count += _outside(lengths.mel, at, mask, axes.frames)
        if lengths.steps is not None:
            count += _outside(lengths.steps, at, mask, axes.steps)
        if lengths.text is not None:
            count += _outside(lengths.text, at, mask, axes.symbols)
    return tl.sum(count)


@triton.jit
def _outside(vector, at, mask, limit):
    length = tl.load(vector + at, mask=mask, other=0).to(tl.int64)
    return ((length < 0) | (length > limit)).to(tl.int64)


@triton.jit
def pack(a, b, c, d):
    """Four scalars as one vector of four."""
    i = tl.arange(0, 4)
    return tl.where(i == 0, a, tl.where(i == 1, b, tl.where(i == 2, c, d)))
