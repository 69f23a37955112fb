"""Pronunciations of the user's own, in a file: ``WORD<tab>READING``, a line for each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ttsfast.data.corpus.letters import lower_case
from ttsfast.errors import InputError


@dataclass(frozen=True)
class Lexicon:
    """How words are read, whatever their case."""

    readings: Mapping[str, str] = field(default_factory=dict)
    """By word, as it is written: another spelling, or phonemes in double brackets."""

    @classmethod
    def read(cls, path: Path) -> Lexicon:
        """Read a file of lines ``WORD<tab>READING``; empty ones and those that begin with # are passed over.

        A reading is another spelling, or phonemes between slashes.

        Raises:
            InputError: the file cannot be read, a line is of another form, or a word stands twice; with its
                place.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 text ({error}); convert it") from error
        readings: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            word, _, reading = (part.strip() for part in line.partition("\t"))
            if not word or not reading:
                raise InputError(f"{path}:{number}: {line!r}: write a word, a tab and how it is read")
            if word in readings:
                raise InputError(f"{path}:{number}: {word!r} has a reading already; remove one")
            phonemes = re.fullmatch(r"/(.+)/", reading)
            readings[word] = f"[[{phonemes[1].strip()}]]" if phonemes else reading
        return cls(readings)

    def apply(self, text: str, language: str) -> str:
        """Put readings in place of whole words, the longest first."""
        if not self.readings:
            return text
        known = {lower_case(word, language): reading for word, reading in self.readings.items()}
        words = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
        # A letter that changes its length in lower case would move what follows it.
        lower = "".join(made if len(made := lower_case(c, language)) == 1 else c for c in text)
        pieces, end = [], 0
        for match in re.finditer(rf"(?<!\w)(?:{words})(?!\w)", lower):
            pieces += [text[end : match.start()], known[match.group()]]
            end = match.end()
        return "".join([*pieces, text[end:]])
