"""A manifest from plain values: every field's type and bounds, and that all of them fit each other."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from ttsfast.data.corpus.listings import Exclusion
from ttsfast.data.corpus.split import SPLITS
from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.features import tracks
from ttsfast.data.features.contract import MelContract
from ttsfast.data.store.json_values import LARGEST, Fields, all_are
from ttsfast.data.store.manifest import FORMAT, VERSION, Manifest
from ttsfast.data.store.shard import SHARD_NAME, Shard
from ttsfast.data.store.utterance_table import NUMBER_COLUMNS, TEXT_COLUMNS, UtteranceTable
from ttsfast.errors import InputError


def manifest_from_dict(values: Any) -> Manifest:
    """A manifest from plain values; raises InputError, without a file's name, where one cannot be."""
    top = Fields(values, "the manifest")
    if top.text("format") != FORMAT:
        raise InputError(f"format is {top.text('format')!r}, expected {FORMAT!r}")
    if top.count("version") != VERSION:
        raise InputError(f"version {top.count('version')} cannot be read, only {VERSION}")
    contract = MelContract.from_dict(top.mapping("contract"))
    symbols = Symbols.from_list(top.texts("symbols"))
    speakers = tuple(top.texts("speakers"))
    if not speakers or len(set(speakers)) != len(speakers):
        raise InputError("speakers is empty or holds duplicates")
    statistics = Fields(top.mapping("statistics"), "statistics")
    if statistics.text("split") != "train":
        raise InputError("statistics are not those of the training split")
    shards = tuple(_shard(item) for item in top.sequence("shards"))
    if len({shard.name for shard in shards}) != len(shards):
        raise InputError("two shards have one name")
    entries = _entries(Fields(top.mapping("entries"), "entries"), len(speakers), shards)
    statistics_of, options = statistics.count("utterances"), _options(top)
    # None of its own: those of another store were taken.
    least = 0 if any(name.startswith("like.") for name in options) else 1
    if not least <= statistics_of <= len(entries):
        raise InputError(f"statistics: utterances is {statistics_of}, there are {len(entries)}")
    return Manifest(
        fingerprint=_hex(top.text("fingerprint"), "fingerprint"),
        history=tuple(_hex(value, "history") for value in top.texts("history")),
        options=options,
        contract=contract,
        frontend=TextFrontend.from_dict(top.mapping("frontend")),
        symbols=symbols,
        speakers=speakers,
        mel_mean=statistics.numbers("mel_mean", contract.n_mels),
        mel_std=statistics.numbers("mel_std", contract.n_mels, positive=True),
        statistics_of=statistics_of,
        tracks={name: _moments(statistics, name) for name in tracks.NAMES if statistics.has(name)},
        corpus=top.text("corpus"),
        shards=shards,
        entries=entries,
        exclusions=tuple(
            Exclusion(id=item.text("id"), reason=item.text("reason"), detail=item.text("detail"))
            for item in (Fields(e, "exclusions") for e in top.sequence("exclusions"))
        ),
    )


def _options(top: Fields) -> dict[str, Any]:
    """Whatever they are, they must stand in the manifest that an append or a rebuild writes."""
    options = top.mapping("options")
    try:
        json.dumps(options, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(f"options hold what JSON cannot say ({error})") from error
    return options


def _moments(statistics: Fields, name: str) -> np.ndarray:
    values = statistics.numbers(name, 2)
    if not values[1] > 0:
        raise InputError(f"statistics: the deviation of {name} must be positive")
    return values


def _shard(value: Any) -> Shard:
    item = Fields(value, "shards")
    name = item.text("name")
    # No separator, no dots, no escape that a server could turn into one: the file lies beside the manifest.
    if not SHARD_NAME.fullmatch(name):
        raise InputError(f"shard {name!r} is not the name of a shard file")
    counts = {key: item.count(key) for key in ("size", "header_crc32c", "utterances", "frames", "symbols")}
    return Shard(name=name, sha256=_hex(item.text("sha256"), "shards: sha256"), **counts)


def _entries(table: Fields, speakers: int, shards: tuple[Shard, ...]) -> UtteranceTable:
    columns: dict[str, Any] = {name: table.texts(name) for name in TEXT_COLUMNS}
    columns |= {name: table.counts(name) for name in NUMBER_COLUMNS}
    columns["truncated"] = table.sequence("truncated")
    if {len(column) for column in columns.values()} != {len(columns["id"])}:
        raise InputError("entries: the columns differ in length")
    if not all_are(bool, columns["truncated"]):
        raise InputError("entries: truncated holds something other than true and false")
    entries = UtteranceTable(columns)
    if not entries.id or len(set(entries.id)) != len(entries.id):
        raise InputError("entries: there are none, or an id stands twice")
    if not set(entries.split) <= set(SPLITS):
        raise InputError(f"entries: split is not one of {', '.join(SPLITS)}")
    for name, low, high in (
        ("frames", 1, LARGEST),
        ("symbols", 1, LARGEST),
        ("speaker", 0, speakers - 1),
        ("shard", 0, len(shards) - 1),
        ("crc32c", 0, 2**32 - 1),
    ):
        column = getattr(entries, name)
        wrong = np.flatnonzero((column < low) | (column > high))
        if wrong.size:
            raise InputError(f"entries: {name} of {entries.id[wrong[0]]!r} is {column[wrong[0]]}")
    _check_tiling(entries, shards)
    return entries


def _check_tiling(entries: UtteranceTable, shards: tuple[Shard, ...]) -> None:
    """Utterances fill every shard exactly, in order: none overlaps another or leaves the file."""
    if np.any(np.diff(entries.shard) < 0):
        raise InputError("entries: not in the order of the shards")
    counts = np.bincount(entries.shard, minlength=len(shards))
    first = np.concatenate([[0], np.cumsum(counts)])
    for name, lengths, offsets in (
        ("frames", entries.frames, entries.offset),
        ("symbols", entries.symbols, entries.text_offset),
    ):
        ends = np.concatenate([[0], np.cumsum(lengths)])
        wrong = np.flatnonzero(offsets != ends[:-1] - ends[first[entries.shard]])
        if wrong.size:
            raise InputError(f"entries: {entries.id[wrong[0]]!r} does not follow the utterance before it")
        for index, shard in enumerate(shards):
            total = ends[first[index + 1]] - ends[first[index]]
            if total != getattr(shard, name) or counts[index] != shard.utterances or counts[index] == 0:
                raise InputError(f"entries: {shard.name} has other {name} or utterances than its entries")


def _hex(value: str, where: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise InputError(f"{where} is not a SHA-256 hash")
    return value
