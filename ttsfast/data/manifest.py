"""The manifest of a store: what is in it, how it was made, and the checks that let the rest be trusted.

``manifest.json`` is written last, so a folder that has one is a complete store. Its last line is the SHA-256
of every byte before it, so any change to it is found on opening; utterances are kept as columns, which read
in a tenth of the time that 100,000 objects take.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np

from ttsfast.data import tracks
from ttsfast.data.corpora import Exclusion
from ttsfast.data.json_pieces import list_pieces
from ttsfast.data.mel import MelContract
from ttsfast.data.shard import REMEDY, SHARD_NAME, Shard
from ttsfast.data.text import Symbols, TextFrontend
from ttsfast.errors import InputError
from ttsfast.files import atomic_write

NAME = "manifest.json"
FORMAT = "ttsfast-store"
VERSION = 2
SPLITS = ("train", "validation")

_SEAL = re.compile(rb'"manifest_sha256": "([0-9a-f]{64})"\n\}\n\Z')
_SEAL_BYTES = 128
# Far beyond any corpus, and far below where 64-bit sums of them would wrap.
_LARGEST = 1 << 48


@dataclass(frozen=True, slots=True)
class Entry:
    """One utterance of a store."""

    id: str
    text: str
    """As the frontend left it: what ``symbols`` encodes."""
    speaker: int
    split: str
    """"train" or "validation"."""
    frames: int
    symbols: int
    """Length of the encoded text."""
    shard: int
    offset: int
    """First frame in the shard."""
    text_offset: int
    """First symbol in the shard."""
    crc32c: int
    truncated: bool
    """The recording was cut before the speaker finished."""
    audio: str
    """The recording, relative to the corpus folder."""
    audio_sha256: str


_TEXT_COLUMNS = ("id", "text", "split", "audio", "audio_sha256")
_NUMBER_COLUMNS = ("speaker", "frames", "symbols", "shard", "offset", "text_offset", "crc32c")


class Entries(Sequence[Entry]):
    """A sequence of :class:`Entry` kept as columns: ``entries.frames`` is an (n,) int64 array, ``entries.id``
    a list of str.
    """

    id: list[str]
    text: list[str]
    split: list[str]
    audio: list[str]
    audio_sha256: list[str]
    speaker: np.ndarray
    frames: np.ndarray
    symbols: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    text_offset: np.ndarray
    crc32c: np.ndarray
    truncated: np.ndarray

    def __init__(self, columns: dict[str, Any]) -> None:
        for name in _TEXT_COLUMNS:
            setattr(self, name, columns[name])
        for name in _NUMBER_COLUMNS:
            setattr(self, name, np.asarray(columns[name], dtype=np.int64))
        self.truncated = np.asarray(columns["truncated"], dtype=bool)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Entries:
        """From single entries."""
        rows = list(entries)
        return cls({field.name: [getattr(row, field.name) for row in rows] for field in fields(Entry)})

    @classmethod
    def join(cls, parts: Sequence[Entries]) -> Entries:
        """All of ``parts`` (one at least), one behind the other."""
        columns: dict[str, Any] = {
            name: list(chain(*(getattr(p, name) for p in parts))) for name in _TEXT_COLUMNS
        }
        for name in (*_NUMBER_COLUMNS, "truncated"):
            columns[name] = np.concatenate([getattr(part, name) for part in parts])
        return cls(columns)

    def columns(self) -> Iterator[tuple[str, list[Any]]]:
        """Names and plain lists, in the order of :class:`Entry`."""
        for name in [each.name for each in fields(Entry)]:
            column = getattr(self, name)
            yield name, column if isinstance(column, list) else column.tolist()

    def __len__(self) -> int:
        return len(self.id)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        values: dict[str, Any] = {name: getattr(self, name)[index] for name in _TEXT_COLUMNS}
        values |= {name: int(getattr(self, name)[index]) for name in _NUMBER_COLUMNS}
        return Entry(**values, truncated=bool(self.truncated[index]))

    def __iter__(self) -> Iterator[Entry]:
        return (self[i] for i in range(len(self)))


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
    """How many utterances the statistics are of: the first ones, so all before the first append."""
    corpus: str
    """The corpus folder when the store was prepared."""
    shards: tuple[Shard, ...]
    entries: Entries
    exclusions: tuple[Exclusion, ...]
    tracks: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Those of ``tracks.NAMES`` that the store holds, in that order: mean and deviation (2,) float32 over the
    frames of the training split, of pitch over the voiced ones"""

    def common(self) -> dict[str, Any]:
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
        for name, value in {**self.common(), "shards": shards}.items():
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


