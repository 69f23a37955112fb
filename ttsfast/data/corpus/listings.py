"""From a folder of recordings to items, with a reason for everything left out.

How they are listed is the layout's (``layouts.py``); docs/corpora.md shows each. Any may have a
``validation.txt``, a ``test.txt`` or both, one id (or the path that stands for it) a line: those utterances
are held out, all others are for training. Recordings lie in the corpus folder, or in others that the user
has named (``finder.py``).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from ttsfast.data.corpus.finder import RecordingFinder
from ttsfast.data.corpus.layouts import HELD_OUT, check_name, read_listing
from ttsfast.data.corpus.plausible import check_plausible
from ttsfast.data.corpus.rows import Exclusion, Fault, Listing, Row, read_lines
from ttsfast.data.corpus.split import TRAIN
from ttsfast.data.corpus.suffixes import without_suffix
from ttsfast.errors import InputError
from ttsfast.files import is_folder

__all__ = ["Corpus", "CorpusItem", "Exclusion", "count_exclusions", "listed_texts", "read_corpus", "safe_id"]
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
class Corpus:
    """What a corpus folder lists."""

    root: Path
    layout: str
    items: tuple[CorpusItem, ...]
    """In the listing's order."""
    exclusions: tuple[Exclusion, ...]
    source: str
    """The file that lists them, or what else does, relative to the root."""
    form: str
    """What its lines hold, for a person."""

    def relative(self, audio: str) -> str:
        """An item's recording by its path in the corpus folder; an absolute path where it lies outside."""
        root = str(self.root.absolute())
        # Not by Path, which interns the names that it takes apart: a table entry for each, for good.
        return audio.removeprefix(root.rstrip(os.sep) + os.sep)

    @property
    def reading(self) -> str:
        """For a person: as what the folder was read."""
        return f"{self.root / self.source}: {len(self.items)} utterances, read as {self.layout} ({self.form})"


def read_corpus(root: Path | str, layout: str = "auto", allow_roots: Sequence[Path | str] = ()) -> Corpus:
    """Read a corpus folder's listing and look for every recording that it names.

    A line that cannot be used (not UTF-8, wrong columns or keys, no text, no recording, a path that leaves
    the folder and ``allow_roots``, an id that was there before) becomes an exclusion and the rest goes on,
    even when nothing is left: the caller can then show every fault. Blank lines mean nothing. Raises
    InputError for a missing folder, a missing or empty listing, an unknown layout, a listing of which no line
    is UTF-8, a folder or listing whose name is not, and where one reason tells why nothing can be used:
    columns that cannot be what they were taken for, or the same fault in every line.
    """
    root, listing = Path(root), _listing(root, layout)
    finder = RecordingFinder(root, allow_roots)
    exclusions = list(listing.undecodable)
    items: dict[str, CorpusItem] = {}
    names: dict[str, str] = {}
    for row in listing.lines:
        if isinstance(row, Exclusion):
            exclusions.append(row)
            continue
        try:
            item = _item(finder, row, listing.folders)
            if item.id in items:
                other = items[item.id]
                place = f"line {other.line}" if other.line else repr(other.audio)
                raise Fault("duplicate id", f"{place} has the id {item.id!r} too; rename one of them")
            items[item.id] = item
            names[row.name] = item.id
        except Fault as fault:
            reason, detail = fault.args
            where = (row.listing or listing.source) + (f":{row.line}" if row.line else "")
            exclusions.append(Exclusion(_printable(row.name), reason, f"{where}: {detail}"))
    if not items:
        _refuse_as_one(root, listing, exclusions)
    exclusions += _hold_out(root, items, names, {exclusion.id for exclusion in exclusions})
    return Corpus(
        root, listing.layout, tuple(items.values()), tuple(exclusions), listing.source, listing.form
    )


def listed_texts(root: Path | str, layout: str) -> dict[str, str]:
    """The texts of a corpus by id, whether their recordings are there or not; raises InputError as
    :func:`read_corpus` does.
    """
    rows = reversed(_listing(root, layout).rows)
    finder = RecordingFinder(Path(root))
    # Of two with an id the first counts.
    return {_id(finder, row): row.text.strip() for row in rows if row.text.strip()}


def _listing(root: Path | str, layout: str) -> Listing:
    root = Path(root)
    if not is_folder(root):
        raise InputError(f"{root}: no such corpus folder; give the folder that holds the listing")
    check_name(root)
    listing = read_listing(root, layout)
    check_plausible(listing, str(root / listing.source), asked=layout != "auto")
    return listing


def _refuse_as_one(root: Path, listing: Listing, exclusions: list[Exclusion]) -> None:
    """Raise InputError where all lines have the same fault: that is one, of the listing or its reading."""
    if len(exclusions) > 1 and len({exclusion.reason for exclusion in exclusions}) == 1:
        first = exclusions[0]
        raise InputError(
            f"{root / listing.source}: read as {listing.layout} ({listing.form}), none of its "
            f"{len(exclusions)} lines can be used: {first.reason}; the first: {first.detail}"
        )


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


def _item(finder: RecordingFinder, row: Row, folders: Sequence[str]) -> CorpusItem:
    if not row.text.strip():
        raise Fault("empty text", "the text is empty; write what is said, or remove the line")
    audio = finder.find(row.audio, folders)
    return CorpusItem(
        _id(finder, row), audio, row.text.strip(), row.speaker, row.truncated, row.split, row.line
    )


def _id(finder: RecordingFinder, row: Row) -> str:
    # An utterance that is named by its path is called after it, without the suffix.
    return safe_id(without_suffix(finder.relative(row.name)) if row.name == row.audio else row.name)


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _hold_out(
    root: Path, items: dict[str, CorpusItem], names: dict[str, str], excluded: set[str]
) -> Iterator[Exclusion]:
    """Mark the items that the corpus itself holds out, in place; yield the listed ids that nothing has."""
    listings = [(split, path) for split in HELD_OUT if (path := root / f"{split}.txt").is_file()]
    if not listings:
        return
    held: dict[str, str] = {}
    for split, path in listings:
        lines, undecodable = read_lines(path)
        yield from undecodable
        for number, line in lines:
            name = line.strip()
            identity = names.get(name, name)
            if identity in items:
                held[identity] = split
            elif _printable(name) not in excluded:
                detail = f"{path.name}:{number}: no utterance has the id {name!r}; correct or remove the line"
                yield Exclusion(_printable(name), "unknown held-out id", detail)
    for identity, item in items.items():
        items[identity] = replace(item, split=held.get(identity, TRAIN))
