"""From padded samples to log-mels, by three ways that agree to 1e-5: the C++ extension (the fast one), numpy
(where the extension is missing) and torch (many waveforms at a time, on a GPU).

All transform in float64: in float32 the rounding of loud components moves quiet bins of real speech by 1e-3
in the logarithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast import native
from ttsfast.data.filterbank import hann_window, mel_filters

if TYPE_CHECKING:
    import torch

    from ttsfast.data.mel import MelContract

# Frames that numpy transforms at a time: what they take stays in a core's second-level cache.
_BLOCK = 32
# That a device transforms at a time: in float64, with frames that overlap four times, about 1 GB.
_SAMPLES = 1 << 23


def log_mel_of_padded(padded: np.ndarray, contract: MelContract) -> np.ndarray:
    """Log-mels (T, n_mels) float32 of samples (n_fft or more,) that hold the contract's padding already.

    With the extension, one pass, and the same bits whatever the processor's instruction set; without it, the
    same to 1e-5 through numpy.
    """
    if native.core is not None:
        return _plan(contract)(np.ascontiguousarray(padded, dtype=np.float32))
    return _by_numpy(padded, contract)


def log_mels_on_device(
    padded: Sequence[np.ndarray], contract: MelContract, device: torch.device
) -> list[np.ndarray]:
    """:func:`log_mel_of_padded` of several waveforms, to 1e-5, those of about one length together."""
    groups: list[list[int]] = [[]]
    for number in sorted(range(len(padded)), key=lambda number: len(padded[number])):
        if groups[-1] and len(padded[number]) * (len(groups[-1]) + 1) > _SAMPLES:
            groups.append([])
        groups[-1].append(number)
    found = {
        number: mel
        for group in groups
        for number, mel in zip(group, _group_on_device(padded, group, contract, device), strict=True)
    }
    return [found[number] for number in range(len(padded))]


def _group_on_device(
    padded: Sequence[np.ndarray], group: Sequence[int], contract: MelContract, device: torch.device
) -> list[np.ndarray]:
    import torch

    lengths = [len(padded[number]) for number in group]
    # Pinned, so that the copy to a GPU does not pass through a buffer.
    batch = torch.zeros(len(group), max(lengths), pin_memory=device.type == "cuda")
    for row, number in zip(batch, group, strict=True):
        row[: len(padded[number])] = torch.from_numpy(padded[number])
    window, filters = _on_device(contract, device)
    spectrum = torch.stft(
        batch.to(device).double(),
        contract.n_fft,
        contract.hop_length,
        window=window,
        center=False,
        return_complex=True,
    )
    power = spectrum.real**2 + spectrum.imag**2 + contract.magnitude_epsilon
    level = (filters @ (power.sqrt() if contract.power == 1.0 else power)).clamp(min=contract.floor)
    mels = (level.log() if contract.log_base == "e" else level.log10()).float().transpose(1, 2).cpu().numpy()
    frames = [1 + (length - contract.n_fft) // contract.hop_length for length in lengths]
    return [np.ascontiguousarray(mel[:count]) for mel, count in zip(mels, frames, strict=True)]


def _by_numpy(padded: np.ndarray, contract: MelContract) -> np.ndarray:
    from scipy.fft import rfft

    window, filters = hann_window(contract), mel_filters(contract).T
    frames = np.lib.stride_tricks.sliding_window_view(padded, contract.n_fft)[:: contract.hop_length]
    mel = np.empty((frames.shape[0], contract.n_mels), dtype=np.float32)
    for start in range(0, frames.shape[0], _BLOCK):
        spectrum = rfft(frames[start : start + _BLOCK] * window, axis=1)
        power = spectrum.real**2 + spectrum.imag**2 + contract.magnitude_epsilon
        magnitude = np.sqrt(power) if contract.power == 1.0 else power
        mel[start : start + _BLOCK] = magnitude.astype(np.float32) @ filters
    np.maximum(mel, np.float32(contract.floor), out=mel)
    return np.log(mel, out=mel) if contract.log_base == "e" else np.log10(mel, out=mel)


@lru_cache(maxsize=8)
def _plan(contract: MelContract) -> Any:
    assert native.core is not None
    return native.core.MelPlan(
        n_fft=contract.n_fft,
        hop=contract.hop_length,
        window=hann_window(contract),
        filters=mel_filters(contract),
        epsilon=contract.magnitude_epsilon,
        root=contract.power == 1.0,
        floor=contract.floor,
        decimal=contract.log_base == "10",
    )


@lru_cache(maxsize=8)
def _on_device(contract: MelContract, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    window = torch.from_numpy(hann_window(contract).copy())
    return window.to(device), torch.from_numpy(mel_filters(contract).copy()).double().to(device)
