"""Features: log-mels and decoding against the clock and librosa, and the memory that preparing takes."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ttsfast import native
from ttsfast.data.corpus.audio import read_audio
from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.filterbank import mel_filters
from ttsfast.data.features.mel import log_mel, log_mels
from ttsfast.data.features.options import FeatureOptions
from ttsfast.data.prepare.extraction import Chunk, RecordingInfo, write_chunk
from ttsfast.files import file_sha256

CONTRACT = MelContract.preset("librosa-22k")
SECONDS = (1.0, 1.7, 2.5, 3.3, 4.1, 5.0, 6.2, 7.4, 8.7, 10.0)
TOLERANCE = 1e-4
"""In log units, against librosa; a way that exceeds it has no speed."""
SIZES = (1_000, 20_000)
"""Utterances of the corpora that are prepared for their memory."""


def run(
    *, rounds: int = 7, sizes: Sequence[int] = SIZES, progress: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure, on noise with the dynamics of speech, in a temporary folder.

    Times are processor time of one thread, all ways taking turns on every clip; a figure is the median over
    ``rounds`` of the sum over the clips.

    Args:
        rounds: turns of every way.
        sizes: utterances of the corpora to prepare for their memory; empty: none. 20,000 take minutes.
        progress: told what is being done.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.
    """
    with tempfile.TemporaryDirectory(prefix="ttsfast-bench-") as name:
        progress("log-mels and decoding")
        result: dict[str, Any] = {
            "features": native.describe().get("features"),
            **_speeds(Path(name), rounds),
        }
        result["memory"] = []
        for size in sizes:
            progress(f"memory of preparing {size} utterances")
            result["memory"].append(_memory(Path(name), size))
    return result


def table(result: dict[str, Any]) -> str:
    """What :func:`run` found, in columns."""
    lines = [f"{'one thread':<34} {'x real time':>11} {'x librosa':>9} {'difference':>10}"]
    for way in result["ways"]:
        ratio = f"{way['x_librosa']:.2f}" if "x_librosa" in way else ""
        difference = f"{way['difference']:.1e}" if "difference" in way else ""
        lines.append(f"{way['name']:<34} {way['x_real_time']:>11.0f} {ratio:>9} {difference:>10}")
    if result["memory"]:
        lines.append(
            f"\n{'prepare, utterances':<34} {'peak MiB':>11} {'process':>9} {'workers':>10} {'s':>6}"
        )
    for memory in result["memory"]:
        lines.append(
            f"{memory['utterances']:<34} {memory['peak_mib']:>11.0f} {memory['process_mib']:>9.0f} "
            f"{memory['workers_mib']:>10.0f} {memory['seconds']:>6.1f}"
        )
    return "\n".join(lines)


def speech_like(seconds: float, seed: int) -> np.ndarray:
    """Noise in bursts of four a second, 60 dB over its pauses; float32 (samples,)."""
    generator = np.random.default_rng(seed)
    samples = int(seconds * CONTRACT.sample_rate)
    burst = np.maximum(np.sin(2 * np.pi * 4 * np.arange(samples) / CONTRACT.sample_rate), 1e-3)
    return (0.1 * burst * generator.standard_normal(samples)).astype(np.float32)


