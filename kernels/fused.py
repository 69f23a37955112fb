"""The kernel: every term, values and gradients, in one launch; in another, gradients alone.

Program ids are dealt out in ranges: mel, KL, stop, attention. In the forward pass each program reads its
tiles once, writes their gradients, already weighted, normalised and multiplied by the expected incoming
gradient, and stores one partial sum. Whichever program finishes last sums the partials in a fixed order,
writes the report and steps the state of the adaptive weights, which every other program has read by then.

In the backward pass every program compares the gradient that arrived with the one expected, and ends if they
agree. Otherwise it computes its gradients again from the inputs, with the weights and divisors of the report:
to rescale what was rounded would round twice, and read as much.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import Any

import triton
import triton.language as tl

from ttsfast.kernels.arguments import Axes, Options, Ranges, Work
from ttsfast.kernels.dispatch import choose_term, part_of_term
from ttsfast.kernels.finish import finish
from ttsfast.kernels.report import APPLIED, NORMS, WEIGHTS
from ttsfast.kernels.weighting import applied, norms, weight

SIZES = [*Axes._fields, *Ranges._fields, "seed"]


def _name(specialization: Any) -> str:
    """What a profiler shows."""
    (options,) = (v for v in specialization.constants.values() if isinstance(v, Options))
    return "loss_backward" if options.BACKWARD else "loss_forward"


# Sizes change from batch to batch: specialising on them would compile anew in the middle of training.
# One by one, and not as Axes and Ranges: Triton specialises on a tuple's members even so.
@triton.jit(do_not_specialize=SIZES, repr=_name)
def fused_loss(
    lengths,  # of type Lengths in arguments.py, where each of these is described; the next ones alike
    mel,
    latents,
    stop,
    attention,
    weighting,  # None in the backward pass
    results,
    incoming,  # () what arrived at the total, None in the forward pass
    numbers,
    seed,
    batch,
    frames,
    steps,
    stop_size,
    attention_steps,
    symbols,
    tail_frames,
    mel_blocks,
    mel_tiles,
    mel_end,
    kl_blocks,
    kl_tiles,
    kl_end,
    stop_blocks,
    stop_end,
    attention_blocks,
    attention_tiles,
    OPT: tl.constexpr,
):
    axes = Axes(batch, frames, steps, stop_size, attention_steps, symbols, tail_frames)
    ranges = Ranges(
        mel_blocks,
        mel_tiles,
        mel_end,
        kl_blocks,
        kl_tiles,
        kl_end,
        stop_blocks,
        stop_end,
        attention_blocks,
        attention_tiles,
    )
    work = Work(lengths, mel, latents, stop, attention, axes, ranges, numbers, seed)
    # Whether there are KL, stop and attention.
    PRESENT: tl.constexpr = (latents.inputs[0] is not None, stop.logits is not None, len(OPT.HEADS) > 1)
    pid = tl.program_id(0)
    if OPT.BACKWARD:
        arrived = tl.load(incoming).to(OPT.ACC)
        # In the common case every program ends here.
        if (not OPT.IN_PLACE) or (arrived != tl.load(results.report + APPLIED)):
            term = choose_term(pid, ranges, 0, 1, 2, 3, PRESENT)
            scale = (
                tl.load(results.report + WEIGHTS + term) * arrived * tl.load(results.report + NORMS + term)
            )
            step = tl.load(results.integers + 2)
            part_of_term(pid, work, step, scale, PRESENT, OPT)
    else:
        _, mel_norm, kl_norm, stop_norm, attention_norm = norms(lengths, axes, weighting.normalizer, OPT)
        # Only this program's own term stays in registers; the last program works the rest out again.
        norm = choose_term(pid, ranges, mel_norm, kl_norm, stop_norm, attention_norm, PRESENT)
        term = choose_term(pid, ranges, 0, 1, 2, 3, PRESENT)
        scale = weight(weighting, term, OPT) * applied(weighting.grad_scale, OPT) * norm
        step = tl.load(weighting.step)
        part = part_of_term(pid, work, step, scale, PRESENT, OPT)
        tl.store(results.partials + pid, part)
        # Every thread has read the weights and the noise step before any program may count this one as done.
        tl.debug_barrier()
        if tl.atomic_add(results.counter, 1, sem="acq_rel") == tl.num_programs(0) - 1:
            tl.store(results.counter, 0)
            finish(lengths, weighting, results, axes, ranges, numbers, PRESENT, OPT)
