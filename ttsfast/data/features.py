"""From recordings to log-mels on disk: the part of preparation that takes the time, and that is never redone.

Utterances go in chunks. A chunk's file is named by a hash over everything that shapes it, the bytes of its
recordings included, and it appears complete or not at all; so what a crash or another run left can be used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.audio import read_audio
from ttsfast.data.mel import MelContract, log_mel
from ttsfast.errors import InputError
from ttsfast.files import atomic_write
from ttsfast.progress import progress_bar

# Raised when the same options and recordings would give other numbers.
VERSION = 2
CHUNK = 32
# Features of this many seconds of audio take one core about twice as long as starting worker processes does.
PARALLEL_FROM = 10_000.0


@dataclass(frozen=True)
class FeatureOptions:
    """Everything that shapes an utterance's log-mel beside the recording itself."""

    contract: MelContract
    resample: bool
    mixdown: bool
    trim: bool

    def read(self, path: Path) -> np.ndarray:
        """The samples (samples,) to compute features from; raises InputError as ``read_audio`` does."""
        return read_audio(
            path,
            self.contract.sample_rate,
            resample=self.resample,
            mixdown=self.mixdown,
            trim=self.trim,
        )


@dataclass(frozen=True)
class Recording:
    """What looking at a recording tells."""

    sha256: str = ""
    frames: int = 0
    fault: str = ""
    """One line that names the file and the remedy; empty for a good recording."""
    reason: str = ""
    """Of the fault, in a fixed phrase to count by."""


@dataclass(frozen=True)
class Chunk:
    """Utterances whose log-mels share a work file."""

    path: Path
    audio: tuple[Path, ...]
    recordings: tuple[Recording, ...]

    @property
    def frames(self) -> int:
        """Of all utterances together."""
        return sum(recording.frames for recording in self.recordings)


@dataclass(frozen=True)
class Moments:
    """Per utterance: frames (n,), mean and summed squared deviation per bin (n, C), float64."""

    frames: np.ndarray
    mean: np.ndarray
    squares: np.ndarray


def inspect(audio: Sequence[Path], options: FeatureOptions, jobs: int) -> list[Recording]:
    """Read every recording once: is it usable, what is its hash, how many frames will it give."""
    from joblib import Parallel, delayed

    # Decoding and hashing release the interpreter lock.
    work = Parallel(n_jobs=jobs, prefer="threads", return_as="generator")
    found = work(delayed(_inspect)(path, options) for path in audio)
    with progress_bar() as bar:
        return list(bar.track(found, total=len(audio), description="checking recordings"))


def _inspect(path: Path, options: FeatureOptions) -> Recording:
    try:
        wave = options.read(path)
        frames = options.contract.frames(len(wave))
        # A centred contract pads a single sample to a frame, but nobody says a sentence in it.
        shortest = options.contract.win_length
        if len(wave) < shortest or frames == 0:
            fault = f"{path}: the recording has {len(wave)} samples, less than a window ({shortest})"
            return Recording(fault=f"{fault}; replace or remove it", reason="too short")
        if len(wave) < 2 * options.contract.n_fft:
            # Short enough that the contract may refuse it.
            log_mel(wave, options.contract)
    except InputError as error:
        named = str(error) if str(path) in str(error) else f"{path}: {error}"
        return Recording(fault=named, reason="bad audio")
    return Recording(sha256=_sha256(path), frames=frames)


def plan_chunks(
    audio: Sequence[Path], recordings: Sequence[Recording], options: FeatureOptions, work: Path
) -> list[Chunk]:
    """Cut the utterances, in order, into chunks that know their work files."""
    chunks = []
    for start in range(0, len(audio), CHUNK):
        part = slice(start, start + CHUNK)
        key = [VERSION, asdict(options), [recording.sha256 for recording in recordings[part]]]
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        chunks.append(Chunk(work / f"{name}.safetensors", tuple(audio[part]), tuple(recordings[part])))
    return chunks


def compute_missing(chunks: Sequence[Chunk], options: FeatureOptions, jobs: int) -> int:
    """Write the work files that are not there yet; returns how many utterances that took."""
    from joblib import Parallel, delayed

    missing = [chunk for chunk in chunks if not chunk.path.exists()]
    if not missing:
        return 0
    total = sum(len(chunk.audio) for chunk in missing)
    seconds = sum(c.frames for c in missing) * options.contract.hop_length / options.contract.sample_rate
    processes = min(jobs, len(missing)) if seconds >= PARALLEL_FROM else 1
    with progress_bar() as bar:
        task = bar.add_task("computing features", total=total)
        work = Parallel(n_jobs=processes, return_as="generator")
        for done in work(delayed(write_chunk)(chunk, options) for chunk in missing):
            bar.advance(task, done)
    return total


def write_chunk(chunk: Chunk, options: FeatureOptions) -> int:
    """Compute one chunk's log-mels and moments, publish its work file, and return how many utterances it has.

    Raises InputError when a recording is no longer what it was when it was inspected.
    """
    from safetensors.numpy import save

    mels = []
    for path, recording in zip(chunk.audio, chunk.recordings, strict=True):
        if _sha256(path) != recording.sha256:
            raise InputError(f"{path}: changed while it was being prepared; run `ttsfast prepare` again")
        mels.append(log_mel(options.read(path), options.contract))
    means = [mel.mean(axis=0, dtype=np.float64) for mel in mels]
    tensors = {
        "mel": np.concatenate(mels),
        "frames": np.array([len(mel) for mel in mels], dtype=np.int64),
        "mean": np.stack(means),
        "squares": np.stack([((mel - mean) ** 2).sum(axis=0) for mel, mean in zip(mels, means, strict=True)]),
    }
    with atomic_write(chunk.path) as handle:
        handle.write(save(tensors))
    return len(mels)


def read_chunk(chunk: Chunk) -> Iterator[np.ndarray]:
    """The log-mels (T, C) float32 of a chunk's utterances."""
    tensors = _load(chunk, "mel", "frames")
    yield from np.split(tensors["mel"], np.cumsum(tensors["frames"])[:-1])


def read_moments(chunks: Sequence[Chunk]) -> Moments:
    """The moments of all utterances, in order, without reading their features."""
    parts = [_load(chunk, "frames", "mean", "squares") for chunk in chunks]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in ("frames", "mean", "squares")}
    return Moments(**joined)


def combine(moments: Moments, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) float64 over all frames of the ``chosen`` utterances (bool (n,)).

    The parallel form of the sum of squares (Chan, Golub and LeVeque, 1983): nothing cancels, however far the
    mean lies from 0.
    """
    frames = moments.frames[chosen, None].astype(np.float64)
    means, squares = moments.mean[chosen], moments.squares[chosen]
    mean = (frames * means).sum(axis=0) / frames.sum()
    variance = (squares.sum(axis=0) + (frames * (means - mean) ** 2).sum(axis=0)) / frames.sum()
    return mean, np.sqrt(variance)


def _load(chunk: Chunk, *names: str) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(chunk.path, framework="numpy") as handle:
            return {name: handle.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{chunk.path}: damaged ({error}); remove {chunk.path.parent} and run `ttsfast prepare` again"
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error
    return digest.hexdigest()
