"""What each term is multiplied by: its weight, its normaliser and the expected incoming gradient."""

# mypy: allow-untyped-defs, allow-incomplete-defs
# A branch on a constexpr is compiled away only where it stands alone.
# ruff: noqa: RET505

import triton
import triton.language as tl
from ttsfast.kernels.counts import batch_counts, divisors, number


@triton.jit
def norms(
    mel_lengths,
    step_lengths,
    truncated,
    batch,
    frames,
    steps,
    stop_size,
    tail_frames,
    normalizer,
    BINS: tl.constexpr,
    HEADS: tl.constexpr,
    HAS_STEPS: tl.constexpr,
    BY_UTTERANCE: tl.constexpr,
    KL_BY: tl.constexpr,
    ELBO: tl.constexpr,
    NORMALIZER: tl.constexpr,
    NORMALIZER_ON_DEVICE: tl.constexpr,
    BATCH_BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """Valid frames, and what the sums of the four terms are multiplied by."""
    own_frames, own_stop, own_attention, own_utterances = batch_counts(
        mel_lengths,
        step_lengths,
        truncated,
        batch,
        frames,
        steps,
        stop_size,
        tail_frames,
        HAS_STEPS,
        BATCH_BLOCK,
    )
    by_frames, by_stop, by_attention, by_utterances = divisors(
        own_frames,
        own_stop,
        own_attention,
        own_utterances,
        normalizer,
        NORMALIZER,
        NORMALIZER_ON_DEVICE,
        BY_UTTERANCE,
        ACC,
    )
    if BY_UTTERANCE:
        by_frames = by_utterances
        by_stop = by_utterances
        by_attention = by_utterances
    mel = 1.0 / by_frames / BINS
    kl = mel
    if not ELBO:
        kl = 1.0 / (by_utterances if KL_BY == "vectors" else by_frames)
    return own_frames, mel, kl, 1.0 / by_stop, 1.0 / by_attention / (HEADS if HEADS > 0 else 1)


@triton.jit
def applied(grad_scale, ON_DEVICE: tl.constexpr, ACC: tl.constexpr):
    """The expected incoming gradient; 1 where it could not be divided out again."""
    scale = number(grad_scale, ON_DEVICE, ACC)
    return tl.where((tl.abs(scale) < float("inf")) & (scale != 0), scale, 1.0)


@triton.jit
def weight(weights, schedule, state, term, STATE: tl.constexpr, ACC: tl.constexpr):
    """The weights of this step of ``term``, one index or several."""
    if STATE:
        # In the reference's order of multiplication, so that both round alike.
        factor = (tl.load(state[0] + term) * tl.load(schedule + term)).to(ACC)
        base = tl.where(
            term == 0,
            weights[0],
            tl.where(term == 1, weights[1], tl.where(term == 2, weights[2], weights[3])),
        )
        return factor * base
    else:
        return tl.load(weights + term).to(ACC)
