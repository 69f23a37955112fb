"""How far speech is from the recording of its text, the two warped onto each other in time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ttsfast.evaluation.dtw import warp
from ttsfast.evaluation.metrics import finite

if TYPE_CHECKING:
    from ttsfast.data.features.contract import MelContract

CEPSTRA = 13
"""Cepstral coefficients 1 to 13 are compared; coefficient 0, the level, is not."""

DECIBELS = 10.0 / math.log(10.0) * math.sqrt(2.0)

HEARD = 0.75
"""A frame of the recording is heard when the speech has less than this of the distortion that the corpus
mean has there. The best path through any speech does somewhat better than the mean by chance. Of sentences
that one speaker recorded twice, one recording is heard in the other to 0.87, in its first three quarters to
0.63, in its first half to 0.46, in a recording of another sentence to 0.31, and in silence to 0.14; in a
voice of hers after 250, 500 and 1,000 steps to 0.38, 0.67 and 0.76."""


def mel_cepstra(log_mel: np.ndarray | Tensor, contract: MelContract) -> np.ndarray:
    """(T, 13) coefficients 1 to 13 of the cosine transform of a natural-log amplitude mel spectrum.

    ``c_m = 2/C * sum_k L_k cos(pi m (k + 1/2) / C)``, so that ``L_k = c_0/2 + sum_m c_m cos(...)``: the
    scaling for which :data:`DECIBELS` turns a distance into decibels. ``L`` is the contract's log-mel
    brought to base e and divided by its power (a log power is twice a log amplitude).

    Args:
        log_mel: (T, C) in the contract's log units, C > 13.
        contract: says the log's base and the spectrum's power.
    """
    values = finite(log_mel, "the log-mel", 2)
    bins = values.shape[1]
    if bins <= CEPSTRA:
        raise ValueError(f"cepstra 1 to {CEPSTRA} need more than {CEPSTRA} mel bins, got {bins}")
    to_natural = math.log(10.0) if contract.log_base == "10" else 1.0
    m = np.arange(1, CEPSTRA + 1)[None, :]
    k = np.arange(bins)[:, None]
    basis = 2.0 / bins * np.cos(np.pi * m * (k + 0.5) / bins)
    return (values * (to_natural / contract.power)) @ basis


@dataclass(frozen=True)
class Warped:
    """Frames of speech and of its recording, paired along the best time warping."""

    distortions: np.ndarray
    """(P,) dB, of each pair"""
    spoken: np.ndarray
    """(P,) the spoken frame of each pair"""
    recorded: np.ndarray
    """(P,) the recorded frame of each pair"""
    of_mean: np.ndarray
    """(U,) dB, of the corpus mean against each recorded frame"""

    @property
    def mcd(self) -> float:
        """Mel-cepstral distortion, dB: the mean over pairs."""
        return float(self.distortions.mean())

    @property
    def mcd_sl(self) -> float:
        """The same times the longer length over the shorter one (MCD-DTW-SL, Chen et al., 2022), dB.

        Warping forgives speech that runs on or ends too soon; this does not.
        """
        shorter, longer = sorted((int(self.spoken[-1]) + 1, int(self.recorded[-1]) + 1))
        return self.mcd * longer / shorter

    @property
    def heard(self) -> float:
        """Share of the recording that is heard in the speech, however long the speech goes on.

        A recorded frame is heard when one of its pairs has less than :data:`HEARD` of the distortion that
        the corpus mean has there. It needs no attention, so it holds for any model: what was skipped, mumbled
        or never reached is not heard.
        """
        closest = np.full(len(self.of_mean), np.inf)
        np.minimum.at(closest, self.recorded, self.distortions)
        return float((closest < HEARD * self.of_mean).mean())


def warped(predicted: np.ndarray | Tensor, target: np.ndarray | Tensor, contract: MelContract) -> Warped:
    """Pair the frames of two log-mels along the path of least mel-cepstral distortion.

    The distortion of a pair is ``10 / ln 10 * sqrt(2 * sum_{m=1}^{13} (c_m - c'_m)^2)`` (Kubichek, 1993), the
    path that of :func:`ttsfast.evaluation.dtw.warp` with the least sum of it. The cepstra come from the
    log-mel itself (:func:`mel_cepstra`), not from a vocoder's analysis: compare figures made here with each
    other, not with published ones.

    Args:
        predicted: (T, C) in the contract's log units, less the corpus mean.
        target: (U, C) likewise. The mean cancels in the distortion of two; it is what ``of_mean`` is of.
        contract: of both.
    """
    a, b = mel_cepstra(predicted, contract), mel_cepstra(target, contract)
    squared = np.zeros((len(a), len(b)))
    for m in range(CEPSTRA):
        squared += np.subtract.outer(a[:, m], b[:, m]) ** 2
    distortion = DECIBELS * np.sqrt(squared)
    path = warp(distortion)
    return Warped(distortion[path], *path, DECIBELS * np.sqrt((b**2).sum(axis=1)))
