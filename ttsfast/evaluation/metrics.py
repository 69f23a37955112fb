"""What is measured on held-out speech, each figure for one utterance, as a pure function.

Arrays are NumPy arrays or tensors, already cut to their valid region: nothing here knows of padding. A
value that is not finite, an empty array or a wrong shape raises ValueError: a figure is either right or
absent.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ttsfast.models.reading import PASSED_AT_ONCE, missed

DIAGONAL_BAND = 0.15
"""Half width of the diagonal band, as a share of the utterance."""

FOCUS = 0.5
"""A step is focused when this much of its attention lies on one symbol and its two neighbours."""

STOP_TOLERANCE_FRAMES = 8
"""How far from the true end a stop may fire, in mel frames; every batch is padded by at least as many."""

RAN_ON = 1.5
CUT_SHORT = 1 / RAN_ON
"""Of a recording's length. One speaker reads a sentence at much the same pace twice; half as long again is
a word that never ends, or babble after the last one, and a third less is a part left out."""


def finite(values: np.ndarray | Tensor, name: str, dimensions: int) -> np.ndarray:
    """``values`` as a float64 array; raise ValueError when it is empty, misshapen or not finite."""
    if isinstance(values, Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(
            f"{name} must be a non-empty array of {dimensions} dimensions, got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a value that is not finite")
    return array


def mel_l1(
    predicted: np.ndarray | Tensor, target: np.ndarray | Tensor, mel_std: np.ndarray | Tensor | None = None
) -> float:
    """Mean absolute difference of two log-mels, over frames and bins.

    Args:
        predicted: (T, C) in normalised units.
        target: (T, C) in normalised units.
        mel_std: (C,) the corpus' standard deviation of each bin. With it the difference is in the log units
            of the features themselves (the mean cancels); without it, in standard deviations.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    p, t = finite(predicted, "the predicted mel", 2), finite(target, "the target mel", 2)
    if p.shape != t.shape:
        raise ValueError(f"the predicted mel {p.shape} and the target mel {t.shape} differ in shape")
    difference = np.abs(p - t)
    if mel_std is not None:
        difference = difference * finite(mel_std, "mel_std", 1)
    return float(difference.mean())


def _attention(attention: np.ndarray | Tensor) -> np.ndarray:
    rows = finite(attention, "the attention", 2)
    if rows.min() < 0 or rows.sum(axis=1).max() > 1.05:
        raise ValueError("attention weights must be non-negative and sum to at most 1 in each step")
    return rows


def diagonal_mass(attention: np.ndarray | Tensor, band: float = DIAGONAL_BAND) -> float:
    """Share of the attention that lies near the diagonal: ``|n / N - s / S| <= band``, mean over steps.

    The band is that of the guided attention penalty (Tachibana, Uenoyama and Aihara, 2017, section 4),
    with a hard edge. A step whose weights sum to less than 1, because it attends to padding, keeps what it
    lost out of the share. Uniform attention scores about 0.28.

    Args:
        attention: (S, N) decoder steps by text symbols.
        band: half width, as a share of the whole.
    """
    rows = _attention(attention)
    steps, symbols = rows.shape
    s = np.arange(steps)[:, None] / steps
    n = np.arange(symbols)[None, :] / symbols
    near = np.where(np.abs(n - s) <= band, rows, 0.0).sum(axis=1)
    return float((near / np.maximum(rows.sum(axis=1), 1.0)).mean())


def coverage(attention: np.ndarray | Tensor) -> float:
    """Share of the text's symbols that the decoder read.

    A symbol is read when a *focused* step attends to it most; a step is focused when at least
    :data:`FOCUS` of its weight lies on that symbol and its two neighbours. Short runs between two read ones,
    and the outermost symbols, are forgiven as in :func:`ttsfast.models.reading.missed`. So a complete reading
    scores 1, a skipped word or a cut end loses all of its symbols, and attention spread thinly over the text
    scores 0.

    It says nothing of order: read it beside :func:`diagonal_mass`.

    Args:
        attention: (S, N) decoder steps by text symbols.
    """
    rows = _attention(attention)
    symbols = rows.shape[1]
    peak = rows.argmax(axis=1)
    padded = np.pad(rows, ((0, 0), (1, 1)))
    around = np.take_along_axis(padded, peak[:, None] + np.arange(3), axis=1).sum(axis=1)
    visited = np.unique(peak[around >= FOCUS])
    return 1.0 - missed(visited, symbols) / symbols


def monotonicity(attention: np.ndarray | Tensor) -> float:
    """Share of steps after which the most attended symbol stays or moves forward by a speaker's pace.

    A move is good when it goes 0 to ``PASSED_AT_ONCE + 1`` symbols forward. A decoder that stares at one
    symbol scores 1: read it beside :func:`coverage`.

    Args:
        attention: (S, N) decoder steps by text symbols, S >= 2.
    """
    moves = np.diff(_attention(attention).argmax(axis=1))
    if moves.size == 0:
        raise ValueError("monotonicity needs at least two decoder steps")
    return float(((moves >= 0) & (moves <= PASSED_AT_ONCE + 1)).mean())


def first_fire(stop_logits: np.ndarray | Tensor, threshold: float = 0.5) -> int | None:
    """The first step whose stop probability reaches ``threshold``; None when none does.

    Args:
        stop_logits: (S,)
        threshold: a probability strictly between 0 and 1.
    """
    logits = finite(stop_logits, "the stop logits", 1)
    fired = np.flatnonzero(logits >= logit(threshold))
    return int(fired[0]) if fired.size else None


def logit(probability: float) -> float:
    """``log(p / (1 - p))``; raise ValueError outside (0, 1)."""
    if not 0.0 < probability < 1.0:
        raise ValueError(f"a stop threshold lies strictly between 0 and 1, got {probability}")
    return math.log(probability / (1.0 - probability))


def stop_f1(fire: int | None, last_step: int, tolerance: int) -> tuple[float, int]:
    """What one utterance brings to the F1 of finding the end of speech.

    The predicted event is the first fire; it is a true positive within ``tolerance`` steps of the true
    last step. An earlier fire is a false positive and leaves the true end unfound (a false negative). A
    later one counts as no fire at all, a false negative alone: how far a batch lets one look past the end
    depends on who else is in it. ``F1 = 2 TP / (2 TP + FP + FN)`` is the mean of the values so weighted.

    Args:
        fire: the utterance's :func:`first_fire`.
        last_step: its last valid step, counted from 0.
        tolerance: steps.

    Returns:
        1.0 for a true positive, else 0.0; and its part of the denominator.
    """
    if fire is None or fire > last_step + tolerance:
        return 0.0, 1
    return float(fire >= last_step - tolerance), 2


def duration_error(predicted_frames: int, target_frames: int) -> float:
    """``|T_hat - T| / T`` of one utterance; raise ValueError when either is not positive."""
    if predicted_frames < 1 or target_frames < 1:
        raise ValueError(f"durations must be positive, got {predicted_frames} and {target_frames} frames")
    return abs(predicted_frames - target_frames) / target_frames


def ran_on(predicted_frames: int, target_frames: int) -> bool:
    """Whether one utterance lasts longer than :data:`RAN_ON` times its recording."""
    return predicted_frames > RAN_ON * target_frames


def cut_short(predicted_frames: int, target_frames: int) -> bool:
    """Whether one utterance lasts less than :data:`CUT_SHORT` times its recording."""
    return predicted_frames < CUT_SHORT * target_frames
