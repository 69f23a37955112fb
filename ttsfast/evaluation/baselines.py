"""What the figures are worth: the same ones for readers that learned nothing, and for a perfect one.

``untrained`` is the same model with fresh weights; ``predict_mean`` says the corpus mean in every frame, for
as long as the text's length suggests; ``uniform_attention`` attends to everything at once;
``copy_synthesis`` is the recording itself, sent through its log-mel and the vocoder and back: what is lost to
the features, not to the model; ``natural`` is the recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.mel import log_mel
from ttsfast.data.store.utterance import Utterance
from ttsfast.evaluation import metrics
from ttsfast.evaluation.distortion import warped
from ttsfast.evaluation.figures import Figures
from ttsfast.synthesis.vocoder import Vocoder


def predict_mean(
    utterances: Iterable[Utterance],
    mel_std: np.ndarray,
    contract: MelContract,
    frames_per_symbol: float | None,
) -> Figures:
    """The figures of predicting every bin's corpus mean, which is 0 in normalised units.

    Args:
        utterances: at least one.
        mel_std: (C,) standard deviations of the features.
        contract: of the features.
        frames_per_symbol: of the training split, for the length; None leaves out what needs it.

    Returns:
        ``mel_l1`` and ``mel_l1_log`` (mean over frames); ``mcd_dtw``, ``heard`` and what the length decides
        (over the utterances that are not truncated, absent without one).
    """
    figures = Figures()
    for utterance in utterances:
        mel, length, name = utterance.mel.astype(np.float32), len(utterance.mel), utterance.id
        silent = np.zeros_like(mel)
        figures.add("mel_l1", name, metrics.mel_l1(silent, mel), length)
        figures.add("mel_l1_log", name, metrics.mel_l1(silent, mel, mel_std), length)
        if not utterance.truncated:
            pairs = warped(silent, mel * mel_std, contract)
            figures.add("mcd_dtw", name, pairs.mcd)
            figures.add("heard", name, pairs.heard, length)
            if frames_per_symbol is not None:
                guess = max(1, round(frames_per_symbol * len(utterance.text)))
                figures.add("duration_error", name, metrics.duration_error(guess, length))
                on, short = metrics.ran_on(guess, length), metrics.cut_short(guess, length)
                figures.add("right_length", name, float(not on and not short))
                figures.add("ran_on", name, float(on))
                figures.add("cut_short", name, float(short))
    return figures


def uniform_attention(shapes: Mapping[str, tuple[int, int]]) -> Figures:
    """``diagonal_mass`` (mean over decoder steps) and ``coverage`` (over symbols) of attending to all alike.

    Args:
        shapes: (S, N), decoder steps and symbols, of each utterance; at least one.
    """
    figures = Figures()
    for name, (steps, symbols) in shapes.items():
        uniform = np.full((steps, symbols), 1.0 / symbols)
        figures.add("diagonal_mass", name, metrics.diagonal_mass(uniform), steps)
        figures.add("coverage", name, metrics.coverage(uniform), symbols)
    return figures


def copy_synthesis(
    log_mels: Iterable[tuple[str, np.ndarray]],
    mel_mean: np.ndarray,
    mel_std: np.ndarray,
    vocoder: Vocoder,
) -> Figures:
    """The figures of recordings that went from log-mel to sound and back to log-mel.

    Args:
        log_mels: each utterance with its (T, C) in the contract's log units; at least one.
        mel_mean, mel_std: (C,) statistics of the features.
        vocoder: what makes sound of mels of their contract.

    Returns:
        ``mel_l1`` and ``mel_l1_log`` (mean over frames), ``mcd_dtw`` and ``mcd_dtw_sl`` (over
        utterances), ``heard`` (over frames).
    """
    figures = Figures()
    for name, original in log_mels:
        copied = log_mel(vocoder(original), vocoder.contract)
        # The round trip may lose or gain a last, partial frame.
        common = min(len(original), len(copied))
        a, b = copied[:common] / mel_std, original[:common] / mel_std
        figures.add("mel_l1", name, metrics.mel_l1(a, b), common)
        figures.add("mel_l1_log", name, metrics.mel_l1(a, b, mel_std), common)
        pairs = warped(copied - mel_mean, original - mel_mean, vocoder.contract)
        figures.add("mcd_dtw", name, pairs.mcd)
        figures.add("mcd_dtw_sl", name, pairs.mcd_sl)
        figures.add("heard", name, pairs.heard, len(original))
    return figures


def natural(utterances: Iterable[str]) -> Figures:
    """The figures of the recordings themselves, from which the others are measured."""
    figures = Figures()
    for utterance in utterances:
        for name in (
            "mel_l1",
            "mel_l1_log",
            "mcd_dtw",
            "mcd_dtw_sl",
            "duration_error",
            "ran_on",
            "cut_short",
        ):
            figures.add(name, utterance, 0.0)
        for name in ("heard", "right_length"):
            figures.add(name, utterance, 1.0)
    return figures
