"""What a voice is given to read for a text of the user's: all in symbols that it knows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ttsfast.data.corpus.letters import plain_letters
from ttsfast.data.corpus.lexicon import Lexicon
from ttsfast.data.corpus.read_out import read_out
from ttsfast.data.corpus.scripts import belongs, script_of
from ttsfast.data.corpus.text import Symbols, TextFrontend, closed, describe, normalize_text
from ttsfast.errors import InputError

UNKNOWN = ("error", "skip")
_PHONEMES = re.compile(r"\[\[(.*?)\]\]")
_PASSED_OVER = "<>|{}^"
_WORD = re.compile(rf"[^\W\d_]+|[{re.escape(_PASSED_OVER)}]")
_HALF = re.compile("[\ud800-\udfff]")
"""A byte of a command line that is not UTF-8, or half of a character; no file and no terminal takes it."""


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """From a raw text to the one that is encoded.

    Readings of the lexicon are put in; numbers, signs and abbreviations are read out as words, but for what a
    voice of letters has symbols for; the front end normalises the text or makes phonemes of it; and the
    sentence is closed. Phonemes in double brackets, ``[[həlˈəʊ]]``, are taken as they are.

    Unknown is what the voice has no symbol for. To a voice of phonemes, so are letters of a script that is
    neither Latin nor the language's, as espeak-ng would say their names ("Chinese letter"), and brackets of
    markup and the like, which it passes over.
    """

    unknown: str = "error"
    """What a symbol does that the voice has not learnt: "error", or "skip" to leave it out."""
    lexicon: Lexicon = field(default_factory=Lexicon)

    def __post_init__(self) -> None:
        if self.unknown not in UNKNOWN:
            raise InputError(f"unknown is {self.unknown!r}, must be one of {', '.join(UNKNOWN)}")

    def __call__(self, text: str, where: str, frontend: TextFrontend, symbols: Symbols) -> str:
        """The text to encode.

        Args:
            text: raw.
            where: its place, for messages.
            frontend: the voice's.
            symbols: the voice's.

        Raises:
            InputError: an unknown symbol, named with its place, phonemes for a voice of letters, a text of
                which nothing is left, or one that is not UTF-8.
        """
        made = self._readable(text, where, frontend, symbols)
        if made:
            symbols.encode(made, where, "leave it out with --unknown skip")
        if not any(character.isalnum() for character in made):
            raise InputError(f"{where}: nothing is left to speak after normalisation; give at least one word")
        return closed(made, symbols, frontend.language)

    def says(self, text: str, where: str, frontend: TextFrontend, symbols: Symbols) -> bool:
        """Whether a text is to be spoken: known marks alone are a pause. An unknown one is said to be unknown
        when it is spoken. Raises InputError as a call does."""
        made = self._readable(text, where, frontend, symbols)
        return any(character.isalnum() or character not in symbols.characters for character in made)

    def skipped(self, text: str, where: str, frontend: TextFrontend, symbols: Symbols) -> list[str]:
        """The symbols of a text that are left out as unknown, each once; none where they are errors."""
        if self.unknown != "skip":
            return []
        made = self._made(text, where, frontend, symbols)
        left_out = {character for character in made if character not in symbols.characters}
        for part, is_phonemes in self._parts(text, where, frontend, symbols):
            left_out.update([] if is_phonemes else _unread(part, frontend))
        return sorted(left_out - {" "})

    def _readable(self, text: str, where: str, frontend: TextFrontend, symbols: Symbols) -> str:
        made = self._made(text, where, frontend, symbols)
        if self.unknown == "skip":
            made = " ".join("".join(c for c in made if c in symbols.characters).split())
        return made

    def _made(self, text: str, where: str, frontend: TextFrontend, symbols: Symbols) -> str:
        made = []
        for part, is_phonemes in self._parts(text, where, frontend, symbols):
            if is_phonemes:
                made.append(part)
                continue
            unread = _unread(part, frontend)
            if unread and self.unknown == "error":
                raise InputError(
                    f"{where}: unknown symbol {describe(unread[0])}, which espeak-ng would name or pass "
                    "over; change the text, or leave it out with --unknown skip"
                )
            said = frontend("".join(character for character in part if character not in unread))
            # Beside phonemes, the spaces that a front end strips tell words apart.
            made.append(f"{' ' if part[:1].isspace() else ''}{said}{' ' if part[-1:].isspace() else ''}")
        return " ".join("".join(made).split())

    def _parts(
        self, text: str, where: str, frontend: TextFrontend, symbols: Symbols
    ) -> Iterator[tuple[str, bool]]:
        """A text with its readings, all in words, in parts; and whether each is phonemes."""
        if half := _HALF.search(text):
            raise InputError(f"{where}: character {half.start() + 1} is not UTF-8 text; write it anew")
        known = set(symbols.characters)

        def keep(token: str) -> bool:
            return not frontend.phonemes and set(normalize_text(token, frontend.language)) <= known

        for number, part in enumerate(_PHONEMES.split(self.lexicon.apply(text, frontend.language))):
            if number % 2 == 0:
                words = read_out(part, frontend.language, keep)
                yield (plain_letters(unicodedata.normalize("NFC", words), frontend.language), False)
            elif frontend.phonemes:
                yield part, True
            else:
                raise InputError(f"{where}: [[{part}]] is phonemes, and this voice reads letters; spell it")


def _unread(text: str, frontend: TextFrontend) -> list[str]:
    """The symbols, in order, that espeak-ng would name or pass over; a Greek letter by itself is meant to be
    named."""
    if not frontend.phonemes:
        return []
    return [symbol for word in _WORD.findall(text) for symbol in word if _is_unread(symbol, word, frontend)]


def _is_unread(symbol: str, word: str, frontend: TextFrontend) -> bool:
    if symbol in _PASSED_OVER:
        return True
    alone = len(word) == 1 and script_of(symbol) == "GREEK"
    return not (belongs(symbol, frontend.language) or script_of(symbol) == "LATIN" or alone)


def read_spelling(unknown: str, lexicon: Path | None) -> Spelling:
    """With the readings of a file, where there is one; raises InputError as Spelling and Lexicon do."""
    return Spelling(unknown=unknown, lexicon=Lexicon.read(lexicon) if lexicon else Lexicon())