def read_manifest(folder: Path) -> Manifest:
    """Read and check a store's manifest; raises InputError naming the file, the key and the remedy."""
    path = folder / NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no {NAME} there, so no complete store; run `ttsfast prepare` (again)"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: Path | str) -> Manifest:
    """Check every field's type and bounds, and build the manifest; ``path`` is for the messages."""
    # Not from the beginning, which would take as long as the hash.
    seal = _SEAL.search(content, max(0, len(content) - _SEAL_BYTES))
    if seal is None or hashlib.sha256(content[: seal.start()]).hexdigest().encode() != seal[1]:
        raise InputError(f"{path}: damaged or edited (its own hash does not fit); {REMEDY}")
    try:
        rest, columns = _taken_out(content)
        values = json.loads(rest, object_pairs_hook=_unique, parse_constant=_no_constant)
        if columns:
            values["entries"] |= columns
        return build(values)
    except InputError as error:
        raise InputError(f"{path}: {error}; {REMEDY}") from error
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not a manifest ({error!r}); {REMEDY}") from error


def _taken_out(content: bytes) -> tuple[bytes, dict[str, np.ndarray]]:
    """The content with nothing in the lists of numbers of its entries, and those numbers.

    A JSON reader makes an object of each, which for a large corpus is half of its time. Whatever does not
    look as :class:`Manifest` writes it is left in its place.
    """
    place = content.find(b'\n"entries": {')
    stop = content.find(b"\n", place + 1)
    pieces, done, columns = [], 0, {}
    for name in _NUMBER_COLUMNS:
        # Within a text a quote follows a backslash, so what looks like a key is one.
        key = b'"%s": [' % name.encode()
        begin = content.find(key, place, stop) + len(key)
        end = content.find(b"]", begin, stop)
        if not 0 <= place < begin < end or (column := _column(content[begin:end])) is None:
            continue
        pieces.append(content[done:begin])
        place = done = end
        columns[name] = column
    return b"".join([*pieces, content[done:]]), columns


def _column(numbers: bytes) -> np.ndarray | None:
    """(n,) int64 of "1, 23, 456", one at least; None for anything else, however little."""
    between = numbers.translate(None, b"0123456789")
    count = 1 + len(between) // 2
    ends = numbers[:1].isdigit() and numbers[-1:].isdigit()
    if not ends or between != b", " * (count - 1) or b", ," in numbers:
        return None
    # Numbers beyond 64 bits come as the largest.
    column = np.fromstring(numbers.decode(), dtype=np.int64, sep=",")
    return column if len(column) == count else None


def build(values: Any) -> Manifest:
    """A manifest from plain values; raises InputError, without a file's name, where one cannot be."""
    top = _Fields(values, "the manifest")
    if top.text("format") != FORMAT:
        raise InputError(f"format is {top.text('format')!r}, expected {FORMAT!r}")
    if top.count("version") != VERSION:
        raise InputError(f"version {top.count('version')} cannot be read, only {VERSION}")
    contract = MelContract.from_dict(top.mapping("contract"))
    symbols = Symbols.from_list(top.texts("symbols"))
    speakers = tuple(top.texts("speakers"))
    if not speakers or len(set(speakers)) != len(speakers):
        raise InputError("speakers is empty or holds duplicates")
    statistics = _Fields(top.mapping("statistics"), "statistics")
    if statistics.text("split") != "train":
        raise InputError("statistics are not those of the training split")
    shards = tuple(_shard(item) for item in top.sequence("shards"))
    if len({shard.name for shard in shards}) != len(shards):
        raise InputError("two shards have one name")
    entries = _entries(_Fields(top.mapping("entries"), "entries"), len(speakers), shards)
    statistics_of = statistics.count("utterances")
    if not 0 < statistics_of <= len(entries):
        raise InputError(f"statistics: utterances is {statistics_of}, there are {len(entries)}")
    return Manifest(
        fingerprint=_hex(top.text("fingerprint"), "fingerprint"),
        history=tuple(_hex(value, "history") for value in top.texts("history")),
        options=dict(top.mapping("options")),
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
            for item in (_Fields(e, "exclusions") for e in top.sequence("exclusions"))
        ),
    )


def _moments(statistics: _Fields, name: str) -> np.ndarray:
    values = statistics.numbers(name, 2)
    if not values[1] > 0:
        raise InputError(f"statistics: the deviation of {name} must be positive")
    return values


