"""From raw text to symbol ids: normalisation, the symbol table, and the front end that a voice carries."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ttsfast.data.corpus.letters import lower_case, plain_letters
from ttsfast.data.corpus.sentences import ENDS, GREEK_QUESTION
from ttsfast.errors import InputError

PADDING = "<pad>"
"""The name of symbol 0. Longer than one character, so no text can hold it."""

_ZWNJ = "\u200c"
_JOINERS = _ZWNJ + "\u200d"
_QUOTES_AND_DASHES = str.maketrans(
    {**dict.fromkeys("‘’‚‛ʼ", "'"), **dict.fromkeys("“”„‟", '"'), **dict.fromkeys("‐‑", "-")}
    | {**dict.fromkeys("‒–―", "—"), "…": "..."}
)

_PERSIAN = str.maketrans(
    # Arabic yeh, alef maksura and kaf are other characters than the Persian ones they look like; tatweel only
    # stretches a word; the heh with yeh above is spelt as heh and hamza, which NFC does not do.
    {"ي": "ی", "ى": "ی", "ك": "ک", "ـ": None, "ۀ": "هٔ", "ە": "ه", "۔": "."}
    | {arabic: chr(0x6F0 + value) for value, arabic in enumerate("٠١٢٣٤٥٦٧٨٩")}
    | {ascii_digit: chr(0x6F0 + value) for value, ascii_digit in enumerate("0123456789")}
    | {";": "؛", "?": "؟"}
)
# Harakat, superscript alef and the Quranic marks. Not hamza above (U+0654): it is heard in «خانهٔ من».
_DIACRITICS = re.compile(
    "[\u064b-\u0653\u0655-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]"
)
# A joiner shapes letters; one beside a space, a mark or another joiner does nothing.
_LETTER = "[^\\W\\d_]"
_MARK = "[\u064b-\u065f\u0670\u06d6-\u06ed]"
_USELESS_ZWNJ = re.compile(f"(?<!{_LETTER})(?<!{_MARK}){_ZWNJ}|{_ZWNJ}(?!{_LETTER})")


def normalize_text(
    text: str, language: str, *, keep_case: bool = False, keep_diacritics: bool = False
) -> str:
    """One spelling for what reads the same; applying it twice changes nothing.

    Any language: Unicode NFC; ligatures, full-width letters and look-alikes of other scripts to plain letters
    (see ``letters.py``); typographic quotes, hyphens and ellipses to their plain forms, dashes to one dash;
    lower case by the rules of the language (unless ``keep_case``); control characters and invisible marks
    (bidi controls, BOM, zero-width space, soft hyphen) removed; white space collapsed to single spaces and
    stripped. Zero-width joiners stay in the languages that write with them, and go in English.

    Persian ("fa") besides: Arabic yeh and kaf to Persian, Arabic-Indic and ASCII digits to Persian ones,
    tatweel removed, harakat removed (unless ``keep_diacritics``), the comma, semicolon and question mark to
    «،», «؛» and «؟», and ZWNJ kept exactly where it parts two letters.
    """
    persian = language == "fa"
    text = plain_letters(unicodedata.normalize("NFC", text), language)
    joiners = _ZWNJ if persian else "" if language == "en" else _JOINERS
    text = "".join(_visible(character, joiners) for character in text).translate(_QUOTES_AND_DASHES)
    if not keep_case:
        text = lower_case(text, language)
    if persian:
        text = _normalize_persian(text, keep_diacritics)
    return " ".join(unicodedata.normalize("NFC", text).split())


def _visible(character: str, joiners: str) -> str:
    if character.isspace():
        return " "
    return "" if unicodedata.category(character) in ("Cc", "Cf") and character not in joiners else character


def _normalize_persian(text: str, keep_diacritics: bool) -> str:
    text = text.translate(_PERSIAN)
    if not keep_diacritics:
        text = _DIACRITICS.sub("", text)
    text = unicodedata.normalize("NFC", text.replace("ی\u0654", "ئ"))
    # A comma between digits belongs to the number.
    text = re.sub(r"(?<!\d),|,(?!\d)", "،", text)
    return _USELESS_ZWNJ.sub("", re.sub(f"{_ZWNJ}+", _ZWNJ, text))


_PREPARE_AGAIN = "prepare the corpus again with texts that hold this symbol"


@dataclass(frozen=True)
class Symbols:
    """The character set of a voice, fixed when its corpus is prepared; symbol 0 is padding."""

    characters: tuple[str, ...]
    """Single characters in code point order; character i is symbol i + 1."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Symbols:
        """The set of all characters in ``texts``, which the front end has made."""
        return cls(tuple(sorted(set().union(*texts))))

    def __len__(self) -> int:
        """Symbols, padding included: the rows of a text embedding."""
        return len(self.characters) + 1

    def encode(self, text: str, where: str, remedy: str = _PREPARE_AGAIN) -> np.ndarray:
        """Symbol ids (N,) int64. ``where`` names the file and utterance for the message, ``remedy`` ends it.

        Raises InputError for an empty text and for a character outside the set, with its name and place.
        """
        if not text:
            raise InputError(f"{where}: the text is empty; give at least one word")
        ids = {character: number for number, character in enumerate(self.characters, start=1)}
        for position, character in enumerate(text, start=1):
            if character not in ids:
                place = f"at character {position} of {_clip(text)!r}"
                raise InputError(
                    f"{where}: unknown symbol {describe(character)} {place}; change the text, or {remedy}"
                )
        return np.fromiter((ids[character] for character in text), dtype=np.int64, count=len(text))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of symbol ids; padding vanishes. Raises ValueError for an id outside the set."""
        numbers = [int(number) for number in ids]
        if numbers and not 0 <= min(numbers) <= max(numbers) < len(self):
            raise ValueError(f"symbol ids must lie in [0, {len(self)})")
        return "".join(self.characters[number - 1] for number in numbers if number)

    def to_list(self) -> list[str]:
        """All symbols in order of their ids, padding first."""
        return [PADDING, *self.characters]

    @classmethod
    def from_list(cls, symbols: Sequence[str]) -> Symbols:
        """The inverse of :meth:`to_list`; raises InputError for anything that it cannot have written."""
        characters = tuple(symbols[1:])
        if list(symbols[:1]) != [PADDING] or any(not isinstance(c, str) or len(c) != 1 for c in characters):
            raise InputError(
                f"the symbol table must hold {PADDING!r} and then single characters; prepare again"
            )
        if list(characters) != sorted(set(characters)):
            raise InputError(
                "the symbol table must be sorted and without repetitions; prepare the corpus again"
            )
        return cls(characters)


_FULL_STOPS = "。।۔."
"""A corpus that has one of another script than Latin ends its sentences in it."""
_TRAILING = re.compile(r"[\s,;:،؛、，；：—-]+$")
_CLOSING_QUOTES = "\"'»›)]」』】"


def closed(text: str, symbols: Symbols, language: str) -> str:
    """A front end's text with a full stop at its end where it has no mark that ends a sentence.

    A voice learns to stop from how its texts end; after anything else it may go on until the frame limit. A
    comma or a dash at the end gives way. Nothing is added where ``symbols`` has no full stop: such a corpus
    ends otherwise. Texts to train on stay as they are listed: what a store holds is what its recordings were
    prepared with, and one that does end otherwise is a lesson, too.
    """
    ends = ENDS + GREEK_QUESTION if language == "el" else ENDS
    if not text or text.rstrip(_CLOSING_QUOTES)[-1:] in ends:
        return text
    mark = next((mark for mark in _FULL_STOPS if mark in symbols.characters), "")
    return _TRAILING.sub("", text) + mark if mark else text


@dataclass(frozen=True)
class TextFrontend:
    """What turns raw text into the text that is encoded; kept in the store and in every checkpoint."""

    language: str
    """A code such as "en" or "fa"."""
    phonemes: bool = False
    """IPA from espeak-ng in place of letters; punctuation is kept."""
    keep_diacritics: bool = False
    """Keep Persian harakat as symbols. Phonemes need no such choice: espeak-ng reads them."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]{2,3}(-[a-z0-9]+)*", self.language):
            raise InputError(f"the language is {self.language!r}; use a code such as 'en' or 'fa'")

    def __call__(self, raw: str) -> str:
        """The text to encode for one raw text; may be empty."""
        return self.batch([raw])[0]

    def batch(self, raws: Sequence[str]) -> list[str]:
        """Many raw texts, for which espeak-ng is loaded once; each result depends on its own text alone."""
        if not self.phonemes:
            return [normalize_text(raw, self.language, keep_diacritics=self.keep_diacritics) for raw in raws]
        from ttsfast.data.corpus.espeak import phonemize

        # Capitals make espeak-ng spell an abbreviation, harakat tell it the vowels.
        kept = [normalize_text(raw, self.language, keep_case=True, keep_diacritics=True) for raw in raws]
        return [unicodedata.normalize("NFC", text) for text in phonemize(kept, self.language)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a manifest or a checkpoint keeps them."""
        return {"language": self.language, "phonemes": self.phonemes, "keep_diacritics": self.keep_diacritics}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextFrontend:
        """The inverse of :meth:`to_dict`; raises InputError for a missing, unknown or ill-typed key."""
        kinds = {"language": str, "phonemes": bool, "keep_diacritics": bool}
        if set(values) != set(kinds):
            raise InputError(f"text front end: the keys are {', '.join(values)}, must be {', '.join(kinds)}")
        for name, kind in kinds.items():
            if not isinstance(values[name], kind):
                raise InputError(
                    f"text front end: {name} is {values[name]!r}, must be of type {kind.__name__}"
                )
        return cls(**values)


def describe(character: str) -> str:
    """A character as a person can find it: itself, its code point and its Unicode name."""
    shown = repr(character) if character.isprintable() else "an invisible character"
    return f"{shown} (U+{ord(character):04X} {unicodedata.name(character, 'without a name')})"


def _clip(text: str, longest: int = 40) -> str:
    return text if len(text) <= longest else text[:longest] + "..."
