"""Which script a letter is of, and which a language is written in."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

_OTHER_THAN_LATIN = {
    "ARABIC": ("ar", "fa", "ur", "ps", "ckb", "ug", "sd"),
    "CYRILLIC": ("ru", "uk", "bg", "be", "sr", "mk", "kk", "ky", "tt", "ba", "cv", "mn", "tg", "nog"),
    "GREEK": ("el", "grc"),
    "HEBREW": ("he", "yi"),
    "DEVANAGARI": ("hi", "mr", "ne", "sa", "kok"),
    "BENGALI": ("bn", "as", "bpy"),
    "TAMIL": ("ta",),
    "TELUGU": ("te",),
    "KANNADA": ("kn",),
    "MALAYALAM": ("ml",),
    "GUJARATI": ("gu",),
    "GURMUKHI": ("pa",),
    "ORIYA": ("or",),
    "SINHALA": ("si",),
    "THAI": ("th",),
    "LAO": ("lo",),
    "KHMER": ("km",),
    "TIBETAN": ("bo", "dz"),
    "THAANA": ("dv",),
    "CHEROKEE": ("chr",),
    "GEORGIAN": ("ka",),
    "ARMENIAN": ("hy", "hyw"),
    "ETHIOPIC": ("am", "ti"),
    "MYANMAR": ("my", "shn"),
    "HANGUL": ("ko",),
    "CJK": ("zh", "cmn", "yue", "ja"),
}
_OF_LANGUAGE = {language: script for script, languages in _OTHER_THAN_LATIN.items() for language in languages}
_JAPANESE = ("HIRAGANA", "KATAKANA")


@lru_cache(maxsize=8192)
def script_of(letter: str) -> str:
    """The first word of a letter's Unicode name, which is its script; empty for what is no letter, or of none
    (modifiers, IPA among them, that any text may hold).
    """
    if unicodedata.category(letter) not in ("Ll", "Lu", "Lo", "Lt"):
        return ""
    name = unicodedata.name(letter, "").split(" ")[0]
    # Full width is a shape, not a script; a feminine ordinal, say, is of none.
    return "LATIN" if name == "FULLWIDTH" else "" if name in ("FEMININE", "MASCULINE", "MICRO") else name


def script_of_language(language: str) -> str:
    """What a language, by its code, is written in; Latin where nothing else is known of it."""
    return _OF_LANGUAGE.get(language.split("-")[0], "LATIN")


def belongs(letter: str, language: str) -> bool:
    """Whether a letter is of the language's script."""
    script, own = script_of(letter), script_of_language(language)
    return script in ("", own) or (own == "CJK" and script in _JAPANESE)
