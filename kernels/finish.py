"""What the last program does: sum the partial results in a fixed order, and step the adaptive weights."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl
from ttsfast.kernels.arithmetic import exp, expm1
from ttsfast.kernels.counts import clamped, is_truncated, stop_tail

# These repeat ttsfast.losses.adaptive, which kernels do not import; a test compares both, step by step.
_FAST_DECAY = tl.constexpr(0.9)
_LOG_FAST_DECAY = tl.constexpr(-0.10536051565782628)
_SLOW_DECAY = tl.constexpr(0.99)
_LOG_SLOW_DECAY = tl.constexpr(-0.01005033585350145)
_LOG_TWO = tl.constexpr(0.6931471805599453)


@triton.jit
def ordered_sum(partials, first, end, BLOCK: tl.constexpr, ACC: tl.constexpr):
    """Sum of partials ``first .. end``, the same bits whichever programs finished when."""
    acc = tl.zeros([BLOCK], ACC)
    for start in range(first, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        # From L2: the first-level cache does not see what other multiprocessors wrote.
        acc += tl.load(partials + at, mask=at < end, other=0.0, cache_modifier=".cg")
    return tl.sum(acc)


@triton.jit
def floor_sums(
    mel_lengths,
    step_lengths,
    truncated,
    batch,
    frames,
    steps,
    stop_size,
    tail_frames,
    floor_negative,
    floor_positive,
    HAS_STOP: tl.constexpr,
    KL_PER_FRAME: tl.constexpr,
    KL_BY: tl.constexpr,
    BY_UTTERANCE: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """(valid frames, latent vectors, floors of stop steps) of the batch, each utterance's divided as its
    term is under ``"utterance"``; and whether a length of mel lay outside its axis."""
    mel = tl.zeros([BLOCK], ACC)
    kl = tl.zeros([BLOCK], ACC)
    stop = tl.zeros([BLOCK], ACC)
    for start in range(0, batch, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < batch
        length = clamped(mel_lengths, at, mask, frames).to(ACC)
        vectors = length if KL_PER_FRAME else tl.where(length > 0, 1.0, 0.0).to(ACC)
        unit = tl.maximum(length, 1.0)
        if BY_UTTERANCE:
            mel += length / unit
            kl += vectors / (unit if KL_BY == "frames" else tl.maximum(vectors, 1.0))
        else:
            mel += length
            kl += vectors
        if HAS_STOP:
            own = clamped(step_lengths, at, mask, steps)
            cut = is_truncated(truncated, at, mask)
            tail = stop_tail(own, cut, tail_frames, stop_size)
            positives = tl.where((own == 0) | cut, 0, tail + 1).to(ACC)
            included = (own + tail).to(ACC)
            least = positives * floor_positive + (included - positives) * floor_negative
            stop += least / tl.maximum(included, 1.0) if BY_UTTERANCE else least
    return tl.sum(mel), tl.sum(kl), tl.sum(stop)


@triton.jit
def lengths_outside(
    mel_lengths,
    step_lengths,
    text_lengths,
    batch,
    frames,
    steps,
    symbols,
    HAS_STEPS: tl.constexpr,
    HAS_TEXT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """How many lengths lie outside their axes, int64."""
    count = tl.zeros([BLOCK], tl.int64)
    for start in range(0, batch, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < batch
        length = tl.load(mel_lengths + at, mask=mask, other=0).to(tl.int64)
        count += ((length < 0) | (length > frames)).to(tl.int64)
        if HAS_STEPS:
            length = tl.load(step_lengths + at, mask=mask, other=0).to(tl.int64)
            count += ((length < 0) | (length > steps)).to(tl.int64)
        if HAS_TEXT:
            length = tl.load(text_lengths + at, mask=mask, other=0).to(tl.int64)
            count += ((length < 0) | (length > symbols)).to(tl.int64)
    return tl.sum(count)


@triton.jit
def pack(a, b, c, d):
    """Four scalars as one vector of four."""
    i = tl.arange(0, 4)
    return tl.where(i == 0, a, tl.where(i == 1, b, tl.where(i == 2, c, d)))


@triton.jit
def observe(values, floors, active, state, METHOD: tl.constexpr):
    """One step of ``ttsfast.losses.adaptive.AdaptiveWeights.observe`` on its buffers, in float32."""
    factors_at, fast_at, slow_at, variances_at, observations_at, skipped_at = state
    i = tl.arange(0, 4)
    if METHOD == "origin":
        seen = values.to(tl.float32)
    else:
        excess = values - floors
        seen = tl.where(excess < 0, 0.0, excess).to(tl.float32)
    finite = tl.abs(seen) < float("inf")
    bad = tl.max(tl.where(active & (finite == 0), 1, 0))
    changed = active & (bad == 0)
    tl.store(skipped_at, tl.load(skipped_at) + bad)
    observations = tl.load(observations_at) + (1 - bad)
    tl.store(observations_at, observations)

    n = tl.maximum(observations, 1)
    fast = _average(tl.load(fast_at + i), seen, n, changed, _FAST_DECAY, _LOG_FAST_DECAY)
    slow = _average(tl.load(slow_at + i), seen, n, changed, _SLOW_DECAY, _LOG_SLOW_DECAY)
    tl.store(fast_at + i, fast)
    tl.store(slow_at + i, slow)

    if METHOD == "dwa":
        ratio = tl.where(active, _ratio(fast, slow), float("-inf"))
        # Measured from the largest, so that equal ratios give exp(0) = 1 and exactly 1 after division.
        raised = tl.where(active, exp((ratio - tl.max(ratio)) * 0.5), 0.0)
        count = tl.sum(tl.where(active, 1.0, 0.0))
        factors = raised * tl.div_rn(count, tl.sum(raised))
        factors = tl.minimum(tl.maximum(factors, 0.5), 2.0)
    elif METHOD == "uncertainty":
        variances = tl.load(variances_at + i)
        slope = 0.5 * (1.0 - exp(-variances) * seen)
        moved = variances - 0.01 * slope
        moved = tl.minimum(tl.maximum(moved, -_LOG_TWO), _LOG_TWO)
        variances = tl.where(changed, moved, variances)
        tl.store(variances_at + i, variances)
        factors = tl.minimum(tl.maximum(exp(-variances), 0.5), 2.0)
    else:
        # 1/2 + tanh(x)/2 is the logistic function of 2 x.
        x = _ratio(seen, slow) - 1.0
        factors = tl.div_rn(tl.full([4], 1.0, tl.float32), 1.0 + exp(-2.0 * x))
        factors = tl.where(i == 0, tl.minimum(tl.maximum(factors, 0.7), 1.3), 1.0)
    tl.store(factors_at + i, tl.where(changed, factors, tl.load(factors_at + i)))


@triton.jit
def _average(average, seen, n, changed, DECAY: tl.constexpr, LOG_DECAY: tl.constexpr):
    """Exponential average, bias-corrected: the n-th observation has weight (1 - d) / (1 - d^n)."""
    forgotten = -expm1(n.to(tl.float32) * LOG_DECAY)
    share = tl.where(n == 1, 1.0, (1.0 - DECAY) / forgotten)
    return tl.where(changed, average + share * (seen - average), average)


@triton.jit
def _ratio(above, below):
    """``above / below``, 1 where ``below`` is 0; correctly rounded, so that equal numbers give 1."""
    known = below > 0
    return tl.where(known, tl.div_rn(above, tl.where(known, below, 1.0)), 1.0)