def _shard(value: Any) -> Shard:
    item = _Fields(value, "shards")
    name = item.text("name")
    # No separator, no dots, no escape that a server could turn into one: the file lies beside the manifest.
    if not SHARD_NAME.fullmatch(name):
        raise InputError(f"shard {name!r} is not the name of a shard file")
    counts = {key: item.count(key) for key in ("size", "header_crc32c", "utterances", "frames", "symbols")}
    return Shard(name=name, sha256=_hex(item.text("sha256"), "shards: sha256"), **counts)


def _entries(table: _Fields, speakers: int, shards: tuple[Shard, ...]) -> Entries:
    columns: dict[str, Any] = {name: table.texts(name) for name in _TEXT_COLUMNS}
    columns |= {name: table.counts(name) for name in _NUMBER_COLUMNS}
    columns["truncated"] = table.sequence("truncated")
    if {len(column) for column in columns.values()} != {len(columns["id"])}:
        raise InputError("entries: the columns differ in length")
    if not _all_are(bool, columns["truncated"]):
        raise InputError("entries: truncated holds something other than true and false")
    entries = Entries(columns)
    if not entries.id or len(set(entries.id)) != len(entries.id):
        raise InputError("entries: there are none, or an id stands twice")
    if not set(entries.split) <= set(SPLITS):
        raise InputError(f"entries: split is not one of {', '.join(SPLITS)}")
    for name, low, high in (
        ("frames", 1, _LARGEST),
        ("symbols", 1, _LARGEST),
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


def _check_tiling(entries: Entries, shards: tuple[Shard, ...]) -> None:
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


class _Fields:
    """A JSON object whose keys are taken with their types; every mismatch is an InputError naming the key."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise InputError(f"{where}: expected keys and values")
        self._values, self._where = values, where

    def _get(self, key: str, kind: type, name: str) -> Any:
        value = self._values.get(key)
        if type(value) is not kind:
            raise InputError(f"{self._where}: {key} must be {name}")
        return value

    def has(self, key: str) -> bool:
        return key in self._values

    def mapping(self, key: str) -> dict[str, Any]:
        return self._get(key, dict, "keys and values")

    def sequence(self, key: str) -> list[Any]:
        return self._get(key, list, "a list")

    def text(self, key: str) -> str:
        return _printable([self._get(key, str, "text")], f"{self._where}: {key}")[0]

    def texts(self, key: str) -> list[str]:
        values = self.sequence(key)
        if not _all_are(str, values):
            raise InputError(f"{self._where}: {key} must hold texts only")
        return _printable(values, f"{self._where}: {key}")

    def count(self, key: str) -> int:
        return int(_counted([self._get(key, int, "a whole number")], f"{self._where}: {key}")[0])

    def counts(self, key: str) -> np.ndarray:
        found = self._values.get(key)
        values = found if isinstance(found, np.ndarray) else self.sequence(key)
        return _counted(values, f"{self._where}: {key}")

    def numbers(self, key: str, length: int, *, positive: bool = False) -> np.ndarray:
        values = self.sequence(key)
        if len(values) != length or any(type(value) not in (int, float) for value in values):
            raise InputError(f"{self._where}: {key} must be {length} numbers")
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=np.float32)
        if not np.isfinite(array).all() or (positive and not (array > 0).all()):
            raise InputError(f"{self._where}: {key} must be finite{' and positive' if positive else ''}")
        return array


def _counted(values: list[Any] | np.ndarray, where: str) -> np.ndarray:
    """(n,) int64."""
    try:
        array = np.array(values, dtype=np.int64)
        whole = isinstance(values, np.ndarray) or _all_are(int, values)
        right = whole and not (array < 0).any() and not (array > _LARGEST).any()
    except (OverflowError, TypeError, ValueError):
        right = False
    if not right:
        raise InputError(f"{where} must be whole numbers from 0 to {_LARGEST}")
    return array


def _all_are(kind: type, values: list[Any]) -> bool:
    """Of this very type; a loop would take longer than all else that opening a large corpus does."""
    return list(map(type, values)).count(kind) == len(values)


def _printable(values: list[str], where: str) -> list[str]:
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds half of a surrogate pair") from error
    return values


def _hex(value: str, where: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise InputError(f"{where} is not a SHA-256 hash")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise InputError("a key stands twice")
    return values


def _no_constant(name: str) -> Any:
    raise InputError(f"holds {name}, which is not a JSON number")
