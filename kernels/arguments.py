"""What the launcher hands to the kernel, by name: pointers, strides, sizes, options.

B utterances, T frames, C mel bins, Z latents, S decoder steps, N symbols, H heads.

A pointer is None where there is nothing to point to: the kernel is then compiled without it. Strides are in
elements and sit in tuples, where the compiler learns which are 1 and which are multiples of 16; sizes do not,
since each new combination would be compiled anew in the middle of training.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Lengths(NamedTuple):
    """Vectors (B,) without gaps; integers of any width, clamped where they are read."""

    mel: Any
    steps: Any
    """None without stop and attention."""
    text: Any
    """None without attention."""
    truncated: Any
    """bool, None where no clip is."""


class Mel(NamedTuple):
    """The mel term."""

    predictions: Any
    """(y0, y1), each (B, T, C); y1 may be None."""
    target: Any
    """(B, T, C)"""
    gradients: Any
    """As the predictions, None where none is wanted."""
    mean: Any
    """(C,) or None for 0, as is std for 1."""
    std: Any
    strides: Any
    """By axis, (of B, T and C), those of y0, y1, the target and the two gradients; of B alone where each
    utterance's (T, C) is one run."""


class Latents(NamedTuple):
    """The KL term: mu, logvar, prior mu, prior logvar, each (B, T, Z); T = 1 for one vector an utterance."""

    inputs: Any
    gradients: Any
    strides: Any
    """By axis, (of B, T and Z), those of the four latents and the four gradients."""


class Stop(NamedTuple):
    """The stop term."""

    logits: Any
    """(B, S)"""
    gradient: Any
    strides: Any
    """(B, S) of the logits, (B, S) of the gradient."""


class Attention(NamedTuple):
    """Guided attention: layers (B, H, S, N), of any number of heads H each."""

    layers: Any
    gradients: Any
    strides: Any
    """By layer: (B, H, S, N) of it, then of its gradient."""


class Weighting(NamedTuple):
    """Where the weights of the four fused terms come from."""

    weights: Any
    """A pointer to them, first of all terms'; with a state, the base weights as four numbers."""
    schedule: Any
    """float32 with a state, by term."""
    state: Any
    """Factors, fast and slow averages, log-variances, each float32 by term; observations and skipped steps,
    () int64. All of them are read and moved on. None without a state."""
    step: Any
    """() int64, the step of the noise generator."""
    normalizer: Any
    """Four counts or one total, numbers or pointers; empty for the batch's own."""
    grad_scale: Any
    """The incoming gradient to expect, a number or a pointer."""


class Results(NamedTuple):
    """What the forward pass writes beside the gradients, and the backward pass reads."""

    total: Any
    """()"""
    report: Any
    """(5, 4): values, floors, weights, what their sums are multiplied by, and (gradient scale, -, -, -)."""
    integers: Any
    """(3,) int64: valid frames, lengths outside their axes, the step that the noise was drawn for."""
    partials: Any
    """(programs,) scratch"""
    counter: Any
    """() int32, 0 before and after every launch."""


class Axes(NamedTuple):
    """Sizes of the batch."""

    batch: Any
    frames: Any
    steps: Any
    """Bound of the step lengths."""
    stop_size: Any
    attention_steps: Any
    symbols: Any
    tail_frames: Any
    """Steps after the end that the stop term trains."""


class Ranges(NamedTuple):
    """How programs are dealt out: by term, programs of one utterance, tiles of one program, and where the
    term's programs end; attention has the rest."""

    mel_blocks: Any
    mel_tiles: Any
    mel_end: Any
    kl_blocks: Any
    kl_tiles: Any
    kl_end: Any
    stop_blocks: Any
    stop_end: Any
    attention_blocks: Any
    attention_tiles: Any


class Numbers(NamedTuple):
    """Real options, which cost no compilation."""

    keep: Any
    """1 - e of smoothing toward the mean."""
    amount: Any
    """e"""
    delta: Any
    mel_floor: Any
    """Of one element, all predictions."""
    free_bits: Any
    stop_negative: Any
    """(a, b) of target 0: ``a * softplus(-x) + b * softplus(x)``."""
    stop_positive: Any
    stop_floors: Any
    """Of targets 0 and 1."""
    inverse_sigma: Any


class Work(NamedTuple):
    """What a program of either pass does its part of."""

    lengths: Lengths
    mel: Mel
    latents: Latents
    stop: Stop
    attention: Attention
    axes: Axes
    ranges: Ranges
    numbers: Numbers
    seed: Any
    """Of the noise, 32 bits."""


class Options(NamedTuple):
    """What the kernel is compiled for."""

    BACKWARD: bool
    """Write gradients alone, times the gradient that arrived."""
    IN_PLACE: bool
    """In the backward pass: the gradients hold what the forward pass wrote, so agreement needs no work."""
    ACTIVE: int
    """Bit i: term i enters the total."""
    BINS: int
    LATENTS: int
    HEADS: tuple[int, ...]
    """Heads before each layer, and their total at the end."""
    LOSS: str
    SMOOTHING: str
    BY_UTTERANCE: bool
    KL_PER_FRAME: bool
    KL_BY: str
    """``"frames"`` or ``"vectors"``"""
    ELBO: bool
    FREE_BITS: bool
    NORMALIZER: str
    """``"none"``, ``"counts"`` or ``"scalar"``"""
    NORMALIZER_ON_DEVICE: tuple[bool, ...]
    """Whether each part is a pointer."""
    SCALE_ON_DEVICE: bool
    STATE: bool
    METHOD: str
    """``"fixed"`` leaves the state alone."""
    ADVANCE: bool
    """The noise step moves on."""
    MEL_TILE: tuple[int, ...]
    """(elements,) where each utterance is one run, (frames, bins) otherwise."""
    MEL_ALIGN: int
    """Divides T * C and every stride between utterances; divides T in tiles of (frames, bins)."""
    KL_TILE: tuple[int, int]
    """(vectors, latents)"""
    STOP_TILE: int
    STOP_ALIGN: int
    """Divides S and the strides between utterances where steps are contiguous; 1 otherwise."""
    ATTENTION_TILE: tuple[int, int]
    """(steps, symbols)"""
    ATTENTION_ALIGN: int
    """Divides N and every stride but its own, which is 1; or is 1 itself."""
    BATCH_BLOCK: int
    REDUCE_BLOCK: int
    ACC: Any
    """float32, or float64 where an input is."""
