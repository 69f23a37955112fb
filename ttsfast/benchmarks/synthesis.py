"""From log-mels back to sound: speed and quality beside librosa's, and the wait before a first word."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ttsfast.benchmarks import machine
from ttsfast.benchmarks.data_features import speech_like
from ttsfast.data.corpus.audio import read_audio, resample_audio
from ttsfast.data.features.contract import PRESETS, MelContract
from ttsfast.data.features.filterbank import mel_filters
from ttsfast.data.features.inversion import griffin_lim, magnitudes
from ttsfast.data.features.mel import log_mel
from ttsfast.devices import torch_threads
from ttsfast.errors import InputError

TOLERANCE = 0.02
"""Of librosa's own: by how much a distance may be larger, and PESQ smaller; a way beyond it has no speed."""
ITERATIONS, MOMENTUM = 60, 0.99
LONG = 170.0
"""Seconds of speech that are spoken in one go."""
# The depth below the loudest bin to which spectra are compared, as a factor: 60 dB.
_DEPTH = 1e-3
_FIRST_WORD = """
import sys, time, numpy as np, torch
features = np.load(sys.argv[1])
begin = time.perf_counter()
from ttsfast.benchmarks import synthesis
from ttsfast.data.features.contract import PRESETS
synthesis.WAYS[sys.argv[2]](features, PRESETS[sys.argv[3]], 0)
print(time.perf_counter() - begin)
"""


