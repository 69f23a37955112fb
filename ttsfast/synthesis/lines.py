"""What to say: texts of a command line, of a file, of a pipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ttsfast.data.corpus.fields import find_header
from ttsfast.errors import InputError

_NAME = re.compile(r"\w[\w.-]*")
_LONGEST_NAME = 200
"""bytes: file systems take 255, some of them for the ending and for the temporary file's"""


@dataclass(frozen=True)
class Line:
    """One utterance to speak."""

    name: str
    """of its file, without the suffix"""
    text: str
    where: str
    """for messages: the file and line"""


def given_lines(texts: Sequence[str]) -> list[Line]:
    """Texts from the command line, named 0001 and on."""
    return [Line(f"{number:04d}", text, f"text {text!r}") for number, text in enumerate(texts, start=1)]


def read_lines(handle: Iterable[str], source: str) -> Iterator[Line]:
    """``text`` or ``id|text``, one utterance a line; empty lines are passed over.

    A line without an id is named by its number, so that its name depends on no other line.

    Raises:
        InputError: an id that cannot name a file or stands twice, a line with more columns, or a header row;
            with its place.
    """
    seen: dict[str, int] = {}
    try:
        for number, line in enumerate(handle, start=1):
            line = line.strip("\ufeff \t\r\n")
            if not line:
                continue
            where = f"{source}:{number}"
            name, bar, text = (part.strip() for part in line.partition("|"))
            if not bar:
                name, text = f"{number:04d}", name
            elif len(name.encode()) > _LONGEST_NAME:
                raise InputError(
                    f"{where}: the name {name[:20]}... has {len(name.encode())} bytes, more than the "
                    f"{_LONGEST_NAME} that a file's may have; use a shorter id"
                )
            elif not _NAME.fullmatch(name):
                raise InputError(
                    f"{where}: {name!r} cannot name a file; use letters, digits, '_', '-' and '.', or no '|'"
                )
            elif "|" in text:
                raise InputError(f"{where}: has more columns than id|text; leave one text in each line")
            elif number == 1 and find_header(line):
                raise InputError(f"{where}: is a header row; remove it")
            if name in seen:
                raise InputError(f"{where}: the name {name!r} is taken by line {seen[name]}; use another id")
            seen[name] = number
            yield Line(name, text, where)
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 text ({error}); convert it") from error


def read_file(path: Path) -> list[Line]:
    """:func:`read_lines` of a file; raises InputError also when it cannot be opened or holds nothing."""
    try:
        with path.open(encoding="utf-8") as handle:
            lines = list(read_lines(handle, str(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if not lines:
        raise InputError(f"{path}: holds no text; write one utterance a line")
    return lines
