"""What a store may hold beside the log-mel, one value for each of its frames: pitch and energy.

Frame t is centred where frame t of the mel is, and there are as many, whatever the contract's padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.filterbank import hann_window
from ttsfast.data.features.mel import padded

NAMES = ("pitch", "energy")
PITCH_RANGE = (65.0, 600.0)
"""Hz: of speaking voices, a bass's lowest and a child's highest."""
SEMITONES = 0.2
"""From one pitch that pYIN's path can take to the next; what is stored is finer, see :func:`pitch`."""
METHODS = {
    "pitch": f"pyin and yin, {PITCH_RANGE[0]:g} to {PITCH_RANGE[1]:g} Hz, {SEMITONES:g} semitones",
    "energy": "L2 norm of the magnitudes",
}
"""By name, what a store's options and fingerprint say of them: changed whenever the numbers are."""
UNITS = {"pitch": "Hz, over voiced frames", "energy": "magnitude, over all frames"}
DTYPE = np.dtype("<f4")

# Frames at a time: what they take stays in a core's cache.
_BLOCK = 64


def compute(wave: np.ndarray, contract: MelContract, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The tracks ``names`` of samples (samples,) float32, each (T,) float32 with T as ``log_mel`` gives it.

    Raises as :func:`ttsfast.data.features.mel.log_mel` does.
    """
    makers = {"pitch": pitch, "energy": energy}
    return {name: makers[name](wave, contract) for name in names}


def energy(wave: np.ndarray, contract: MelContract) -> np.ndarray:
    """The L2 norm (T,) float32 over the frequency bins of each frame's magnitudes, as FastSpeech 2 has it
    (Ren et al., 2021); the magnitudes are the contract's, with its window, padding and epsilon.

    Without a transform, by Parseval's theorem: the bins from 0 to n_fft / 2 hold half of the frame's squares,
    and half of the first and last bin's on top.
    """
    window = hann_window(contract)
    frames = np.lib.stride_tricks.sliding_window_view(padded(wave, contract), contract.n_fft)
    frames = frames[:: contract.hop_length]
    alternating = np.where(np.arange(contract.n_fft) % 2, -1.0, 1.0)
    total = np.empty(len(frames))
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK] * window
        ends = block.sum(axis=1) ** 2 + (block * alternating).sum(axis=1) ** 2
        total[start : start + _BLOCK] = (contract.n_fft * (block**2).sum(axis=1) + ends) / 2
    return np.sqrt(total + contract.magnitude_epsilon * (contract.n_fft // 2 + 1)).astype(np.float32)


def pitch(wave: np.ndarray, contract: MelContract) -> np.ndarray:
    """The fundamental frequency (T,) float32 in Hz, 0 in unvoiced frames.

    Which frames are voiced, and in which octave, is said by pYIN (Mauch and Dixon, 2014), whose path goes in
    steps of ``SEMITONES``; YIN (de Cheveigné and Kawahara, 2002) has no steps, and its value is taken where
    it is that pitch. Both are librosa's. A frame holds three periods of the lowest pitch at least.
    """
    import librosa

    low, high = PITCH_RANGE[0], min(PITCH_RANGE[1], contract.sample_rate / 2)
    length = max(contract.n_fft, 3 * int(np.ceil(contract.sample_rate / low)))
    # Even, so that the frames stay centred where the mel's are.
    length += length % 2
    samples = np.pad(padded(wave, contract), (length - contract.n_fft) // 2)
    framing: dict[str, Any] = {
        "fmin": low,
        "fmax": high,
        "sr": contract.sample_rate,
        "frame_length": length,
        "hop_length": contract.hop_length,
        "center": False,
    }
    path, voiced, _ = librosa.pyin(samples, resolution=SEMITONES, **framing)
    path = np.where(voiced, path, 0.0)
    fine = librosa.yin(samples, **framing)
    same = np.abs(fine - path) <= path * (2 ** (SEMITONES / 12) - 1)
    return np.where(voiced & same, fine, path).astype(np.float32)


def statistics_values(name: str, values: np.ndarray) -> np.ndarray:
    """Those of a track's values that its statistics are of: of pitch, the voiced ones."""
    return values[values > 0] if name == "pitch" else values
