"""From a waveform to log-mel features, by three ways that agree to 1e-5: the C++ extension (the fast one),
numpy (where the extension is missing) and torch (many waveforms at a time, on a GPU).

All transform in float64: in float32 the rounding of loud components moves quiet bins of real speech by 1e-3
in the logarithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast import native
from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.filterbank import hann_window, mel_filters
from ttsfast.errors import InputError

if TYPE_CHECKING:
    import torch

# Frames that numpy works on at a time: few enough for a core's own caches.
_BLOCK = 64
# Filters that are applied at a time, to the bins that one of them covers.
_FILTERS = 16
# Below this the square of a magnitude is no normal float32.
_LEAST_SINGLE = 1e-18
# That a device transforms at a time: in float64, with frames that overlap four times, about 1 GB.
_SAMPLES = 1 << 23


def log_mel(wave: np.ndarray, contract: MelContract) -> np.ndarray:
    """Log-mel features (T, n_mels) float32 of float32 samples (samples,) at the contract's sample rate.

    With the extension, one pass, and the same bits whatever the processor's instruction set; without it, the
    same to 1e-5. Raises InputError for a waveform too short for the contract's padding, ValueError for one
    that is not one-dimensional floating-point samples.
    """
    samples = padded(wave, contract)
    return _by_numpy(samples, contract) if native.core is None else _plan(contract)(samples)


def log_mels(
    waves: Sequence[np.ndarray], contract: MelContract, device: torch.device | str
) -> list[np.ndarray]:
    """:func:`log_mel` of several waveforms at a time on a torch device; equal to it to 1e-5.

    The bits may depend on what else is in the batch. Raises as :func:`log_mel` does.
    """
    import torch

    device = torch.device(device)
    samples = [padded(wave, contract) for wave in waves]
    # Those of about one length together.
    groups: list[list[int]] = [[]]
    for number in sorted(range(len(samples)), key=lambda number: len(samples[number])):
        if groups[-1] and len(samples[number]) * (len(groups[-1]) + 1) > _SAMPLES:
            groups.append([])
        groups[-1].append(number)
    found = {
        number: mel
        for group in groups
        for number, mel in zip(group, _group_on_device(samples, group, contract, device), strict=True)
    }
    return [found[number] for number in range(len(samples))]


def _group_on_device(
    samples: Sequence[np.ndarray], group: Sequence[int], contract: MelContract, device: torch.device
) -> list[np.ndarray]:
    import torch

    lengths = [len(samples[number]) for number in group]
    # Pinned, so that the copy to a GPU does not pass through a buffer.
    batch = torch.zeros(len(group), max(lengths), pin_memory=device.type == "cuda")
    for row, number in zip(batch, group, strict=True):
        row[: len(samples[number])] = torch.from_numpy(samples[number])
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


def _by_numpy(samples: np.ndarray, contract: MelContract) -> np.ndarray:
    window, groups = hann_window(contract), _filter_groups(contract)
    covered = max(bins.stop for _, bins, _ in groups)
    frames = np.lib.stride_tricks.sliding_window_view(samples, contract.n_fft)[:: contract.hop_length]
    mel = np.empty((len(frames), contract.n_mels), dtype=np.float32)
    # After the transform single precision is enough: nothing is subtracted any more.
    single = contract.floor >= _LEAST_SINGLE
    windowed = np.empty((_BLOCK, contract.n_fft))
    spectra = np.empty((_BLOCK, covered), dtype=np.complex64 if single else np.complex128)
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK]
        spectrum = spectra[: len(block)]
        spectrum[:] = np.fft.rfft(np.multiply(block, window, out=windowed[: len(block)]))[:, :covered]
        level = spectrum.real**2 + spectrum.imag**2
        level += contract.magnitude_epsilon
        if contract.power == 1.0:
            np.sqrt(level, out=level)
        magnitude, found = level.astype(np.float32, copy=False), mel[start : start + _BLOCK]
        for mels, bins, weights in groups:
            np.matmul(magnitude[:, bins], weights, out=found[:, mels])
    np.maximum(mel, np.float32(contract.floor), out=mel)
    return np.log(mel, out=mel) if contract.log_base == "e" else np.log10(mel, out=mel)


@lru_cache(maxsize=8)
def _filter_groups(contract: MelContract) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """The filters, the bins and the weights (bins, filters) of each group; a mel filter covers few bins, and
    its neighbours about the same ones.
    """
    filters, groups = mel_filters(contract), []
    for first in range(0, len(filters), _FILTERS):
        group = filters[first : first + _FILTERS]
        used = np.flatnonzero(group.any(axis=0))
        bins = slice(int(used[0]), int(used[-1]) + 1)
        weights = np.ascontiguousarray(group[:, bins].T)
        groups.append((slice(first, first + len(group)), bins, weights))
    return tuple(groups)


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


def padded(wave: np.ndarray, contract: MelContract) -> np.ndarray:
    """Samples (samples,) with the contract's padding on both sides, float32: what its frames are cut from.

    Raises as :func:`log_mel` does.
    """
    if wave.ndim != 1 or not np.issubdtype(wave.dtype, np.floating):
        raise ValueError(f"expected floating-point samples (samples,), got {wave.dtype} {wave.shape}")
    # Reflection takes its samples from inside the waveform, the edge sample itself not repeated.
    least = 1 if contract.padding == "center_zero" else contract.pad + 1
    least = max(least, contract.n_fft - 2 * contract.pad)
    if len(wave) < least:
        raise InputError(
            f"the recording has {len(wave)} samples, the mel contract needs at least {least} "
            f"({1000 * least / contract.sample_rate:.0f} ms); remove it from the corpus"
        )
    pad, end = contract.pad, contract.pad + len(wave)
    samples = np.zeros(len(wave) + 2 * pad, dtype=np.float32)
    samples[pad:end] = wave
    if contract.padding != "center_zero":
        samples[:pad] = samples[2 * pad : pad : -1]
        samples[end:] = samples[end - 2 : end - 2 - pad : -1]
    return samples
