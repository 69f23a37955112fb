"""From log-mels back to samples: fast Griffin-Lim."""

from __future__ import annotations

import math

import numpy as np
import torch

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.filterbank import hann_window, mel_filters
from ttsfast.devices import torch_threads

# Frames at a time: few enough for a core's own caches.
_BLOCK = 64
# Beside the loudest magnitude, which is about 1: nothing, but no division by it fails.
_NOTHING = np.float32(1e-16)


def griffin_lim(
    features: np.ndarray, contract: MelContract, *, n_iter: int = 60, momentum: float = 0.99, seed: int = 0
) -> np.ndarray:
    """A waveform (samples,) float32 whose log-mels are about ``features`` (T, n_mels); the same bits every
    time, whatever the number of threads.

    Magnitudes are those of :func:`magnitudes`, phases come from fast Griffin-Lim (Perraudin, Balazs and
    Søndergaard, 2013) and start at random, by ``seed``. The length is a whole number of hops, at least one;
    ``log_mel`` makes T frames of it again.
    Raises ValueError when ``features`` has another number of bins than the contract, no frame, or a value
    that is not finite.
    """
    if features.ndim != 2 or features.shape[1] != contract.n_mels or len(features) == 0:
        raise ValueError(f"expected log-mels (T, {contract.n_mels}), got {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("expected finite log-mels, got NaN or Inf")
    # Relative to the loudest, so that single precision serves whatever the level.
    level = float(features.max())
    # A transform of so few frames gains nothing from several threads, and waits for each of them.
    with torch_threads(1):
        padded = _with_phases(magnitudes(features - level, contract), contract, n_iter, momentum, seed)
    padded *= math.exp(level * (1.0 if contract.log_base == "e" else math.log(10.0)) / contract.power)
    hops = len(features) if contract.padding == "hifigan" else len(features) - 1
    wave = np.zeros(max(1, hops) * contract.hop_length, dtype=np.float32)
    part = padded[contract.pad : contract.pad + len(wave)]
    wave[: len(part)] = part
    return wave


def magnitudes(features: np.ndarray, contract: MelContract, *, n_iter: int = 20) -> np.ndarray:
    """Magnitudes (T, n_fft / 2 + 1) float32, none negative, whose log-mels are ``features`` (T, n_mels).

    Non-negative least squares by accelerated projected gradients (Beck and Teboulle, 2009, FISTA) from the
    spectrum of least norm. The residual is weighed by the inverse of the filters' Gram matrix, F F': with
    that the gradient is the residual times the pseudo-inverse of F, the right step is 1, and filters of
    different heights, that overlap, come as fast as one would alone.
    """
    logarithm = 1.0 if contract.log_base == "e" else math.log(10.0)
    mel = torch.from_numpy(np.exp(logarithm * features.astype(np.float64)).astype(np.float32))
    filters = mel_filters(contract)
    analysis = torch.from_numpy(np.ascontiguousarray(filters.T))
    synthesis = torch.from_numpy(np.linalg.pinv(filters.astype(np.float64)).T.astype(np.float32))
    found = np.empty((len(mel), len(analysis)), dtype=np.float32)
    for start in range(0, len(mel), _BLOCK):
        wanted = mel[start : start + _BLOCK]
        spectra = (wanted @ synthesis).clamp_(min=0.0)
        ahead, speed = spectra, 1.0
        for _ in range(n_iter):
            residual = torch.addmm(wanted, ahead, analysis, alpha=-1.0)
            before, spectra = spectra, torch.addmm(ahead, residual, synthesis).clamp_(min=0.0)
            last, speed = speed, (1.0 + math.sqrt(1.0 + 4.0 * speed * speed)) / 2.0
            ahead = torch.lerp(before, spectra, 1.0 + (last - 1.0) / speed)
        found[start : start + _BLOCK] = spectra.numpy()
    return found if contract.power == 1.0 else np.sqrt(found, out=found)


def _with_phases(
    magnitude: np.ndarray, contract: MelContract, n_iter: int, momentum: float, seed: int
) -> np.ndarray:
    """Samples of the padded waveform, float32, whose spectra have the magnitudes (T, bins).

    Padded, and its frames not centred: there every padding is the same, and is cut off at the end. A turn
    takes a block of frames through the whole of an iteration while it is in the cache. All but the
    transforms is numpy's, which has one thread, and less to do before each of so many small operations.
    """
    frames, bins = magnitude.shape
    n_fft, hop = contract.n_fft, contract.hop_length
    window = hann_window(contract).astype(np.float32)
    # A row for each hop.
    wave = np.zeros((frames - 1 + -(-n_fft // hop), hop), dtype=np.float32)
    _overlap_add(wave, 0, np.broadcast_to(window * window, (frames, n_fft)))
    scale = 1.0 / np.where(wave > np.finfo(np.float32).tiny, wave, np.float32(1.0))
    following = np.empty_like(wave)
    # Real and imaginary parts; the first ones, of which only the phases count, are random.
    spectra = np.random.default_rng(seed).standard_normal((frames, bins, 2), dtype=np.float32)
    before = np.zeros_like(spectra)
    share = np.float32(momentum / (1.0 + momentum))
    size = min(_BLOCK, frames)
    windowed, spoken = (torch.empty(size, n_fft) for _ in range(2))
    wanted, factor = torch.empty(size, bins, dtype=torch.complex64), np.empty((size, bins), dtype=np.float32)
    for iteration in range(n_iter + 1):
        following.fill(0.0)
        cut = np.lib.stride_tricks.sliding_window_view(wave.reshape(-1), n_fft)[::hop]
        for start in range(0, frames, size):
            part = slice(start, start + size)
            count = len(magnitude[part])
            if iteration > 0:
                np.multiply(cut[part], window, out=windowed[:count].numpy())
                now = torch.view_as_complex(torch.from_numpy(spectra[part]))
                torch.fft.rfft(windowed[:count], out=now)
            # What the transforms gave, and a step on from what they gave the last time; of that, the phase.
            phases, level = wanted[:count].numpy(), factor[:count]
            parts = phases.view(np.float32).reshape(count, bins, 2)
            np.multiply(before[part], -share, out=parts)
            parts += spectra[part]
            np.abs(phases, out=level)
            level += _NOTHING
            np.divide(magnitude[part], level, out=level)
            np.multiply(phases, level, out=phases)
            back = torch.fft.irfft(wanted[:count], n=n_fft, out=spoken[:count]).numpy()
            back *= window
            _overlap_add(following, start, back)
        following *= scale
        wave, following = following, wave
        if iteration > 0:
            spectra, before = before, spectra
    return wave.reshape(-1)


def _overlap_add(wave: np.ndarray, start: int, frames: np.ndarray) -> None:
    """Add frames (T, n_fft), one a hop, to a wave (hops, hop_length) from hop ``start`` on."""
    hop = wave.shape[1]
    for number, begin in enumerate(range(0, frames.shape[1], hop)):
        part = frames[:, begin : begin + hop]
        wave[start + number : start + number + len(part), : part.shape[1]] += part
