"""From a waveform to log-mel features, by a contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.spectra import log_mel_of_padded, log_mels_on_device, padded

if TYPE_CHECKING:
    import torch


def log_mel(wave: np.ndarray, contract: MelContract) -> np.ndarray:
    """Log-mel features (T, n_mels) float32 of float32 samples (samples,) at the contract's sample rate.

    Raises InputError for a waveform too short for the contract's padding, ValueError for one that is not
    one-dimensional floating-point samples.
    """
    return log_mel_of_padded(padded(wave, contract), contract)


def log_mels(
    waves: Sequence[np.ndarray], contract: MelContract, device: torch.device | str
) -> list[np.ndarray]:
    """:func:`log_mel` of several waveforms at a time on a torch device; equal to it to 1e-5.

    The bits may depend on what else is in the batch. Raises as :func:`log_mel` does.
    """
    import torch

    return log_mels_on_device([padded(wave, contract) for wave in waves], contract, torch.device(device))
