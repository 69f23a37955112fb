"""From log-mels back to samples: fast Griffin-Lim."""

from __future__ import annotations

import numpy as np

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.filterbank import mel_filters


def griffin_lim(
    features: np.ndarray, contract: MelContract, *, n_iter: int = 60, momentum: float = 0.99, seed: int = 0
) -> np.ndarray:
    """A waveform (samples,) float32 whose log-mels are about ``features`` (T, n_mels); the same every time.

    Magnitudes come from the mels by non-negative least squares, phases from librosa's fast Griffin-Lim
    (Perraudin et al., 2013). The length is a whole number of hops, at least one; ``log_mel`` makes T frames
    of it again.
    Raises ValueError when ``features`` has another number of bins than the contract, or no frame.
    """
    import librosa

    if features.ndim != 2 or features.shape[1] != contract.n_mels or len(features) == 0:
        raise ValueError(f"expected log-mels (T, {contract.n_mels}), got {features.shape}")
    mel = (
        np.exp(features.astype(np.float64))
        if contract.log_base == "e"
        else 10.0 ** features.astype(np.float64)
    )
    magnitude = _nonnegative_inverse(mel, mel_filters(contract).astype(np.float64)) ** (1.0 / contract.power)
    # Run on the padded waveform, without centring: there every padding mode is the same, and the pad,
    # whatever it was, is cut off at the end.
    padded = librosa.griffinlim(
        magnitude.T,
        n_iter=n_iter,
        hop_length=contract.hop_length,
        win_length=contract.win_length,
        n_fft=contract.n_fft,
        center=False,
        momentum=momentum,
        random_state=seed,
    )
    hops = len(features) if contract.padding == "hifigan" else len(features) - 1
    wave = np.zeros(max(1, hops) * contract.hop_length, dtype=np.float32)
    part = padded[contract.pad : contract.pad + len(wave)]
    wave[: len(part)] = part
    return wave


def _nonnegative_inverse(mel: np.ndarray, filters: np.ndarray, iterations: int = 50) -> np.ndarray:
    """Spectra (T, bins) >= 0 with spectra @ filters.T about mel (T, n_mels); Lee and Seung, 2001."""
    tiny = np.finfo(np.float64).tiny
    spectra = np.maximum(mel @ np.linalg.pinv(filters).T, 0.0) + 1e-3 * mel @ filters
    target = mel @ filters
    for _ in range(iterations):
        spectra *= target / (spectra @ filters.T @ filters + tiny)
    return spectra
