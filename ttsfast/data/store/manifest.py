"""The manifest of a store: what is in it, how it was made, and how that is written.

``manifest.json`` is written last, so a folder that has one is a complete store. Its last line is the SHA-256
of every byte before it, so any change to it is found on opening (see ``manifest_reader.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.corpus.listings import Exclusion
from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.features.contract import MelContract
from ttsfast.data.store.json_values import list_pieces
from ttsfast.data.store.shard import Shard, shard_name
from ttsfast.data.store.utterance_table import UtteranceTable
from ttsfast.files import atomic_write

NAME = "manifest.json"
FORMAT = "ttsfast-store"
VERSION = 2


@dataclass(frozen=True)
class Manifest:
    """Everything a store says of itself."""

    fingerprint: str
    """SHA-256 over every parameter that shaped the features and over the source files."""
    history: tuple[str, ...]
    """The fingerprints before each append, oldest first; empty for a store that was made at once."""
    options: dict[str, Any]
    """Those parameters by name, flat, for a person to compare."""
    contract: MelContract
    frontend: TextFrontend
    symbols: Symbols
    speakers: tuple[str, ...]
    mel_mean: np.ndarray
    """(C,) float32, log-mel units, over the frames of the training split only"""
    mel_std: np.ndarray
    """(C,) float32, log-mel units, over the frames of the training split only"""
    statistics_of: int
    """How many utterances the statistics are of: the first ones, so all before the first append; 0 where they
    are another store's."""
    corpus: str
    """The corpus folder when the store was prepared."""
    shards: tuple[Shard, ...]
    entries: UtteranceTable
    exclusions: tuple[Exclusion, ...]
    tracks: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Those of ``tracks.NAMES`` that the store holds, in that order: mean and deviation (2,) float32 over the
    frames of the training split, of pitch over the voiced ones"""

    def utterances_at(self, fingerprint: str) -> int | None:
        """How many utterances, the first ones, the store had when that was its fingerprint; None for a store
        that it never was.
        """
        known = (*self.history, self.fingerprint)
        if fingerprint not in known:
            return None
        written = known[: known.index(fingerprint) + 1]
        names = {shard_name(one, number) for one in written for number in range(len(self.shards))}
        return sum(shard.utterances for shard in self.shards if shard.name in names)

    def store_metadata(self) -> dict[str, Any]:
        """What is said of the store as a whole, in plain values: every shard carries it too."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "history": list(self.history),
            "options": self.options,
            "contract": self.contract.to_dict(),
            "frontend": self.frontend.to_dict(),
            "symbols": self.symbols.to_list(),
            "speakers": list(self.speakers),
            "statistics": {
                "split": "train",
                "utterances": self.statistics_of,
                "mel_mean": self.mel_mean.tolist(),
                "mel_std": self.mel_std.tolist(),
                **{name: values.tolist() for name, values in self.tracks.items()},
            },
            "corpus": self.corpus,
        }

    def write(self, folder: Path) -> None:
        """Publish the store: from here on the folder holds one."""
        digest = hashlib.sha256()
        with atomic_write(folder / NAME) as handle:
            for piece in map(str.encode, self._pieces()):
                digest.update(piece)
                handle.write(piece)
            handle.write(b'"manifest_sha256": "%s"\n}\n' % digest.hexdigest().encode())

    def _pieces(self) -> Iterator[str]:
        """The file's content up to its seal: a line for each key, long ones in several pieces."""
        shards = [{field.name: getattr(s, field.name) for field in fields(Shard)} for s in self.shards]
        yield "{\n"
        for name, value in {**self.store_metadata(), "shards": shards}.items():
            yield f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)},\n"
        before = '"entries": {'
        for name, column in self.entries.columns():
            yield f"{before}{json.dumps(name)}: "
            yield from list_pieces(column, ensure_ascii=False)
            before = ", "
        yield '},\n"exclusions": '
        yield from list_pieces(plain_exclusions(self.exclusions), ensure_ascii=False)
        yield ",\n"


def plain_exclusions(exclusions: Iterable[Exclusion]) -> list[dict[str, str]]:
    """As the manifest keeps them."""
    return [{"id": e.id, "reason": e.reason, "detail": e.detail} for e in exclusions]
