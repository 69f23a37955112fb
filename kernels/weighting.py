"""What each term is multiplied by: its weight, its normaliser and the expected incoming gradient."""

# mypy: allow-untyped-defs, allow-incomplete-defs
# A branch on a constexpr is compiled away only where it stands alone.
# ruff: noqa: RET505

import triton
import triton.language as tl

from ttsfast.kernels.counts import batch_counts, divisors, number


@triton.jit
def norms(lengths, axes, normalizer, OPT: tl.constexpr):
    """Valid frames, and what the sums of the four terms are multiplied by."""
    HEADS: tl.constexpr = OPT.HEADS[-1] if OPT.HEADS[-1] > 0 else 1
    own_frames, own_stop, own_attention, own_utterances = batch_counts(lengths, axes, OPT)
    by_frames, by_stop, by_attention, by_utterances = divisors(
        own_frames, own_stop, own_attention, own_utterances, normalizer, OPT
    )
    if OPT.BY_UTTERANCE:
        by_frames = by_utterances
        by_stop = by_utterances
        by_attention = by_utterances
    mel = 1.0 / by_frames / OPT.BINS
    kl = mel
    if not OPT.ELBO:
        kl = 1.0 / (by_utterances if OPT.KL_BY == "vectors" else by_frames)
    return own_frames, mel, kl, 1.0 / by_stop, 1.0 / by_attention / HEADS


@triton.jit
def applied(grad_scale, OPT: tl.constexpr):
    """The expected incoming gradient; 1 where it could not be divided out again."""
    ON_DEVICE: tl.constexpr = OPT.SCALE_ON_DEVICE
    scale = number(grad_scale, ON_DEVICE, OPT.ACC)
    return tl.where((tl.abs(scale) < float("inf")) & (scale != 0), scale, 1.0)


@triton.jit
def weight(weighting, term, OPT: tl.constexpr):
    """The weights of this step of ``term``, one index or several."""
    if OPT.STATE:
        # In the reference's order of multiplication, so that both round alike.
        factor = (tl.load(weighting.state[0] + term) * tl.load(weighting.schedule + term)).to(OPT.ACC)
        base = tl.where(
            term == 0,
            weighting.weights[0],
            tl.where(
                term == 1,
                weighting.weights[1],
                tl.where(term == 2, weighting.weights[2], weighting.weights[3]),
            ),
        )
        return factor * base
    else:
        return tl.load(weighting.weights + term).to(OPT.ACC)
