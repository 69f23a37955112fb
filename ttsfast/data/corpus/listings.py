"""The corpus layouts: from a folder of recordings to items, with a reason for everything left out.

============  =============================  =======================================================
layout        listing                        a line
============  =============================  =======================================================
ljspeech      metadata.csv                   ``ID|text|normalised`` or ``ID|text``; wavs/ID.wav (or
                                             .flac, .ogg, .mp3); an empty third column means the second
multispeaker  metadata.csv, filelist.txt     ``path|speaker|text``
jsonl         metadata.jsonl, or the         ``{"audio": path, "text": ...}`` with, as one likes,
              folder's only .jsonl           ``"speaker"``, ``"id"``, ``"truncated"``
============  =============================  =======================================================

Paths are relative to the corpus folder and stay inside it, links included. Any layout may have a
``validation.txt``, a ``test.txt`` or both, one id (or the path that stands for it) a line: those utterances
are held out, all others are for training.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from ttsfast.data.corpus.split import TEST, TRAIN, VALIDATION
from ttsfast.errors import InputError
from ttsfast.files import inside, is_folder

LAYOUTS = ("ljspeech", "multispeaker", "jsonl")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_HELD_OUT = (VALIDATION, TEST)
"""Of each, its listing is this name with ``.txt``; an utterance in both is for the test."""
_LONGEST_ID = 120


@dataclass(frozen=True, slots=True)
class CorpusItem:
    """One recording and its text."""

    id: str
    """Unique in its corpus and safe as a file name."""
    audio: str
    """The recording's path: as text, of which a corpus holds many at a third of a Path's memory."""
    text: str
    """As the corpus has it: not yet normalised."""
    speaker: str = ""
    truncated: bool = False
    """The recording was cut before the speaker finished."""
    split: str | None = None
    """Where the corpus says so itself."""
    line: int = 0
    """Line in the listing, from 1."""


@dataclass(frozen=True)
class Exclusion:
    """One utterance, or line, that is left out."""

    id: str
    """The utterance, or ``file:line`` where a line has no readable id."""
    reason: str
    """One of a few fixed phrases, to count by."""
    detail: str
    """File, line, what is wrong and what to do, in one line."""


@dataclass(frozen=True)
class Corpus:
    """What a corpus folder lists."""

    root: Path
    layout: str
    items: tuple[CorpusItem, ...]
    """In the listing's order."""
    exclusions: tuple[Exclusion, ...]


@dataclass(frozen=True)
class _Row:
    """A well-formed line."""

    name: str
    """What identifies the utterance in the listing: its id, or its path."""
    paths: tuple[str, ...]
    """Where its recording may be; the first that exists is taken."""
    text: str
    speaker: str = ""
    truncated: bool = False


class _Fault(Exception):
    """Why a line gives no item: (reason, what is wrong and what to do)."""


def read_corpus(root: Path | str, layout: str = "auto") -> Corpus:
    """Read a corpus folder's listing and look for every recording that it names.

    A line that cannot be used (not UTF-8, wrong columns or keys, no text, no recording, a path that leaves
    the folder, an id that was there before) becomes an exclusion and the rest goes on, even when nothing is
    left: the caller can then show every fault. Blank lines mean nothing. Raises InputError for a missing
    folder, a missing or empty listing, an unknown layout, a listing of which no line is UTF-8, and a folder
    or listing whose name is not.
    """
    root = Path(root)
    if not is_folder(root):
        raise InputError(f"{root}: no such corpus folder; give the folder that holds the listing")
    _check_name(root)
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"unknown corpus layout {layout!r}; use auto, {', '.join(LAYOUTS)}")
    listing = _find_listing(root, layout)
    _check_name(listing)
    lines, exclusions = _read_lines(listing)
    if not lines:
        raise InputError(f"{listing}: the listing is empty; write a line for each recording")
    if layout == "auto":
        layout = _guess_layout(listing, lines)
    parse = _parser(layout, lines)
    items: dict[str, CorpusItem] = {}
    names: dict[str, str] = {}
    for number, line in lines:
        where = name = f"{listing.name}:{number}"
        try:
            row = parse(line)
            name = row.name
            item = _item(root, row, number, where)
            if item.id in items:
                other = items[item.id].line
                raise _Fault("duplicate id", f"line {other} has the id {item.id!r} too; rename one of them")
            items[item.id] = item
            names[row.name] = item.id
        except _Fault as fault:
            reason, detail = fault.args
            exclusions.append(Exclusion(_printable(name), reason, f"{where}: {detail}"))
    exclusions += _hold_out(root, items, names, {exclusion.id for exclusion in exclusions})
    return Corpus(root, layout, tuple(items.values()), tuple(exclusions))