def run(
    recordings: Path | None = None,
    *,
    utterances: int = 12,
    rounds: int = 3,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure on one thread, every way in turn on each utterance.

    Speed is seconds of sound over seconds of processor time, the median over ``rounds``; every round starts
    from other phases, and quality is the mean over all of them: the log-spectral distance to the recording
    (dB, down to 60 dB below its loudest bin), the mean difference of the log-mels, and PESQ (wide band, at
    16 kHz) where the package ``pesq`` is installed.

    Args:
        recordings: a folder of wav or flac files; noise with the dynamics of speech when None.
        utterances: so many of them, spread over the folder.
        rounds: turns of each way.
        progress: told what is being done.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.

    Raises:
        InputError: the folder holds no recordings, or one that cannot be read.
    """
    result: dict[str, Any] = {"contracts": {}, "rounds": rounds, "tolerance": TOLERANCE}
    pesq = find_spec("pesq") is not None and recordings is not None
    with torch_threads(1), tempfile.TemporaryDirectory(prefix="ttsfast-bench-") as folder:
        result["machine"] = machine.describe(torch.device("cpu"))
        for name, contract in PRESETS.items():
            waves = _waves(recordings, utterances, contract)
            result |= {"utterances": len(waves), "speech": "noise" if recordings is None else "recordings"}
            progress(f"{name}: first words")
            mels = [log_mel(wave, contract) for wave in waves]
            path = Path(folder) / "features.npy"
            np.save(path, mels[0])
            first = {way: first_word(path, way, name) for way in ("librosa", "ttsfast")}
            progress(f"{name}: {len(waves)} utterances, {rounds} rounds")
            ways = _compare(waves, mels, contract, rounds, pesq)
            for way, seconds in first.items():
                ways[way]["first_word_seconds"] = seconds
            progress(f"{name}: {LONG:g} s of speech")
            result["contracts"][name] = {
                "seconds": sum(map(len, waves)) / contract.sample_rate,
                "ways": ways,
                "long": _long(mels, contract),
            }
    return result


def table(result: dict[str, Any]) -> str:
    """What :func:`run` found, in columns."""
    lines = []
    for name, found in result["contracts"].items():
        lines.append(
            f"{name + ', one thread':<34} {'x real time':>11} {'first word s':>12} "
            f"{'lsd dB':>7} {'mel':>6} {'PESQ':>5}"
        )
        for way, row in found["ways"].items():
            speed = f"{row['x_real_time']:.1f}" if "x_real_time" in row else "refused"
            first = f"{row['first_word_seconds']:.2f}" if "first_word_seconds" in row else ""
            pesq = "" if row["pesq"] is None else f"{row['pesq']:.2f}"
            lines.append(
                f"{way:<34} {speed:>11} {first:>12} {row['lsd_db']:>7.2f} {row['mel_l1_log']:>6.3f} {pesq:>5}"
            )
        lines.append(f"{LONG:g} s of speech in one go: {found['long']['seconds']:.1f} s\n")
    return "\n".join([*lines, machine.summary(result["machine"])])


def first_word(features: Path, way: str, contract: str) -> float:
    """Seconds from an imported torch to the first utterance, in a process of its own.

    Args:
        features: a file of log-mels (T, n_mels).
        way: one of WAYS.
        contract: a preset's name.
    """
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_WORD, str(features), way, contract],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def _ttsfast(features: np.ndarray, contract: MelContract, seed: int) -> np.ndarray:
    return griffin_lim(features, contract, n_iter=ITERATIONS, momentum=MOMENTUM, seed=seed)


def _librosa(features: np.ndarray, contract: MelContract, seed: int) -> np.ndarray:
    import librosa

    mel = np.exp(features) if contract.log_base == "e" else 10.0**features
    power = librosa.util.nnls(mel_filters(contract), mel.T.astype(np.float32)).T
    return _librosa_phases(power ** (1.0 / contract.power), contract, seed)


def _ttsfast_librosa(features: np.ndarray, contract: MelContract, seed: int) -> np.ndarray:
    return _librosa_phases(magnitudes(features, contract), contract, seed)


WAYS: dict[str, Callable[[np.ndarray, MelContract, int], np.ndarray]] = {
    "librosa": _librosa,
    "ttsfast's magnitudes, then librosa": _ttsfast_librosa,
    "ttsfast": _ttsfast,
}


def _librosa_phases(magnitude: np.ndarray, contract: MelContract, seed: int) -> np.ndarray:
    import librosa

    padded = librosa.griffinlim(
        magnitude.T,
        n_iter=ITERATIONS,
        momentum=MOMENTUM,
        hop_length=contract.hop_length,
        win_length=contract.win_length,
        n_fft=contract.n_fft,
        center=False,
        random_state=seed,
    )
    return padded[contract.pad : len(padded) - contract.pad]


def _waves(recordings: Path | None, utterances: int, contract: MelContract) -> list[np.ndarray]:
    if recordings is None:
        return [speech_like(1.0 + number / 4, number) for number in range(utterances)]
    paths = sorted(path for path in recordings.glob("*") if path.suffix in (".wav", ".flac"))
    if not paths:
        raise InputError(f"{recordings}: holds no wav or flac files; name a folder of recordings")
    chosen = paths[:: max(1, len(paths) // utterances)][:utterances]
    return [read_audio(path, contract.sample_rate, resample=True, mixdown=True) for path in chosen]


def _compare(
    waves: Sequence[np.ndarray],
    mels: Sequence[np.ndarray],
    contract: MelContract,
    rounds: int,
    pesq: bool,
) -> dict[str, dict[str, Any]]:
    for way in WAYS.values():
        way(mels[0], contract, 0)
    spent: dict[str, list[float]] = {name: [0.0] * rounds for name in WAYS}
    quality: dict[str, list[tuple[float, ...]]] = {name: [] for name in WAYS}
    for number in range(rounds):
        for wave, mel in zip(waves, mels, strict=True):
            for name, way in WAYS.items():
                begin = time.process_time()
                found = way(mel, contract, number)
                spent[name][number] += time.process_time() - begin
                quality[name].append(_quality(wave, found, contract, pesq))
    audio = sum(map(len, waves)) / contract.sample_rate
    figures = ("lsd_db", "mel_l1_log", "pesq")
    rows: dict[str, dict[str, Any]] = {
        name: dict(zip(figures, np.mean(quality[name], axis=0).tolist(), strict=True)) for name in WAYS
    }
    least = rows["librosa"]
    for name, row in rows.items():
        worse = [row[figure] > least[figure] * (1 + TOLERANCE) for figure in ("lsd_db", "mel_l1_log")]
        if not any(worse) and not (pesq and row["pesq"] < least["pesq"] * (1 - TOLERANCE)):
            row["x_real_time"] = audio / median(spent[name])
        row["pesq"] = row["pesq"] if pesq else None
    return rows


def _quality(
    wave: np.ndarray, found: np.ndarray, contract: MelContract, pesq: bool
) -> tuple[float, float, float]:
    count = min(len(wave), len(found))
    a, b = wave[:count], found[:count].astype(np.float32)
    window = torch.hann_window(contract.n_fft)
    size, hop = contract.n_fft, contract.hop_length
    recorded, spoken = (
        torch.stft(torch.from_numpy(x), size, hop, window=window, return_complex=True).abs() for x in (a, b)
    )
    floor = float(recorded.max()) * _DEPTH
    distance = 20.0 * (recorded.clamp(min=floor) / spoken.clamp(min=floor)).log10()
    heard = int(contract.fmax / contract.sample_rate * contract.n_fft)
    lsd = float(distance[:heard].square().mean(dim=0).sqrt().mean())
    score = 0.0
    if pesq:
        from pesq import pesq as measure

        score = measure(16_000, *(resample_audio(x, contract.sample_rate, 16_000) for x in (a, b)), "wb")
    return lsd, float(np.abs(log_mel(a, contract) - log_mel(b, contract)).mean()), score


def _long(mels: Sequence[np.ndarray], contract: MelContract) -> dict[str, float]:
    frames = round(LONG * contract.sample_rate / contract.hop_length)
    speech = np.resize(np.concatenate(mels), (frames, contract.n_mels))
    wall, processor = time.perf_counter(), time.process_time()
    griffin_lim(speech, contract)
    return {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}
