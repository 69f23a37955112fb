"""The forward kernel: every term, value and gradient, in one launch.

Program ids are dealt out in ranges: mel, KL, stop, attention. Each program reads its tiles once, writes
their gradients, already weighted, normalised and multiplied by the expected incoming gradient, and stores
one partial sum. Whichever program finishes last sums the partials in a fixed order, writes the report and
steps the state of the adaptive weights, which every other program has read by then.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs
# A branch on a constexpr is compiled away only where it stands alone.
# ruff: noqa: SIM102

import triton
import triton.language as tl
from ttsfast.kernels.attention import attention_rows
from ttsfast.kernels.counts import clamped, is_truncated, stop_tail
from ttsfast.kernels.finish import floor_sums, lengths_outside, observe, ordered_sum, pack
from ttsfast.kernels.latents import kl_rows
from ttsfast.kernels.mel import mel_rows, mel_strided
from ttsfast.kernels.stop import stop_steps
from ttsfast.kernels.weighting import applied, norms, weight

_SIZES = [
    "batch",
    "frames",
    "steps",
    "stop_size",
    "attention_steps",
    "symbols",
    "mel_blocks",
    "mel_tiles",
    "mel_units",
    "kl_blocks",
    "kl_tiles",
    "kl_units",
    "stop_blocks",
    "stop_units",
    "attention_blocks",
    "attention_tiles",
    "seed",
    "tail_frames",
]


# Sizes change from batch to batch: specialising on them would compile anew in the middle of training.
@triton.jit(do_not_specialize=_SIZES)
def loss_forward(
    mel_lengths,  # (B,) any integers, as the other lengths
    step_lengths,  # (B,) or None without stop and attention
    text_lengths,  # (B,) or None
    truncated,  # (B,) bool or None
    predictions,  # (y0, y1), each (B, T, C); y1 may be None
    target,  # (B, T, C)
    mel_gradients,  # as predictions, or None each
    mel_strides,  # ((B strides), (T strides), (C strides)) of y0, y1, target, their gradients
    mean,  # (C,) or None
    std,  # (C,) or None
    latents,  # (mu, logvar, prior mu, prior logvar), each (B, T, Z), or None each
    latent_gradients,  # as latents
    latent_strides,  # ((B), (T), (Z)) of the four latents and the four gradients
    logits,  # (B, S) or None
    logit_gradient,  # (B, S) or None
    logit_strides,  # ((B, S) of logits, (B, S) of the gradient)
    layers,  # tuple of L pointers, (B, H_l, S, N)
    layer_gradients,  # tuple of L pointers or Nones
    layer_strides,  # for each layer (B, H, S, N of it, B, H, S, N of its gradient)
    weights,  # (4,) or, with STATE, the base weights as four numbers
    schedule,  # (4,) with STATE
    state,  # factors, fast, slow, log variances (4,), observations, skipped (); with STATE
    step,  # () int64, the noise generator's step
    normalizer,  # four counts or one total, numbers or pointers
    grad_scale,  # number or pointer
    total,  # () out
    report,  # (13,) out: values, floors, weights, applied gradient scale
    integers,  # (2,) int64 out: valid frames, lengths outside their axes
    partials,  # (programs,) scratch
    counter,  # () int32, 0 before and after every launch
    batch,
    frames,
    steps,  # bound of step_lengths
    stop_size,
    attention_steps,
    symbols,
    mel_blocks,  # programs of one utterance, as for the other terms
    mel_tiles,  # tiles of one program
    mel_units,  # where the mel programs end
    kl_blocks,
    kl_tiles,
    kl_units,
    stop_blocks,
    stop_units,
    attention_blocks,
    attention_tiles,
    seed,
    tail_frames,
    keep,
    amount,
    delta,
    mel_floor,
    free_bits,
    negative_below,
    negative_above,
    positive_below,
    positive_above,
    floor_negative,
    floor_positive,
    inverse_sigma,
    ACTIVE: tl.constexpr,  # bit i: term i enters the total
    BINS: tl.constexpr,
    LATENTS: tl.constexpr,
    HEADS: tl.constexpr,  # heads before each layer, and their total at the end
    LOSS: tl.constexpr,
    SMOOTHING: tl.constexpr,
    BY_UTTERANCE: tl.constexpr,
    KL_PER_FRAME: tl.constexpr,
    KL_BY: tl.constexpr,  # "frames" or "vectors"
    ELBO: tl.constexpr,
    FREE_BITS: tl.constexpr,
    NORMALIZER: tl.constexpr,
    NORMALIZER_ON_DEVICE: tl.constexpr,
    SCALE_ON_DEVICE: tl.constexpr,
    STATE: tl.constexpr,
    METHOD: tl.constexpr,  # "fixed" leaves the state alone
    ADVANCE: tl.constexpr,  # the noise step moves on
    MEL_TILE: tl.constexpr,  # (elements,) without gaps, (frames, bins) otherwise
    MEL_ALIGN: tl.constexpr,
    ATTENTION_ALIGN: tl.constexpr,
    KL_TILE: tl.constexpr,
    STOP_TILE: tl.constexpr,
    ATTENTION_TILE: tl.constexpr,
    BATCH_BLOCK: tl.constexpr,
    REDUCE_BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    HAS_KL: tl.constexpr = latents[0] is not None
    HAS_STOP: tl.constexpr = logits is not None
    HAS_ATTENTION: tl.constexpr = len(layers) > 0
    HAS_STEPS: tl.constexpr = HAS_STOP or HAS_ATTENTION
    pid = tl.program_id(0)

    _, mel_norm, kl_norm, stop_norm, attention_norm = norms(
        mel_lengths,
        step_lengths,
        truncated,
        batch,
        frames,
        steps,
        stop_size,
        tail_frames,
        normalizer,
        BINS,
        HEADS[len(layers)],
        HAS_STEPS,
        BY_UTTERANCE,
        KL_BY,
        ELBO,
        NORMALIZER,
        NORMALIZER_ON_DEVICE,
        BATCH_BLOCK,
        ACC,
    )
    incoming = applied(grad_scale, SCALE_ON_DEVICE, ACC)
    # Only this program's own term stays in registers; the last program works the rest out again.
    norm = mel_norm
    term = 0
    if HAS_KL:
        norm = tl.where(pid >= mel_units, kl_norm, norm)
        term = tl.where(pid >= mel_units, 1, term)
    if HAS_STOP:
        norm = tl.where(pid >= kl_units, stop_norm, norm)
        term = tl.where(pid >= kl_units, 2, term)
    if HAS_ATTENTION:
        norm = tl.where(pid >= stop_units, attention_norm, norm)
        term = tl.where(pid >= stop_units, 3, term)
    scale = weight(weights, schedule, state, term, STATE, ACC) * incoming * norm

    partial = tl.zeros([], ACC)
    if pid < mel_units:
        utterance = (pid // mel_blocks).to(tl.int64)
        length = clamped(mel_lengths, utterance, utterance < batch, frames)
        own = 1.0 / tl.maximum(length, 1).to(ACC) if BY_UTTERANCE else tl.full([], 1.0, ACC)
        first = (pid % mel_blocks) * mel_tiles
        if len(MEL_TILE) == 1:
            result = mel_rows(
                predictions,
                target,
                mel_gradients,
                mel_strides[0],
                mean,
                std,
                utterance,
                length,
                frames,
                first,
                mel_tiles,
                scale * own,
                keep,
                amount,
                delta,
                seed,
                tl.load(step),
                BINS,
                LOSS,
                SMOOTHING,
                MEL_ALIGN,
                MEL_TILE[0],
                ACC,
            )
        else:
            result = mel_strided(
                predictions,
                target,
                mel_gradients,
                mel_strides[0],
                mel_strides[1],
                mel_strides[2],
                mean,
                std,
                utterance,
                length,
                frames,
                first,
                mel_tiles,
                scale * own,
                keep,
                amount,
                delta,
                seed,
                tl.load(step),
                BINS,
                LOSS,
                SMOOTHING,
                MEL_ALIGN,
                MEL_TILE[0],
                MEL_TILE[1],
                ACC,
            )
        partial = result * own
    if HAS_KL:
        if (pid >= mel_units) & (pid < kl_units):
            unit = pid - mel_units
            utterance = (unit // kl_blocks).to(tl.int64)
            length = clamped(mel_lengths, utterance, utterance < batch, frames)
            own = tl.full([], 1.0, ACC)
            if BY_UTTERANCE and KL_BY == "frames":
                own = 1.0 / tl.maximum(length, 1).to(ACC)
            rows = frames
            if not KL_PER_FRAME:
                length = tl.minimum(length, 1)
                rows = 1
            first = (unit % kl_blocks) * kl_tiles
            result = tl.zeros([], ACC)
            for i in range(kl_tiles):
                result += kl_rows(
                    latents,
                    latent_gradients,
                    latent_strides[0],
                    latent_strides[1],
                    latent_strides[2],
                    utterance,
                    length,
                    rows,
                    first + i,
                    scale * own,
                    free_bits,
                    LATENTS,
                    FREE_BITS,
                    KL_TILE[0],
                    KL_TILE[1],
                    ACC,
                )
            partial = result * own
    if HAS_STOP:
        if (pid >= kl_units) & (pid < stop_units):
            unit = pid - kl_units
            utterance = (unit // stop_blocks).to(tl.int64)
            length = clamped(step_lengths, utterance, True, steps)
            cut = is_truncated(truncated, utterance, True)
            tail = stop_tail(length, cut, tail_frames, stop_size)
            own = 1.0 / tl.maximum(length + tail, 1).to(ACC) if BY_UTTERANCE else tl.full([], 1.0, ACC)
            result = stop_steps(
                logits,
                logit_gradient,
                logit_strides[0],
                logit_strides[1],
                utterance,
                length,
                tail,
                cut,
                stop_size,
                unit % stop_blocks,
                scale * own,
                negative_below,
                negative_above,
                positive_below,
                positive_above,
                STOP_TILE,
                ACC,
            )
            partial = result * own
    if HAS_ATTENTION:
        if pid >= stop_units:
            unit = pid - stop_units
            first = (unit % attention_blocks) * attention_tiles
            head = (unit // attention_blocks) % HEADS[len(layers)]
            utterance = (unit // attention_blocks // HEADS[len(layers)]).to(tl.int64)
            length = clamped(step_lengths, utterance, True, steps)
            own = 1.0 / tl.maximum(length, 1).to(ACC) if BY_UTTERANCE else tl.full([], 1.0, ACC)
            text_length = clamped(text_lengths, utterance, True, symbols)
            result = tl.zeros([], ACC)
            # A branch for each layer: choosing among pointers is beyond some compilers.
            for k in tl.static_range(len(layers)):
                if (head >= HEADS[k]) & (head < HEADS[k + 1]):
                    for i in range(attention_tiles):
                        result += attention_rows(
                            layers[k],
                            layer_gradients[k],
                            layer_strides[k],
                            utterance,
                            (head - HEADS[k]).to(tl.int64),
                            attention_steps,
                            symbols,
                            length,
                            text_length,
                            first + i,
                            scale * own,
                            inverse_sigma,
                            ATTENTION_ALIGN,
                            ATTENTION_TILE[0],
                            ATTENTION_TILE[1],
                            ACC,
                        )
            partial = result * own

    tl.store(partials + pid, partial)
    # Every thread has read the weights and the noise step before any program may count this one as done.
    tl.debug_barrier()
    if tl.atomic_add(counter, 1, sem="acq_rel") == tl.num_programs(0) - 1:
        tl.store(counter, 0)
        own_frames, mel_norm, kl_norm, stop_norm, attention_norm = norms(
            mel_lengths,
            step_lengths,
            truncated,
            batch,
            frames,
            steps,
            stop_size,
            tail_frames,
            normalizer,
            BINS,
            HEADS[len(layers)],
            HAS_STEPS,
            BY_UTTERANCE,
            KL_BY,
            ELBO,
            NORMALIZER,
            NORMALIZER_ON_DEVICE,
            BATCH_BLOCK,
            ACC,
        )
        mel = ordered_sum(partials, 0, mel_units, REDUCE_BLOCK, ACC) * mel_norm
        kl = tl.zeros([], ACC)
        stop = tl.zeros([], ACC)
        attention = tl.zeros([], ACC)
        if HAS_KL:
            kl = ordered_sum(partials, mel_units, kl_units, REDUCE_BLOCK, ACC) * kl_norm
        if HAS_STOP:
            stop = ordered_sum(partials, kl_units, stop_units, REDUCE_BLOCK, ACC) * stop_norm
        if HAS_ATTENTION:
            attention = (
                ordered_sum(partials, stop_units, tl.num_programs(0), REDUCE_BLOCK, ACC) * attention_norm
            )
        mel_sum, kl_sum, stop_sum = floor_sums(
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
            HAS_STOP,
            KL_PER_FRAME,
            KL_BY,
            BY_UTTERANCE,
            BATCH_BLOCK,
            ACC,
        )
        kl_floor = tl.zeros([], ACC)
        if HAS_KL:
            kl_floor = kl_sum * free_bits * kl_norm
        # A prediction's floor is per element, so the bins cancel.
        values = pack(mel, kl, stop, attention)
        floors = pack(mel_sum * mel_floor * mel_norm * BINS, kl_floor, stop_sum * stop_norm, 0.0).to(ACC)
        i = tl.arange(0, 4)
        used = weight(weights, schedule, state, i, STATE, ACC)
        active = ((ACTIVE >> i) & 1) == 1
        # Inactive terms are left out, not multiplied by 0: they may be infinite.
        tl.store(total, tl.sum(tl.where(active, values * used, 0.0)))
        tl.store(report + i, values)
        tl.store(report + 4 + i, floors)
        tl.store(report + 8 + i, used)
        tl.store(report + 12, applied(grad_scale, SCALE_ON_DEVICE, ACC))
        tl.store(integers, own_frames)
        outside = lengths_outside(
            mel_lengths,
            step_lengths,
            text_lengths,
            batch,
            frames,
            steps,
            symbols,
            HAS_STEPS,
            HAS_ATTENTION,
            BATCH_BLOCK,
        )
        tl.store(integers + 1, outside)
        if METHOD != "fixed":
            observe(values, floors, active, state, METHOD)
        if ADVANCE:
            tl.store(step, tl.load(step) + 1)
