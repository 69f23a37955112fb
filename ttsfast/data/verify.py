"""Is a store what its manifest says, and is the manifest what preparation wrote?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.manifest import Manifest, read_manifest
from ttsfast.data.shard import REMEDY, ShardArrays, open_shard, utterance_crc
from ttsfast.data.split import text_key
from ttsfast.data.store import STD_FLOOR, check_index
from ttsfast.errors import InputError
from ttsfast.progress import track

# Rounding to float16 moves a bin's mean and deviation by far less, another corpus's statistics by far more.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and what is wrong."""

    store: Path
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
    """Check a store and report; damage is a finding, never an exception.

    Quick: the manifest (its own hash, every field), the shards' sizes and their index against the manifest's.
    Full, besides: every shard's SHA-256, every utterance's CRC32C, that all features are finite, that the
    training split's have mean 0 and deviation 1, that every text gives the stored symbols, and that no text
    is in both splits.
    """
    folder = Path(store_folder)
    try:
        manifest = read_manifest(folder)
    except InputError as error:
        return VerifyReport(folder, quick, problems=[str(error)])
    report = VerifyReport(
        store=folder,
        quick=quick,
        utterances=len(manifest.entries),
        frames=int(manifest.entries.frames.sum()),
        bytes=sum(shard.size for shard in manifest.shards),
    )
    moments = _TrainMoments(manifest)
    shards = manifest.shards if quick else track(manifest.shards, "verifying", total=len(manifest.shards))
    for number, shard in enumerate(shards):
        path = folder / shard.name
        try:
            # In full it is read, not mapped: a file cut short meanwhile must not end the process.
            arrays = open_shard(path, shard, manifest.contract.n_mels, memory_map=quick)
            check_index(path, manifest, number, arrays)
            if not quick:
                report.problems.extend(_check_content(path, manifest, number, arrays, moments))
        except InputError as error:
            report.problems.append(str(error))
    if not quick:
        report.problems.extend(_check_splits(folder, manifest))
        if not report.problems:
            report.problems.extend(moments.check(folder))
    return report


def _check_content(
    path: Path, manifest: Manifest, number: int, arrays: ShardArrays, moments: _TrainMoments
) -> Iterator[str]:
    with open(path, "rb") as handle:
        if hashlib.sha256(handle.read()).hexdigest() != manifest.shards[number].sha256:
            yield f"{path}: its SHA-256 is not the manifest's; {REMEDY}"
    for index in np.flatnonzero(manifest.entries.shard == number):
        entry = manifest.entries[int(index)]
        what = f"{path}: utterance {entry.id!r}"
        mel = arrays.mel[entry.offset : entry.offset + entry.frames]
        text = arrays.text[entry.text_offset : entry.text_offset + entry.symbols]
        if utterance_crc(mel, text) != entry.crc32c:
            yield f"{what}: the stored bytes do not fit their checksum; {REMEDY}"
            continue
        if not np.isfinite(mel).all():
            yield f"{what}: holds NaN or Inf; {REMEDY}"
        try:
            if not np.array_equal(manifest.symbols.encode(entry.text, what), text):
                yield f"{what}: the stored symbols are not those of its text; {REMEDY}"
        except InputError as error:
            yield str(error)
        if entry.split == "train":
            moments.add(mel)


def _check_splits(folder: Path, manifest: Manifest) -> Iterator[str]:
    if manifest.frontend.phonemes:
        # Splits go by letters, and different words may sound alike.
        return
    texts: dict[str, set[str]] = {"train": set(), "validation": set()}
    for text, split in zip(manifest.entries.text, manifest.entries.split, strict=True):
        texts[split].add(text_key(text))
    both = sorted(texts["train"] & texts["validation"])
    if both:
        yield f"{folder}: {len(both)} texts are in both splits, such as {both[0]!r}; {REMEDY}"


class _TrainMoments:
    """Sums over the training split's normalised features."""

    def __init__(self, manifest: Manifest) -> None:
        self._floored = manifest.mel_std <= np.float32(STD_FLOOR)
        self._frames = 0
        self._sum = np.zeros(manifest.contract.n_mels)
        self._squares = np.zeros(manifest.contract.n_mels)

    def add(self, mel: np.ndarray) -> None:
        wide = mel.astype(np.float64)
        self._frames += len(wide)
        self._sum += wide.sum(axis=0)
        self._squares += (wide**2).sum(axis=0)

    def check(self, folder: Path) -> Iterator[str]:
        if self._frames == 0:
            yield f"{folder}: no training utterance; {REMEDY}"
            return
        mean = self._sum / self._frames
        std = np.sqrt(np.maximum(self._squares / self._frames - mean**2, 0.0))
        # A bin whose deviation was raised to the floor varies less than 1.
        wrong = (np.abs(mean) > _TOLERANCE) | (np.where(self._floored, std - 1, np.abs(std - 1)) > _TOLERANCE)
        if wrong.any():
            worst = int(np.flatnonzero(wrong)[0])
            yield (
                f"{folder}: bin {worst} of the training features has mean {mean[worst]:.3f} and deviation "
                f"{std[worst]:.3f} where 0 and 1 are due: the statistics are not theirs; {REMEDY}"
            )
