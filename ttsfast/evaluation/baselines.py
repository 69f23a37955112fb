"""What the figures are worth: the same ones for readers that learned nothing, and for a perfect one.

``predict_mean`` says the corpus mean in every frame, for as long as the text's length suggests;
``uniform_attention`` attends to everything at once; ``copy_synthesis`` is the recording itself, sent
through its log-mel and Griffin-Lim and back: what is lost to the features, not to the model.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.data.features.mel import log_mel
from ttsfast.data.store.utterance import Utterance
from ttsfast.evaluation import metrics
from ttsfast.evaluation.metrics import WeightedMeans


def predict_mean(
    utterances: Iterable[Utterance],
    mel_std: np.ndarray,
    contract: MelContract,
    frames_per_symbol: float | None,
) -> dict[str, float]:
    """The figures of predicting every bin's corpus mean, which is 0 in normalised units.

    Args:
        utterances: at least one.
        mel_std: (C,) standard deviations of the features.
        contract: of the features.
        frames_per_symbol: of the training split, for ``duration_error``; None leaves that out.

    Returns:
        ``mel_l1`` and ``mel_l1_log`` (mean over frames); ``mcd_dtw`` and ``duration_error`` (mean over the
        utterances that are not truncated, absent without one).
    """
    means = WeightedMeans()
    for utterance in utterances:
        mel, length = utterance.mel.astype(np.float32), len(utterance.mel)
        silent = np.zeros_like(mel)
        means.add("mel_l1", metrics.mel_l1(silent, mel), length)
        means.add("mel_l1_log", metrics.mel_l1(silent, mel, mel_std), length)
        if not utterance.truncated:
            means.add("mcd_dtw", metrics.mcd_dtw(silent, mel * mel_std, contract))
            if frames_per_symbol is not None:
                guess = max(1, round(frames_per_symbol * len(utterance.text)))
                means.add("duration_error", metrics.duration_error(guess, length))
    return means.result()


def uniform_attention(shapes: Iterable[tuple[int, int]]) -> dict[str, float]:
    """``diagonal_mass`` (mean over decoder steps) of attending to all symbols alike.

    Args:
        shapes: (S, N), decoder steps and symbols, of each utterance; at least one.
    """
    means = WeightedMeans()
    for steps, symbols in shapes:
        mass = metrics.diagonal_mass(np.full((steps, symbols), 1.0 / symbols))
        means.add("diagonal_mass", mass, steps)
    return means.result()


def copy_synthesis(
    log_mels: Iterable[np.ndarray], mel_std: np.ndarray, contract: MelContract
) -> dict[str, float]:
    """The figures of recordings that went from log-mel to sound (Griffin-Lim) and back to log-mel.

    Args:
        log_mels: (T, C) each, in the contract's log units; at least one.
        mel_std: (C,) standard deviations of the features, for ``mel_l1`` in normalised units.
        contract: of the features.

    Returns:
        ``mel_l1`` and ``mel_l1_log`` (mean over frames), ``mcd_dtw`` (mean over utterances).
    """
    means = WeightedMeans()
    for original in log_mels:
        copied = log_mel(griffin_lim(original, contract), contract)
        # The round trip may lose or gain a last, partial frame.
        common = min(len(original), len(copied))
        a, b = copied[:common] / mel_std, original[:common] / mel_std
        means.add("mel_l1", metrics.mel_l1(a, b), common)
        means.add("mel_l1_log", metrics.mel_l1(a, b, mel_std), common)
        means.add("mcd_dtw", metrics.mcd_dtw(copied, original, contract))
    return means.result()
