"""What the lines of a listing say, whatever its layout: rows, or the reason why a line gives none."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ttsfast.errors import InputError


@dataclass(frozen=True, slots=True)
class Row:
    """A well-formed line."""

    name: str
    """What identifies the utterance in the listing: its id, or its path."""
    audio: str
    """Where its recording is: a path, relative to the listing's folder say, with its suffix or without."""
    text: str
    speaker: str = ""
    truncated: bool = False
    split: str | None = None
    """Where the corpus says so itself."""
    line: int = 0
    """In the listing, from 1; 0 for one that has no lines."""
    listing: str = ""
    """The file, relative to the corpus, where it is not the one of all."""


@dataclass(frozen=True)
class Exclusion:
    """One utterance, or line, that is left out."""

    id: str
    """The utterance, or ``file:line`` where a line has no readable id."""
    reason: str
    """One of a few fixed phrases, to count by."""
    detail: str
    """File, line, what is wrong and what to do, in one line."""


class Fault(Exception):
    """Why a line gives no row, or a row no item: (reason, what is wrong and what to do)."""


@dataclass(frozen=True)
class Listing:
    """All that the listing, or the listings, of a corpus say."""

    layout: str
    """By which it can be read again."""
    form: str
    """What its lines hold, for a person."""
    source: str
    """The file that lists, or what else does; relative to the corpus."""
    lines: list[Row | Exclusion]
    """In order: what each says, or what is wrong with it."""
    undecodable: list[Exclusion]
    """Lines that are no text."""
    folders: tuple[str, ...] = ("",)
    """Where recordings lie that are listed by a relative path, in the order in which they are looked for."""

    @property
    def rows(self) -> list[Row]:
        """Of the lines that have one."""
        return [line for line in self.lines if isinstance(line, Row)]


def rows_of(
    source: str, lines: Iterable[tuple[int, str]], parse: Callable[[int, str], Row]
) -> list[Row | Exclusion]:
    """The rows of numbered lines, and what ``parse`` finds wrong with the others, in order."""
    found: list[Row | Exclusion] = []
    for number, line in lines:
        try:
            found.append(parse(number, line))
        except Fault as fault:
            where = f"{source}:{number}"
            reason, detail = fault.args
            found.append(Exclusion(where, reason, f"{where}: {detail}"))
    return found


def read_lines(path: Path) -> tuple[list[tuple[int, str]], list[Exclusion]]:
    """Numbered lines that are not blank, without a BOM, and those that are not UTF-8; of a ``.gz``, too.

    Raises InputError when there are only such, and for UTF-16.
    """
    content = read_content(path)
    # Its letters of ASCII, between NULs, would pass for UTF-8 on every line but the first.
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path}:1: is not UTF-8 but UTF-16; save the file as UTF-8")
    lines, undecodable = [], []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip(" \r\v\f")
        except UnicodeDecodeError as error:
            where = f"{path.name}:{number}"
            detail = f"{where}: is not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
            undecodable.append(Exclusion(where, "not UTF-8", detail))
            continue
        if line.strip():
            lines.append((number, line))
    if undecodable and not lines:
        raise InputError(f"{path.parent}/{undecodable[0].detail}; no line of it can be read")
    return lines, undecodable


def read_content(path: Path) -> bytes:
    """A listing's bytes; raises InputError where it cannot be read."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({why}); check the file") from error