def _check_name(path: Path) -> None:
    # A store says where it came from, in JSON; and libsndfile cannot open what has no such name.
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise InputError(f"{shown}: its name is not UTF-8; rename it, or give a link to it") from error


def count_exclusions(exclusions: list[Exclusion] | tuple[Exclusion, ...]) -> dict[str, int]:
    """How many exclusions each reason has, the most frequent first."""
    return dict(Counter(exclusion.reason for exclusion in exclusions).most_common())


def safe_id(name: str) -> str:
    """An id that can name a file: letters, digits, «_», «.» and «-»; anything else becomes «_»."""
    cleaned = re.sub(r"[^\w.-]", "_", name)
    cleaned = re.sub(r"^[.-]", "_", cleaned)
    if len(cleaned.encode()) > _LONGEST_ID:
        cleaned = f"{cleaned[: _LONGEST_ID // 5]}-{sha256(name.encode()).hexdigest()[:16]}"
    return cleaned


def _find_listing(root: Path, layout: str) -> Path:
    def present(*names: str) -> list[Path]:
        return [root / name for name in names if (root / name).is_file()]

    found = {
        "ljspeech": present("metadata.csv"),
        "multispeaker": present("metadata.csv", "filelist.txt"),
        "jsonl": present("metadata.jsonl") or sorted(root.glob("*.jsonl")),
        "auto": present("metadata.csv", "filelist.txt", "metadata.jsonl") or sorted(root.glob("*.jsonl")),
    }[layout]
    if not found:
        names = "metadata.csv, filelist.txt or metadata.jsonl"
        raise InputError(f"{root}: holds no listing ({names}) of layout {layout!r}; add one")
    if len(found) > 1:
        choices = ", ".join(path.name for path in found)
        remedy = "give the layout, or leave one" if layout == "auto" else "leave one"
        raise InputError(f"{root}: holds several listings ({choices}); {remedy}")
    return found[0]


def _read_lines(path: Path) -> tuple[list[tuple[int, str]], list[Exclusion]]:
    """Numbered lines that are not blank, without a BOM, and those that are not UTF-8.

    Raises InputError when there are only such, and for UTF-16.
    """
    content = path.read_bytes()
    # Its letters of ASCII, between NULs, would pass for UTF-8 on every line but the first.
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path}:1: is not UTF-8 but UTF-16; save the file as UTF-8")
    lines, undecodable = [], []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            where = f"{path.name}:{number}"
            detail = f"{where}: is not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
            undecodable.append(Exclusion(where, "not UTF-8", detail))
            continue
        if line:
            lines.append((number, line))
    if undecodable and not lines:
        raise InputError(f"{path.parent}/{undecodable[0].detail}; no line of it can be read")
    return lines, undecodable


def _guess_layout(listing: Path, lines: list[tuple[int, str]]) -> str:
    if listing.suffix == ".jsonl":
        return "jsonl"
    # A first column of paths has audio suffixes, one of ids has not.
    paths = sum(line.split("|")[0].strip().lower().endswith(AUDIO_SUFFIXES) for _, line in lines)
    return "multispeaker" if 2 * paths > len(lines) else "ljspeech"


def _parser(layout: str, lines: list[tuple[int, str]]) -> Callable[[str], _Row]:
    if layout == "jsonl":
        return _parse_json
    if layout == "multispeaker":
        return _parse_multispeaker
    # Two columns are LJ Speech's layout without the normalised text; a file has two or three throughout.
    twos = sum(line.count("|") == 1 for _, line in lines)
    columns = 2 if 2 * twos > len(lines) else 3
    return lambda line: _parse_ljspeech(line, columns)


def _columns(line: str, count: int, form: str) -> list[str]:
    fields = [field.strip() for field in line.split("|")]
    if len(fields) != count:
        raise _Fault(
            "malformed line", f"has {len(fields)} columns, expected {count} ({form}); correct the line"
        )
    return fields


