"""From recordings to log-mels on disk: the part of preparation that takes the time, and that is never redone.

Utterances go in chunks. A chunk's file is named by a hash over everything that shapes it, the bytes of its
recordings included, and it appears complete or not at all; so what a crash or another run left can be used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.checks.clip import ClipFigures, measure
from ttsfast.data.corpus.audio import read_samples
from ttsfast.data.corpus.parquet import recording_sha256
from ttsfast.data.features import tracks
from ttsfast.data.features.mel import log_mel, log_mels
from ttsfast.data.features.options import FeatureOptions
from ttsfast.data.features.statistics import Moments
from ttsfast.data.prepare.engines import run
from ttsfast.errors import InputError
from ttsfast.files import atomic_write
from ttsfast.progress import progress_bar

# Raised when the same options and recordings would give other numbers.
VERSION = 2
CHUNK = 32
# Features of this many seconds of audio take one core about twice as long as starting worker processes does.
PARALLEL_FROM = 10_000.0
# Pitch takes hundreds of times as long as a log-mel, but its library is loaded by every worker.
_PITCH_COST = 100


Tracks = Mapping[str, np.ndarray]
"""By name: values (T,) float32 of an utterance, see ``tracks.py``."""


@dataclass(frozen=True, slots=True)
class RecordingInfo:
    """What reading a recording once tells."""

    sha256: str = ""
    frames: int = 0
    fault: str = ""
    """One line that names the file and the remedy; empty for a good recording."""
    reason: str = ""
    """Of the fault, in a fixed phrase to count by."""
    figures: ClipFigures | None = None
    """What checks go by; None of a recording that cannot be read."""


@dataclass(frozen=True)
class Chunk:
    """Utterances whose log-mels share a work file."""

    path: Path
    audio: tuple[Path | str, ...]
    recordings: tuple[RecordingInfo, ...]

    @classmethod
    def planned(
        cls,
        work: Path,
        audio: Sequence[Path | str],
        recordings: Sequence[RecordingInfo],
        options: FeatureOptions,
    ) -> Chunk:
        """With its work file in ``work``, there or not."""
        key = [VERSION, options.to_dict(), [recording.sha256 for recording in recordings]]
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return cls(work / f"{name}.safetensors", tuple(audio), tuple(recordings))

    @property
    def frames(self) -> int:
        """Of all utterances together."""
        return sum(recording.frames for recording in self.recordings)


def inspect_recordings(
    audio: Sequence[Path | str], options: FeatureOptions, jobs: int, *, engine: str = "joblib"
) -> list[RecordingInfo]:
    """Read every recording once: is it usable, what is its hash, how many frames will it give.

    On this machine by threads, for decoding and hashing release the interpreter lock; on a cluster by blocks.
    """
    from joblib import Parallel, delayed

    with progress_bar() as bar:
        if engine in ("serial", "joblib"):
            threads = Parallel(1 if engine == "serial" else jobs, prefer="threads", return_as="generator")
            found = threads(delayed(_inspect)(path, options) for path in audio)
            return list(bar.track(found, total=len(audio), description="checking recordings"))
        task = bar.add_task("checking recordings", total=len(audio))
        blocks = [tuple(audio[start : start + CHUNK]) for start in range(0, len(audio), CHUNK)]
        by_path: dict[Path | str, RecordingInfo] = {}
        inspect_block = partial(_inspect_block, options=options)
        for block, recordings in run(engine, jobs, inspect_block, blocks, name=_span):
            by_path.update(zip(block, recordings, strict=True))
            bar.advance(task, len(block))
    return [by_path[path] for path in audio]


def _inspect_block(audio: Sequence[Path | str], options: FeatureOptions) -> list[RecordingInfo]:
    return [_inspect(path, options) for path in audio]


def _inspect(path: Path | str, options: FeatureOptions) -> RecordingInfo:
    figures = None
    try:
        samples, rate = read_samples(path)
        figures = measure(samples, rate)
        wave = options.from_samples(samples, rate, path)
        frames = options.contract.frames(len(wave))
        # A centred contract pads a single sample to a frame, but nobody says a sentence in it.
        shortest = options.contract.win_length
        if len(wave) < shortest or frames == 0:
            fault = f"{path}: the recording has {len(wave)} samples, less than a window ({shortest})"
            return RecordingInfo(fault=f"{fault}; replace or remove it", reason="too short", figures=figures)
        if len(wave) < 2 * options.contract.n_fft:
            # Short enough that the contract may refuse it.
            log_mel(wave, options.contract)
    except InputError as error:
        named = str(error) if str(path) in str(error) else f"{path}: {error}"
        return RecordingInfo(fault=named, reason="bad audio", figures=figures)
    return RecordingInfo(sha256=recording_sha256(path), frames=frames, figures=figures)


def compute_missing(
    chunks: Sequence[Chunk],
    options: FeatureOptions,
    jobs: int,
    *,
    engine: str = "joblib",
    device: str = "cpu",
) -> int:
    """Write the work files that are not there yet; returns how many utterances that took.

    Args:
        chunks: as they were planned.
        options: what they were planned with.
        jobs: worker processes.
        engine: what runs them, see ``engines.py``; little work stays in this process under "joblib".
        device: "cpu": workers compute. Else workers decode, and this process computes there, to 1e-5 of what
            the others would.
    """
    missing = [chunk for chunk in chunks if not chunk.path.exists()]
    if not missing:
        return 0
    seconds = sum(c.frames for c in missing) * options.contract.hop_length / options.contract.sample_rate
    cost = _PITCH_COST if "pitch" in options.tracks else 1
    if engine == "joblib" and cost * seconds < PARALLEL_FROM:
        engine = "serial"
    with progress_bar() as bar:
        task = bar.add_task("computing features", total=sum(len(chunk.audio) for chunk in missing))
        if device == "cpu":
            write = partial(write_chunk, options=options)
            for chunk, _ in run(engine, jobs, write, missing, name=_chunk_span):
                bar.advance(task, len(chunk.audio))
        else:
            decode = partial(read_waves, options=options)
            # Waves are heavy, so few of them are on their way.
            for chunk, read in run(engine, jobs, decode, missing, in_flight=2 * jobs, name=_chunk_span):
                waves, found = zip(*read, strict=True)
                _publish(chunk, log_mels(waves, options.contract, device), found)
                bar.advance(task, len(chunk.audio))
    return sum(len(chunk.audio) for chunk in missing)


def write_chunk(chunk: Chunk, options: FeatureOptions) -> None:
    """Compute one chunk's log-mels, tracks and moments, and publish its work file.

    Raises InputError when a recording is no longer what it was when it was inspected.
    """
    made = [(log_mel(wave, options.contract), found) for wave, found in _waves(chunk, options)]
    mels, found = zip(*made, strict=True)
    _publish(chunk, mels, found)


def read_waves(chunk: Chunk, options: FeatureOptions) -> list[tuple[np.ndarray, Tracks]]:
    """The samples and tracks of one chunk's recordings; raises InputError as :func:`write_chunk` does."""
    return list(_waves(chunk, options))


