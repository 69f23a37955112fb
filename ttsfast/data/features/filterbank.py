"""What a contract's spectra are made and weighed with: the window and the triangular mel filters."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ttsfast.errors import InputError
from ttsfast.pages.plots import MelAxes

if TYPE_CHECKING:
    from ttsfast.data.features.contract import MelContract

# Slaney, 1998, "Auditory Toolbox": 200/3 Hz a mel below 1 kHz, 27 mels for a factor 6.4 above.
_LINEAR, _KNEE, _LOG_STEP = 200.0 / 3.0, 1000.0, np.log(6.4) / 27.0


@lru_cache(maxsize=8)
def hann_window(contract: MelContract) -> np.ndarray:
    """The periodic Hann window, centred in n_fft samples (n_fft,) float64."""
    phase = 2 * np.pi * np.arange(contract.win_length) / contract.win_length
    window = np.zeros(contract.n_fft)
    start = (contract.n_fft - contract.win_length) // 2
    window[start : start + contract.win_length] = 0.5 - 0.5 * np.cos(phase)
    window.setflags(write=False)
    return window


@lru_cache(maxsize=8)
def mel_filters(contract: MelContract) -> np.ndarray:
    """The filterbank (n_mels, n_fft / 2 + 1) float32; raises InputError when a filter covers no bin.

    Equal to librosa's but for the last bit; computed here because importing librosa costs every worker
    process a second and 140 MB.
    """
    edges = _edges(contract)[:, None]
    bins = np.arange(contract.n_fft // 2 + 1) * (contract.sample_rate / contract.n_fft)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(np.minimum(rising, falling), 0.0)
    if contract.mel_norm == "slaney":
        filters *= 2.0 / (edges[2:] - edges[:-2])
    found = filters.astype(np.float32)
    empty = np.flatnonzero(found.max(axis=1) == 0)
    if empty.size:
        raise InputError(
            f"mel contract: filter {empty[0]} of n_mels = {contract.n_mels} covers no frequency bin; "
            "use fewer n_mels or a larger n_fft"
        )
    found.setflags(write=False)
    return found


def mel_axes(contract: MelContract) -> MelAxes:
    """What a picture of log-mels by ``contract`` shows along its axes."""
    logarithm = "log10" if contract.log_base == "10" else "ln"
    return MelAxes(
        frame_seconds=contract.hop_length / contract.sample_rate,
        frequencies=_edges(contract)[1:-1],
        unit=f"{logarithm} {'power' if contract.power == 2.0 else 'amplitude'}",
    )


def _edges(contract: MelContract) -> np.ndarray:
    """(n_mels + 2,) Hz: filter i rises from edge i to i + 1 and falls to i + 2."""
    htk = contract.mel_scale == "htk"
    low, high = (_to_mel(np.array(hz), htk) for hz in (contract.fmin, contract.fmax))
    return _to_hz(np.linspace(low, high, contract.n_mels + 2), htk)


def _to_mel(hz: np.ndarray, htk: bool) -> np.ndarray:
    if htk:
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    # The maximum keeps the branch that is not taken free of warnings.
    return np.where(
        hz < _KNEE, hz / _LINEAR, _KNEE / _LINEAR + np.log(np.maximum(hz, _KNEE) / _KNEE) / _LOG_STEP
    )


def _to_hz(mel: np.ndarray, htk: bool) -> np.ndarray:
    if htk:
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    knee = _KNEE / _LINEAR
    return np.where(mel < knee, mel * _LINEAR, _KNEE * np.exp(_LOG_STEP * (mel - knee)))