def _parse_ljspeech(line: str, columns: int) -> _Row:
    name, text, *normalised = _columns(line, columns, "ID|text|normalised" if columns == 3 else "ID|text")
    if not name:
        raise _Fault("malformed line", "has no id; give one")
    return _Row(name, tuple(f"wavs/{name}{suffix}" for suffix in AUDIO_SUFFIXES), "".join(normalised) or text)


def _parse_multispeaker(line: str) -> _Row:
    path, speaker, text = _columns(line, 3, "path|speaker|text")
    if not path or not speaker:
        raise _Fault("malformed line", f"has no {'speaker' if path else 'path'}; give one")
    return _Row(path, (path,), text, speaker)


def _parse_json(line: str) -> _Row:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _Fault("malformed line", f"is not JSON ({error}); correct the line") from error
    if not isinstance(values, dict):
        raise _Fault("malformed line", 'is not a JSON object; write {"audio": ..., "text": ...}')
    kinds = {"audio": str, "text": str, "speaker": str, "id": str, "truncated": bool}
    for key in values:
        if key not in kinds:
            raise _Fault("malformed line", f"has the unknown key {key!r}; the keys are {', '.join(kinds)}")
        if not isinstance(values[key], kinds[key]):
            raise _Fault("malformed line", f"{key!r} must be of type {kinds[key].__name__}; correct the line")
    for key in ("audio", "text"):
        if key not in values:
            raise _Fault("malformed line", f"has no key {key!r}; add it")
    for key in ("audio", "id"):
        if not values.get(key, "x").strip():
            raise _Fault("malformed line", f"{key!r} is empty; correct the line")
    # JSON can spell half a surrogate pair, which no file or screen can hold.
    if any("\ud800" <= character <= "\udfff" for value in values.values() for character in str(value)):
        raise _Fault("malformed line", "holds a lone surrogate, which is not text; correct the line")
    return _Row(
        name=values["id"] if "id" in values else values["audio"],
        paths=(values["audio"],),
        text=values["text"],
        speaker=values.get("speaker", ""),
        truncated=values.get("truncated", False),
    )


def _item(root: Path, row: _Row, number: int, where: str) -> CorpusItem:
    if not row.text.strip():
        raise _Fault("empty text", "the text is empty; write what is said, or remove the line")
    audio = next((found for path in row.paths if (found := _recording(root, path, where))), None)
    if audio is None:
        raise _Fault("missing audio", f"there is no recording {row.paths[0]!r}; add it, or remove the line")
    # An utterance that is named by its path is called after it, without the suffix.
    name = row.name
    if name in row.paths:
        name = str(Path(name).with_suffix(""))
    return CorpusItem(safe_id(name), str(audio), row.text.strip(), row.speaker, row.truncated, line=number)


def _recording(root: Path, relative: str, where: str) -> Path | None:
    try:
        path = inside(root, relative, where)
        return path if path.is_file() else None
    except InputError as error:
        detail = f"the path {relative!r} leaves the corpus folder; use a path inside it"
        raise _Fault("path outside the corpus", detail) from error
    except (OSError, ValueError, RuntimeError):
        # A name too long or with a NUL, or links in a circle: nothing can be there.
        return None


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _hold_out(
    root: Path, items: dict[str, CorpusItem], names: dict[str, str], excluded: set[str]
) -> Iterator[Exclusion]:
    """Mark the items that the corpus itself holds out, in place; yield the listed ids that nothing has."""
    listings = [(split, path) for split in _HELD_OUT if (path := root / f"{split}.txt").is_file()]
    if not listings:
        return
    held: dict[str, str] = {}
    for split, path in listings:
        lines, undecodable = _read_lines(path)
        yield from undecodable
        for number, name in lines:
            identity = names.get(name, name)
            if identity in items:
                held[identity] = split
            elif _printable(name) not in excluded:
                detail = f"{path.name}:{number}: no utterance has the id {name!r}; correct or remove the line"
                yield Exclusion(_printable(name), "unknown held-out id", detail)
    for identity, item in items.items():
        items[identity] = replace(item, split=held.get(identity, TRAIN))