def _waves(chunk: Chunk, options: FeatureOptions) -> Iterator[tuple[np.ndarray, Tracks]]:
    for path, recording in zip(chunk.audio, chunk.recordings, strict=True):
        if recording_sha256(path) != recording.sha256:
            raise InputError(f"{path}: changed while it was being prepared; run `ttsfast prepare` again")
        wave = options.read(path)
        yield wave, tracks.compute(wave, options.contract, options.tracks)


def _publish(chunk: Chunk, mels: Sequence[np.ndarray], found: Sequence[Tracks]) -> None:
    from safetensors.numpy import save

    moments = Moments.of(mels)
    tensors = {
        "mel": np.concatenate(mels),
        "frames": moments.frames,
        "mean": moments.mean,
        "squares": moments.squares,
    }
    for name in found[0]:
        values = [one[name] for one in found]
        tensors[name] = np.concatenate(values)
        counted = Moments.of([tracks.statistics_values(name, track)[:, None] for track in values])
        tensors |= {f"{name}.{part}": value for part, value in vars(counted).items()}
    with atomic_write(chunk.path) as handle:
        handle.write(save(tensors))


def _span(audio: Sequence[Path | str]) -> str:
    return f"{audio[0]} ... {audio[-1]}"


def _chunk_span(chunk: Chunk) -> str:
    return _span(chunk.audio)


def read_chunk(chunk: Chunk) -> Iterator[np.ndarray]:
    """The log-mels (T, C) float32 of a chunk's utterances."""
    tensors = _load(chunk, "mel", "frames")
    yield from np.split(tensors["mel"], np.cumsum(tensors["frames"])[:-1])


def read_tracks(chunk: Chunk, names: Sequence[str]) -> Iterator[Tracks]:
    """The tracks ``names`` (T,) float32 of a chunk's utterances."""
    tensors = _load(chunk, "frames", *names)
    ends = np.cumsum(tensors.pop("frames"))
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield {name: tensors[name][start:end] for name in names}


def read_moments(chunks: Sequence[Chunk], track: str = "") -> Iterator[Moments]:
    """The moments of each chunk's utterances, in order, without reading their features: of their log-mels, or
    of a track, C being 1.
    """
    prefix = track and f"{track}."
    for chunk in chunks:
        found = _load(chunk, *(prefix + name for name in ("frames", "mean", "squares")))
        yield Moments(**{name.removeprefix(prefix): value for name, value in found.items()})


def _load(chunk: Chunk, *names: str) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(chunk.path, framework="numpy") as handle:
            return {name: handle.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{chunk.path}: damaged ({error}); remove {chunk.path.parent} and run `ttsfast prepare` again"
        ) from error
