"""Reading a feature store: utterances by index, from mapped or loaded shards, checked at their first read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.batch import Utterance
from ttsfast.data.manifest import SPLITS, Entries, Manifest, read_manifest
from ttsfast.data.mel import MelContract, silence_level
from ttsfast.data.shard import REMEDY, ShardArrays, offsets, open_shard, utterance_crc
from ttsfast.data.text import Symbols, TextFrontend
from ttsfast.errors import InputError

STD_FLOOR = 0.01
"""Log units. A bin that never moves (above the recordings' band, say) has a deviation of 0; divided by this
instead it is 0 throughout the store, and what a model makes of it moves the log-mel by next to nothing."""


def normalise(log_mel: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Log-mels (T, C) float32 in units of the corpus statistics (C,) float32, as stored: (T, C) float16; Inf
    where that does not reach.
    """
    with np.errstate(over="ignore"):
        return ((log_mel - mean) / std).astype(np.float16)


class Store:
    """A folder written by :func:`ttsfast.data.prepare.prepare`; ``store[i]`` is an :class:`Utterance`.

    Safe to read from several threads, and usable as a ``torch.utils.data.Dataset``: a copy sent to a worker
    process opens the folder anew.
    """

    def __init__(self, path: Path, manifest: Manifest, shards: list[ShardArrays], *, verify: bool) -> None:
        """Use :meth:`open`."""
        self.path = path
        self.manifest = manifest
        self._shards = shards
        # Two threads that read an utterance for the first time at once both check it, which is harmless.
        self._checked = np.full(len(manifest.entries), not verify)
        self._reopen: tuple[Callable[..., Store], tuple[Any, ...]] | None = None
        self.silence = normalise(
            np.full(self.contract.n_mels, silence_level(self.contract), np.float32),
            self.mel_mean,
            self.mel_std,
        ).astype(np.float32)
        """(C,) float32: what digital silence is in the store, and what batches are padded with."""
        if not np.isfinite(self.silence).all():
            raise InputError(f"{path}: manifest.json: silence exceeds float16 in its statistics; {REMEDY}")

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        memory_map: bool = True,
        verify: bool = True,
        features: str = "stored",
        corpus: Path | str | None = None,
    ) -> Store:
        """Open a store.

        Args:
            path: the folder.
            memory_map: map the shards; otherwise read them into memory now.
            verify: check each utterance's CRC32C when it is first read.
            features: "stored", or "on_the_fly" to compute them from the recordings at every read, with the
                store's own contract and statistics.
            corpus: for "on_the_fly": the corpus folder, when it is no longer where the store was prepared.

        Raises:
            InputError: there is no complete store, or a file of it is damaged.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        n_mels = manifest.contract.n_mels
        shards = []
        for number, shard in enumerate(manifest.shards):
            arrays = open_shard(folder / shard.name, shard, n_mels, memory_map=memory_map)
            check_index(folder / shard.name, manifest, number, arrays)
            shards.append(arrays)
        if features == "stored":
            store = Store(folder, manifest, shards, verify=verify)
        elif features == "on_the_fly":
            from ttsfast.data.on_the_fly import OnTheFlyStore

            store = OnTheFlyStore(folder, manifest, shards, verify=verify, corpus=corpus)
        else:
            raise InputError(f"features is {features!r}, must be 'stored' or 'on_the_fly'")
        store._reopen = (_open, (path, memory_map, verify, features, corpus))
        return store

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[Any, ...]]:
        if self._reopen is None:
            raise TypeError("only a store from Store.open can be sent to another process")
        return self._reopen

    def __len__(self) -> int:
        return len(self.manifest.entries)

    def __getitem__(self, index: int) -> Utterance:
        """Utterance ``index``: its ``mel`` (T, C) float16 is a read-only view of the shard.

        Raises InputError, naming utterance and shard, when the stored bytes do not fit their checksum.
        """
        entries = self.entries
        if not -len(self) <= index < len(self):
            raise IndexError(f"utterance {index} of {len(self)}")
        mel, text = self._stored(index)
        return Utterance(
            id=entries.id[index],
            text=text.astype(np.int64),
            mel=mel,
            speaker=int(entries.speaker[index]),
            truncated=bool(entries.truncated[index]),
        )

    def _stored(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Views of the shard: (T, C) float16 and (N,) int32."""
        entries = self.entries
        shard = self._shards[entries.shard[index]]
        offset, text_offset = entries.offset[index], entries.text_offset[index]
        mel = shard.mel[offset : offset + entries.frames[index]]
        text = shard.text[text_offset : text_offset + entries.symbols[index]]
        if not self._checked[index]:
            self._check(index, mel, text)
            self._checked[index] = True
        return mel, text

    def _check(self, index: int, mel: np.ndarray, text: np.ndarray) -> None:
        what = f"{self.path / self.manifest.shards[self.entries.shard[index]].name}: utterance "
        what += repr(self.entries.id[index])
        if utterance_crc(mel, text) != self.entries.crc32c[index]:
            raise InputError(f"{what}: the stored bytes do not fit their checksum; {REMEDY}")
        if text.min() < 1 or text.max() >= len(self.symbols):
            raise InputError(f"{what}: a symbol id is not from 1 to {len(self.symbols) - 1}; {REMEDY}")

    @property
    def entries(self) -> Entries:
        """A sequence of ``Entry``, kept as columns."""
        return self.manifest.entries

    @property
    def contract(self) -> MelContract:
        """What a log-mel number means."""
        return self.manifest.contract

    @property
    def frontend(self) -> TextFrontend:
        """What turned the corpus's text into the text that is encoded."""
        return self.manifest.frontend

    @property
    def symbols(self) -> Symbols:
        """The character set, fixed at preparation."""
        return self.manifest.symbols

    @property
    def speakers(self) -> list[str]:
        """Names, by speaker number."""
        return list(self.manifest.speakers)

    @property
    def mel_mean(self) -> np.ndarray:
        """(C,) float32, log-mel units, over the training split."""
        return self.manifest.mel_mean

    @property
    def mel_std(self) -> np.ndarray:
        """(C,) float32, log-mel units, over the training split."""
        return self.manifest.mel_std

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the store was made from and how."""
        return self.manifest.fingerprint

    @property
    def frames(self) -> np.ndarray:
        """(n,) int64 frames per utterance."""
        return self.entries.frames

    @property
    def text_lengths(self) -> np.ndarray:
        """(n,) int64 symbols per utterance."""
        return self.entries.symbols

    def indices(self, split: str) -> np.ndarray:
        """The utterances of "train" or "validation", ascending, (m,) int64."""
        if split not in SPLITS:
            raise InputError(f"split is {split!r}, must be one of {', '.join(SPLITS)}")
        return np.flatnonzero(np.array(self.entries.split) == split)


def _open(path: Path, memory_map: bool, verify: bool, features: str, corpus: Path | None) -> Store:
    return Store.open(path, memory_map=memory_map, verify=verify, features=features, corpus=corpus)


def check_index(path: Path, manifest: Manifest, number: int, arrays: ShardArrays) -> None:
    """Raise InputError unless a shard's own index is the manifest's: one swapped for its neighbour may well
    have the right size.
    """
    entries = manifest.entries
    mine = entries.shard == number
    for name, own, expected in (
        ("mel_offsets", arrays.mel_offsets, offsets(entries.frames[mine])),
        ("text_offsets", arrays.text_offsets, offsets(entries.symbols[mine])),
        ("speaker", arrays.speaker, entries.speaker[mine]),
        ("crc32c", arrays.crc32c, entries.crc32c[mine]),
    ):
        if not np.array_equal(own, expected):
            raise InputError(f"{path}: {name} differs from the manifest; {REMEDY}")
