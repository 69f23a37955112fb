"""Listings in columns: with a header row that names them, or in one of a few orders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ttsfast.data.corpus.fields import (
    AUDIO,
    ID,
    SPEAKER,
    TEXT,
    Cut,
    csv_cutter,
    cutter,
    find_header,
    join_quoted,
    pick,
    split_fields,
)
from ttsfast.data.corpus.rows import Exclusion, Fault, Listing, Row, rows_of
from ttsfast.data.corpus.suffixes import FOLDERS, without_suffix
from ttsfast.errors import InputError

FORMS = {
    "ljspeech": "ID|text|normalised",
    "multispeaker": "path|speaker|text",
    "text-speaker": "path|text|speaker",
    "css10": "path|text|normalised|seconds",
}
"""The orders of columns without a header, by layout; an ID is the name of a recording in wavs/."""
_SHORT_FORM = "ID|text"
_LONGEST_NAME = 40
_MOST_WORDS = 3


def read_columns(
    path: Path, lines: list[tuple[int, str]], undecodable: list[Exclusion], layout: str
) -> Listing:
    """A listing in columns, in the layout named (of FORMS, or "table") or, for "auto", in that of its lines.

    Raises InputError, in a line that names the file and the remedy, where all of it is not what the layout
    needs, or where no layout fits.
    """
    header = find_header(lines[0][1])
    if layout == "table" and header is None:
        raise InputError(
            f"{path}: its first line names no columns for recording and text; write such a line "
            f"(audio|text|speaker), or give the layout of one without ({', '.join(FORMS)})"
        )
    if layout in FORMS and header is not None:
        raise InputError(
            f"{path}: line {lines[0][0]} is a header row; remove it, or read it with --layout table"
        )
    if header is not None:
        return _read_table(path.name, lines, undecodable, *header)
    cut = cutter(path, lines)
    fields = [cut(line) for _, line in lines]
    count = Counter(map(len, fields)).most_common(1)[0][0]
    if layout == "auto":
        layout = _guess(path, [row for row in fields if len(row) == count], count)
    form = _SHORT_FORM if layout == "ljspeech" and count == 2 else FORMS[layout]
    rows = rows_of(path.name, lines, _parser(form, cut))
    # Ids are of wavs/, paths of the listing's own folder; each is looked for in the other afterwards.
    folders = (*FOLDERS[:1], "", *FOLDERS[1:]) if layout == "ljspeech" else ("", *FOLDERS)
    return Listing(layout, form, path.name, rows, undecodable, folders)


def _read_table(
    source: str, lines: list[tuple[int, str]], undecodable: list[Exclusion], separator: str, names: list[str]
) -> Listing:
    audio, identity, speaker = pick(names, AUDIO), pick(names, ID), pick(names, SPEAKER)
    texts = [name for name in TEXT if name in names]
    is_csv = separator in ",;"
    cut = csv_cutter(separator) if is_csv else lambda line: split_fields(line, separator)

    def parse(number: int, line: str) -> Row:
        values = _values(cut(line), names, separator.join(names))
        path, name = values[audio or identity], values[identity or audio]
        if not path or not name:
            raise Fault("malformed line", f"has no {identity if path else audio or identity}; give one")
        text = next((values[key] for key in texts if values[key]), "")
        return Row(name, path, text, values.get(speaker, ""), line=number)

    below = lines[1:]
    rows = rows_of(source, join_quoted(below) if is_csv else below, parse)
    used = [name for name in (identity, audio, *texts, speaker) if name]
    unread = [name for name in names if name and name not in used]
    form = f"columns {', '.join(used)}" + (f" (not {', '.join(unread)})" if unread else "")
    return Listing("table", form, source, rows, undecodable, ("", *FOLDERS))


def _parser(form: str, cut: Cut) -> Callable[[int, str], Row]:
    names = form.split("|")

    def parse(number: int, line: str) -> Row:
        values = _values(cut(line), names, form)
        for name in (names[0], "speaker"):
            if not values.get(name, name):
                raise Fault("malformed line", f"has no {name if name != 'ID' else 'id'}; give one")
        name = values[names[0]]
        text = values.get("normalised") or values["text"]
        return Row(name, name, text, values.get("speaker", ""), line=number)

    return parse


def _values(fields: list[str], names: Sequence[str], form: str) -> dict[str, str]:
    if len(fields) != len(names):
        raise Fault(
            "malformed line", f"has {len(fields)} columns, expected {len(names)} ({form}); correct the line"
        )
    return dict(zip(names, fields, strict=True))


def _guess(path: Path, rows: list[list[str]], count: int) -> str:
    if count <= 2:
        return "ljspeech"
    if count == 3:
        return _guess_speakers(path, rows)
    if count == 4 and all(re.fullmatch(r"\d+(\.\d+)?", row[3]) for row in rows):
        return "css10"
    raise InputError(
        f"{path}: has {count} columns, and no header row that names them (audio|text|speaker); write one, or "
        f"leave the columns of {', '.join(FORMS.values())}"
    )


def _guess_speakers(path: Path, rows: list[list[str]]) -> str:
    """Which of the last two of three columns holds speakers, if one does."""
    first, second, third = zip(*rows, strict=True)
    by_path = 2 * sum(without_suffix(name) != name for name in first) > len(rows)
    if 2 * sum(map(_say_the_same, second, third)) >= len(rows) and not (_few(second) or _few(third)):
        return "ljspeech"
    names = _names(second), _names(third)
    if not any(names):
        raise InputError(
            f"{path}: its second and third columns are sentences that differ; give the layout (ljspeech "
            "reads the third), or leave one of them out"
        )
    if names == (True, False):
        return "multispeaker"
    if names == (False, True):
        return "text-speaker"
    # Both are short: speakers are fewer than texts.
    if not (by_path or _few(second) or _few(third)):
        return "ljspeech"
    return "text-speaker" if len(set(third)) < len(set(second)) else "multispeaker"


def _names(values: Sequence[str]) -> bool:
    """Whether they are as short as speakers' names."""
    short = sum(len(value) <= _LONGEST_NAME and len(value.split()) <= _MOST_WORDS for value in values)
    return 10 * short >= 9 * len(values)


def _few(values: Sequence[str]) -> bool:
    """Whether they are as short, and as few, as speakers' names."""
    return all(values) and _names(values) and 3 * len(set(values)) <= len(values)


def _say_the_same(text: str, normalised: str) -> bool:
    words = set(text.casefold().split())
    return not normalised or text == normalised or bool(words & set(normalised.casefold().split()))