def _speeds(folder: Path, rounds: int) -> dict[str, Any]:
    import soundfile
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    waves = [speech_like(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    paths: dict[str, list[Path]] = {"wav": [], "flac": []}
    for number, wave in enumerate(waves):
        for suffix, written in paths.items():
            written.append(folder / f"{number}.{suffix}")
            soundfile.write(written[-1], wave, CONTRACT.sample_rate)
    librosa_ways = {"librosa": _librosa, "librosa, filterbank cached": _librosa_cached}
    features = {**librosa_ways, "ttsfast": lambda wave: log_mel(wave, CONTRACT)}
    if native.core is not None:
        features["ttsfast without C++"] = _without_core
    features["ttsfast, torch on the CPU"] = lambda wave: log_mels([wave], CONTRACT, "cpu")[0]
    expected = [_librosa(wave) for wave in waves]
    differences = {
        name: max(float(np.abs(way(w) - e).max()) for w, e in zip(waves, expected, strict=True))
        for name, way in features.items()
    }
    ways: dict[str, list[Callable[[], Any]]] = {
        name: [_call(way, wave) for wave in waves]
        for name, way in features.items()
        if differences[name] <= TOLERANCE
    }
    for suffix, written in paths.items():
        ways[f"decode {suffix}"] = [_call(read_audio, path, CONTRACT.sample_rate) for path in written]
    ways["prepare: hash, decode, log-mel, write"] = _prepare(paths["wav"], folder)
    with threadpool_limits(1):
        times = _interleaved(ways, rounds)
    total = sum(SECONDS)
    found = []
    for name, seconds in times.items():
        entry: dict[str, Any] = {"name": name, "seconds": seconds, "x_real_time": total / seconds}
        if name in features:
            entry |= {"x_librosa": times["librosa"] / seconds, "difference": differences[name]}
        found.append(entry)
    refused = {name: found for name, found in differences.items() if found > TOLERANCE}
    return {"audio_seconds": total, "rounds": rounds, "ways": found, "refused": refused}


def _call(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def _interleaved(ways: dict[str, list[Callable[[], Any]]], rounds: int) -> dict[str, float]:
    """Seconds of processor time that each way takes for all clips, the median over rounds."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    gc.disable()
    try:
        for number in range(rounds + 1):
            sums = dict.fromkeys(ways, 0.0)
            for clip in range(len(SECONDS)):
                for name, calls in ways.items():
                    begin = time.process_time()
                    calls[clip]()
                    sums[name] += time.process_time() - begin
            # The first round warms up.
            if number:
                for name, seconds in sums.items():
                    spent[name].append(seconds)
    finally:
        gc.enable()
    return {name: median(seconds) for name, seconds in spent.items()}


def _librosa(wave: np.ndarray) -> np.ndarray:
    import librosa

    c = CONTRACT
    mel = librosa.feature.melspectrogram(
        y=wave,
        sr=c.sample_rate,
        n_fft=c.n_fft,
        hop_length=c.hop_length,
        n_mels=c.n_mels,
        fmax=c.fmax,
        power=1.0,
    )
    return np.log(np.maximum(mel, c.floor)).T


def _librosa_cached(wave: np.ndarray) -> np.ndarray:
    import librosa

    spectrum = librosa.stft(wave, n_fft=CONTRACT.n_fft, hop_length=CONTRACT.hop_length)
    return np.log(np.maximum(mel_filters(CONTRACT) @ np.abs(spectrum), CONTRACT.floor)).T


def _without_core(wave: np.ndarray) -> np.ndarray:
    core, native.core = native.core, None
    try:
        return log_mel(wave, CONTRACT)
    finally:
        native.core = core


def _prepare(paths: Sequence[Path], folder: Path) -> list[Callable[[], Any]]:
    options = FeatureOptions(CONTRACT, resample=False, mixdown=False, trim=False)
    recordings = [RecordingInfo(sha256=file_sha256(path), frames=1) for path in paths]
    return [
        _call(write_chunk, Chunk.planned(folder, [path], [recording], options), options)
        for path, recording in zip(paths, recordings, strict=True)
    ]


def _memory(folder: Path, utterances: int) -> dict[str, Any]:
    """Prepare a corpus of short distinct clips in a process of its own, and watch it and its workers."""
    corpus = folder / f"corpus-{utterances}"
    _write_corpus(corpus, utterances)
    program = "import sys; from ttsfast.benchmarks import data_features as d; d.prepare_corpus(*sys.argv[1:])"
    peaks = {"peak": 0, "process": 0, "workers": 0}
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(corpus), str(folder / f"store-{utterances}")],
        stderr=subprocess.DEVNULL,
    )
    stop = threading.Event()

    def watch(pid: int) -> None:
        while not stop.wait(0.05):
            own = _resident(pid)
            workers = sum(_resident(child) for child in _descendants(pid))
            for name, size in (("peak", own + workers), ("process", own), ("workers", workers)):
                peaks[name] = max(peaks[name], size)

    watcher = threading.Thread(target=watch, args=(process.pid,))
    watcher.start()
    process.wait()
    stop.set()
    watcher.join()
    if process.returncode != 0:
        raise RuntimeError(f"preparing {utterances} utterances ended with exit code {process.returncode}")
    seconds = time.perf_counter() - begin
    return {"utterances": utterances, "seconds": seconds} | {f"{k}_mib": v / 2**20 for k, v in peaks.items()}


def _write_corpus(folder: Path, utterances: int) -> None:
    import soundfile

    folder.mkdir()
    first = folder / "0.wav"
    soundfile.write(first, speech_like(0.3, 0), CONTRACT.sample_rate)
    content = bytearray(first.read_bytes())
    with open(folder / "metadata.jsonl", "w") as listing:
        for number in range(utterances):
            # Four distinct bytes of sound, so that no features are found to be there already.
            content[-4:] = number.to_bytes(4, "little")
            (folder / f"{number}.wav").write_bytes(content)
            text = f"utterance number {number} says {' '.join(str(number))} and no more than that"
            listing.write(json.dumps({"audio": f"{number}.wav", "text": text}) + "\n")


def prepare_corpus(corpus: str, store: str) -> None:
    """Prepare by two workers, with shards so small that a small corpus has several, too: only its size is to
    make a difference. Run in a process of its own.
    """
    from ttsfast.data.prepare import extraction, writer
    from ttsfast.data.prepare.prepare import PrepareOptions, prepare

    extraction.PARALLEL_FROM = 0.0
    writer.SHARD_FRAMES = 10_000
    prepare(corpus, store, PrepareOptions(jobs=2))


def _resident(pid: int) -> int:
    """Bytes, pages that processes share divided among them (a process that forks would count twice, else); 0
    for a process that is gone.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _descendants(pid: int) -> list[int]:
    """But for those that are only being started: until they run a program of their own, their memory is their
    parent's, and would count twice.
    """
    try:
        children = [
            int(c) for p in Path(f"/proc/{pid}/task").iterdir() for c in (p / "children").read_text().split()
        ]
    except OSError:
        return []
    found = [child for child in children if _command(child) != _command(pid)]
    return found + [deeper for child in found for deeper in _descendants(child)]


def _command(pid: int) -> bytes:
    """Program and arguments; empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
