"""Is a store what its manifest says, and is the manifest what preparation wrote?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.corpus.split import SPLITS, text_key
from ttsfast.data.features.statistics import STD_FLOOR
from ttsfast.data.features.tracks import statistics_values
from ttsfast.data.store.manifest import Manifest
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.shard import REMEDY, Shard, tracks_fit, utterance_crc
from ttsfast.data.store.shard_file import ShardFile, check_index
from ttsfast.data.store.shard_header import check_seal
from ttsfast.devices import available_cores
from ttsfast.errors import InputError
from ttsfast.files import from_home, is_address
from ttsfast.progress import track

# Rounding to float16 moves a bin's mean and deviation by far less, another corpus's statistics by far more.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and what is wrong."""

    store: Path | str
    quick: bool
    utterances: int = 0
    frames: int = 0
    bytes: int = 0
    """Read and compared; in a quick check only the manifest's and the shards' own index."""
    problems: list[str] = field(default_factory=list)
    """One line each, naming the file and utterance."""

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        """For a person: a few lines."""
        kind = "sizes and manifest" if self.quick else "every byte"
        if self.ok:
            return (
                f"{self.store}: sound; {kind} of {self.utterances} utterances, {self.frames} frames checked"
            )
        return "\n".join([f"{self.store}: {len(self.problems)} problems", *(f"  {p}" for p in self.problems)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return vars(self) | {"store": str(self.store), "ok": self.ok}


def verify(store_folder: Path | str, quick: bool = False) -> VerifyReport:
    """Check a store, in a folder or at an address, and report; damage is a finding, never an exception.

    Quick: the manifest (its own hash, every field), the shards' sizes, their headers' checksums and their
    index against the manifest's. Full, besides: every shard's SHA-256, every utterance's CRC32C, that all
    features are finite, that those which the statistics were taken of have mean 0 and deviation 1, that every
    text gives the stored symbols, that no text is in two splits, and that every shard's metadata would
    restore the manifest.

    Shards are read whole and not mapped, as many at a time as there are cores; those at an address are
    streamed, and not kept.
    """
    given = from_home(str(store_folder))
    place: Path | str = given if is_address(given) else Path(given)
    try:
        manifest, opener = _at(place)
    except InputError as error:
        return VerifyReport(place, quick, problems=[str(error)])
    report = VerifyReport(
        store=place,
        quick=quick,
        utterances=len(manifest.entries),
        frames=int(manifest.entries.frames.sum()),
        bytes=sum(shard.size for shard in manifest.shards),
    )
    moments = _Sums(manifest)
    check = partial(_check_shard, manifest, opener, quick)
    numbers = range(len(manifest.shards))
    if quick:
        for problems, _ in map(check, numbers):
            report.problems.extend(problems)
    else:
        with ThreadPoolExecutor(available_cores()) as threads:
            found = threads.map(check, numbers)
            for problems, part in track(found, "verifying", total=len(numbers)):
                report.problems.extend(problems)
                moments.add(part)
        report.problems.extend(_check_splits(place, manifest))
        # Statistics of another store are not these features'.
        if not report.problems and manifest.statistics_of:
            report.problems.extend(_check_moments(place, manifest, moments.mel))
            report.problems.extend(_check_tracks(place, manifest, moments.tracks))
    return report


def _at(place: Path | str) -> tuple[Manifest, Callable[[Shard, int, bool], ShardFile]]:
    if isinstance(place, str):
        from ttsfast.data.store.remote import Remote

        remote = Remote(place)
        return remote.manifest(), remote.open_shard
    folder = place

    def opened(shard: Shard, n_mels: int, quick: bool) -> ShardFile:
        return ShardFile(folder / shard.name, shard, n_mels, in_memory=not quick)

    return read_manifest(folder), opened


def _check_shard(
    manifest: Manifest, opener: Callable[[Shard, int, bool], ShardFile], quick: bool, number: int
) -> tuple[list[str], _Sums]:
    moments = _Sums(manifest)
    try:
        shard = opener(manifest.shards[number], manifest.contract.n_mels, quick)
        check_index(manifest, number, shard)
        return ([] if quick else list(_check_content(shard, manifest, number, moments))), moments
    except InputError as error:
        return [str(error)], moments


def _check_content(shard: ShardFile, manifest: Manifest, number: int, sums: _Sums) -> Iterator[str]:
    if hashlib.sha256(shard.content()).hexdigest() != manifest.shards[number].sha256:
        yield f"{shard.path}: its SHA-256 is not the manifest's; {REMEDY}"
    arrays = shard.arrays()
    try:
        check_seal(shard.metadata, arrays.named())
    except InputError as error:
        yield f"{shard.path}: {error}; {REMEDY}"
    for place, index in enumerate(np.flatnonzero(manifest.entries.shard == number)):
        entry = manifest.entries[int(index)]
        what = f"{shard.path}: utterance {entry.id!r}"
        mel = arrays.mel[entry.offset : entry.offset + entry.frames]
        text = arrays.text[entry.text_offset : entry.text_offset + entry.symbols]
        if utterance_crc(mel, text) != entry.crc32c:
            yield f"{what}: the stored bytes do not fit their checksum; {REMEDY}"
            continue
        try:
            if not np.array_equal(manifest.symbols.encode(entry.text, what), text):
                yield f"{what}: the stored symbols are not those of its text; {REMEDY}"
        except InputError as error:
            yield str(error)
        frames = slice(entry.offset, entry.offset + entry.frames)
        if not tracks_fit(arrays, place, frames):
            yield f"{what}: its {' and '.join(shard.tracks)} do not fit their checksum; {REMEDY}"
            continue
        own = _Sums(manifest)
        # Float32 is far finer than what is asked of the sums of normalised features.
        own.mel.add(_Moments.of(mel, np.float32))
        for name, total in own.tracks.items():
            values = getattr(arrays, name)[frames]
            if not (np.isfinite(values) & (values >= 0)).all():
                yield f"{what}: its {name} holds something other than numbers from 0 up; {REMEDY}"
            total.add(_Moments.of(statistics_values(name, values)[:, None], np.float64))
        if not np.isfinite(own.mel.sum).all():
            yield f"{what}: holds NaN or Inf; {REMEDY}"
        elif entry.split == "train" and index < manifest.statistics_of:
            sums.add(own)


def _check_splits(folder: Path | str, manifest: Manifest) -> Iterator[str]:
    if manifest.frontend.phonemes:
        # Splits go by letters, and different words may sound alike.
        return
    texts: dict[str, set[str]] = {split: set() for split in SPLITS}
    for text, split in zip(manifest.entries.text, manifest.entries.split, strict=True):
        texts[split].add(text_key(text))
    for one, other in combinations(SPLITS, 2):
        if both := sorted(texts[one] & texts[other]):
            yield (
                f"{folder}: {len(both)} texts are in both splits {one} and {other}, such as {both[0]!r}; "
                f"{REMEDY}"
            )


@dataclass
class _Moments:
    """Sums over values of C kinds."""

    frames: int
    sum: np.ndarray
    """(C,) float64"""
    squares: np.ndarray
    """(C,) float64"""

    @classmethod
    def of(cls, values: np.ndarray, dtype: type[np.floating[Any]]) -> _Moments:
        """Of (T, C), summed up in ``dtype``."""
        wide = values.astype(dtype)
        # NaN and Inf come out as what they are.
        with np.errstate(invalid="ignore", over="ignore"):
            sums = (rows.sum(axis=0, dtype=dtype).astype(np.float64) for rows in (wide, wide * wide))
            return cls(len(wide), *sums)

    def add(self, other: _Moments) -> None:
        self.frames += other.frames
        self.sum += other.sum
        self.squares += other.squares

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """(C,) float64, each."""
        mean = self.sum / max(self.frames, 1)
        return mean, np.sqrt(np.maximum(self.squares / max(self.frames, 1) - mean**2, 0.0))


class _Sums:
    """Of all that a store has statistics of."""

    def __init__(self, manifest: Manifest) -> None:
        self.mel = _Moments(0, np.zeros(manifest.contract.n_mels), np.zeros(manifest.contract.n_mels))
        self.tracks = {name: _Moments(0, np.zeros(1), np.zeros(1)) for name in manifest.tracks}

    def add(self, other: _Sums) -> None:
        self.mel.add(other.mel)
        for name, total in self.tracks.items():
            total.add(other.tracks[name])


def _check_moments(folder: Path | str, manifest: Manifest, moments: _Moments) -> Iterator[str]:
    if moments.frames == 0:
        yield f"{folder}: no training utterance; {REMEDY}"
        return
    floored = manifest.mel_std <= np.float32(STD_FLOOR)
    mean, std = moments.mean_and_std()
    # A bin whose deviation was raised to the floor varies less than 1.
    wrong = (np.abs(mean) > _TOLERANCE) | (np.where(floored, std - 1, np.abs(std - 1)) > _TOLERANCE)
    if wrong.any():
        worst = int(np.flatnonzero(wrong)[0])
        yield (
            f"{folder}: bin {worst} of the training features has mean {mean[worst]:.3f} and deviation "
            f"{std[worst]:.3f} where 0 and 1 are due: the statistics are not theirs; {REMEDY}"
        )


def _check_tracks(folder: Path | str, manifest: Manifest, sums: dict[str, _Moments]) -> Iterator[str]:
    for name, total in sums.items():
        mean, std = (float(value[0]) for value in total.mean_and_std())
        std = max(std, STD_FLOOR)
        said_mean, said_std = map(float, manifest.tracks[name])
        if max(abs(mean - said_mean), abs(std - said_std)) > _TOLERANCE * said_std:
            yield (
                f"{folder}: the {name} of the training split has mean {mean:.3f} and deviation {std:.3f}, "
                f"the manifest says {said_mean:.3f} and {said_std:.3f}; {REMEDY}"
            )
