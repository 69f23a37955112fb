"""Reading a feature store: utterances by index, from shards on disk or in memory, checked at first read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.corpus.split import SPLITS
from ttsfast.data.features.contract import silence_level
from ttsfast.data.features.statistics import normalise
from ttsfast.data.store.manifest import NAME, Manifest
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.recordings import Recordings
from ttsfast.data.store.shard import REMEDY, tracks_crc, utterance_crc
from ttsfast.data.store.shard_file import ShardFile, check_index
from ttsfast.data.store.utterance import Utterance
from ttsfast.errors import InputError
from ttsfast.files import from_home, is_address


class Store:
    """A folder that ``ttsfast prepare`` has written; ``store[i]`` is an :class:`Utterance`.

    Safe to read from several threads, and usable as a ``torch.utils.data.Dataset``: a copy sent to a worker
    process opens the folder anew.
    """

    def __init__(
        self,
        path: Path | str,
        manifest: Manifest,
        shards: list[ShardFile],
        *,
        verify: bool,
        recordings: Recordings | None = None,
    ) -> None:
        """Use :meth:`open`."""
        self.path = path
        self.manifest = manifest
        self.shards = shards
        """Open, in the manifest's order."""
        self.verify = verify
        """Whether an utterance's checksum is compared when it is first read."""
        self.recordings = recordings
        """What mels are computed from at every read; None: they are the stored ones."""
        self.entries = manifest.entries
        """A sequence of ``Entry``, kept as columns."""
        self.contract = manifest.contract
        """What a log-mel number means."""
        self.frontend = manifest.frontend
        """What turned the corpus's text into the text that is encoded."""
        self.symbols = manifest.symbols
        """The character set, fixed at preparation."""
        self.speakers = list(manifest.speakers)
        """Names, by speaker number."""
        self.mel_mean, self.mel_std = manifest.mel_mean, manifest.mel_std
        """(C,) float32 each, log-mel units, over the training split."""
        self.tracks = dict(manifest.tracks)
        """What the store holds beside the mel, of "pitch" and "energy": mean and deviation (2,) float32 over
        the training split, of pitch over its voiced frames."""
        self.licence = str(manifest.options.get("licence", ""))
        """Of the corpus, as whoever prepared it said; empty when nobody did."""
        self.fingerprint = manifest.fingerprint
        """SHA-256 of what the store was made from and how."""
        self.frames = manifest.entries.frames
        """(n,) int64 frames per utterance."""
        self.text_lengths = manifest.entries.symbols
        """(n,) int64 symbols per utterance."""
        # Two threads that read an utterance for the first time at once both check it, which is harmless.
        self._checked = np.full(len(manifest.entries), not verify)
        self._tracks_checked = self._checked.copy()
        self._reopen: dict[str, Any] | None = None
        self.silence = normalise(
            np.full(self.contract.n_mels, silence_level(self.contract), np.float32),
            self.mel_mean,
            self.mel_std,
        ).astype(np.float32)
        """(C,) float32: what digital silence is in the store, and what batches are padded with."""
        if not np.isfinite(self.silence).all():
            raise InputError(f"{path}: {NAME}: silence exceeds float16 in its statistics; {REMEDY}")

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        memory_map: bool = True,
        verify: bool = True,
        features: str = "stored",
        corpus: Path | str | None = None,
        cache: Path | str | None = None,
        cache_limit: int | None = None,
    ) -> Store:
        """Open a store.

        Args:
            path: the folder, or an address that fsspec reads, such as ``s3://bucket/store``.
            memory_map: leave features on disk, and read each utterance through the system's page cache when
                it is asked for; otherwise read all shards into memory now.
            verify: check each utterance's CRC32C when it is first read.
            features: "stored", or "on_the_fly" to compute them from the recordings at every read, with the
                store's own contract and statistics.
            corpus: for "on_the_fly": the corpus folder, when it is no longer where the store was prepared.
            cache: for an address: the local folder that its shards are fetched to, once;
                :func:`ttsfast.data.store.remote.default_cache` when None.
            cache_limit: for an address: bytes that the cache may hold; None: no limit.

        Raises:
            InputError: there is no complete store, or a file of it is damaged; or an address cannot be read,
                or the cache not be written.
        """
        if features not in ("stored", "on_the_fly"):
            raise InputError(f"features is {features!r}, must be 'stored' or 'on_the_fly'")
        place: Path | str
        if is_address(path):
            from ttsfast.data.store.remote import open_shards

            place = str(path)
            manifest, shards = open_shards(place, cache, cache_limit, in_memory=not memory_map)
        else:
            place = Path(from_home(str(path)))
            manifest = read_manifest(place)
            shards = open_all(place, manifest, in_memory=not memory_map)
        recordings = Recordings(place, manifest, corpus) if features == "on_the_fly" else None
        store = cls(place, manifest, shards, verify=verify, recordings=recordings)
        store._reopen = {"path": path, "memory_map": memory_map, "verify": verify, "features": features}
        store._reopen |= {"corpus": corpus, "cache": cache, "cache_limit": cache_limit}
        return store

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Store], tuple[dict[str, Any]]]:
        if self._reopen is None:
            raise TypeError("only a store from Store.open can be sent to another process")
        return _open, (self._reopen,)

    def __len__(self) -> int:
        return len(self.manifest.entries)

    def __getitem__(self, index: int) -> Utterance:
        """Utterance ``index``: its ``mel`` (T, C) float16 is read-only.

        Raises InputError, naming utterance and shard, when the stored bytes do not fit their checksum or
        the shard has become shorter since it was opened.
        """
        entries = self.entries
        if not -len(self) <= index < len(self):
            raise IndexError(f"utterance {index} of {len(self)}")
        mel, text = self._stored(index)
        if self.recordings is not None:
            mel = self.recordings.mel(index)
        return Utterance(
            id=entries.id[index],
            text=text.astype(np.int64),
            mel=mel,
            speaker=int(entries.speaker[index]),
            truncated=bool(entries.truncated[index]),
            **self.tracks_of(index),
        )

    def tracks_of(self, index: int) -> dict[str, np.ndarray]:
        """The tracks of utterance ``index`` by name, each (T,) float32, read-only; none where the store holds
        none. Raises as reading the utterance does.
        """
        entries = self.entries
        place = entries.shard[index]
        shard = self.shards[place]
        if not shard.tracks:
            return {}
        found = shard.track_values(int(entries.offset[index]), int(entries.frames[index]))
        if not self._tracks_checked[index]:
            # Utterances stand in the order of the shards.
            own = index % len(self) - np.searchsorted(entries.shard, place)
            assert shard.tracks_crc32c is not None
            if tracks_crc(found.values()) != shard.tracks_crc32c[own]:
                raise InputError(
                    f"{shard.path}: utterance {entries.id[index]!r}: its {' and '.join(found)} do not fit "
                    f"their checksum; {shard.remedy}"
                )
            self._tracks_checked[index] = True
        return found

    def _stored(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """As they lie in the shard: (T, C) float16 and (N,) int32."""
        entries = self.entries
        shard = self.shards[entries.shard[index]]
        mel, text = shard.utterance(
            int(entries.offset[index]),
            int(entries.frames[index]),
            int(entries.text_offset[index]),
            int(entries.symbols[index]),
        )
        if not self._checked[index]:
            self._check(index, shard, mel, text)
            self._checked[index] = True
        return mel, text

    def _check(self, index: int, shard: ShardFile, mel: np.ndarray, text: np.ndarray) -> None:
        what = f"{shard.path}: utterance {self.entries.id[index]!r}"
        if utterance_crc(mel, text) != self.entries.crc32c[index]:
            raise InputError(f"{what}: the stored bytes do not fit their checksum; {shard.remedy}")
        if text.min() < 1 or text.max() >= len(self.symbols):
            raise InputError(f"{what}: a symbol id is not from 1 to {len(self.symbols) - 1}; {REMEDY}")

    def indices(self, split: str) -> np.ndarray:
        """The utterances of "train", "validation" or "test", ascending, (m,) int64."""
        if split not in SPLITS:
            raise InputError(f"split is {split!r}, must be one of {', '.join(SPLITS)}")
        return np.flatnonzero([name == split for name in self.entries.split])


def _open(arguments: dict[str, Any]) -> Store:
    return Store.open(**arguments)


def not_there(place: str) -> str | None:
    """Of the store that a run has: where it was looked for, for a message, if it is not there."""
    if is_address(place) or (Path(place) / NAME).is_file():
        return None
    return place if Path(place).is_absolute() else f"{place}, looked for from {Path.cwd()},"


def open_all(folder: Path, manifest: Manifest, *, in_memory: bool = False) -> list[ShardFile]:
    """Every shard that the manifest names, in its order; raises InputError for one that is not as it says."""
    shards = []
    for number, shard in enumerate(manifest.shards):
        opened = ShardFile(folder / shard.name, shard, manifest.contract.n_mels, in_memory=in_memory)
        check_index(manifest, number, opened)
        shards.append(opened)
    return shards
