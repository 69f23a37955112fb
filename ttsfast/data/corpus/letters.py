"""One character for those that look the same or differ in form alone."""

from __future__ import annotations

import re
import unicodedata

# Compatibility forms that read as the letters they stand for, of the kinds that Unicode's decompositions
# name: full-width and half-width, mathematical alphabets, the shapes of Arabic letters. Not superscripts,
# fractions, circled or squared signs, which read otherwise.
_FORMS = ("<wide>", "<narrow>", "<font>", "<isolated>", "<initial>", "<medial>", "<final>")
_LIGATURES = re.compile("[\ufb00-\ufb06\ufb13-\ufb17ĲĳŉſǄ-ǌǱ-ǳ]")
_EAST_ASIAN = frozenset(("zh", "yue", "cmn", "ja", "ko"))
"""Languages in which full-width punctuation is the usual one."""

_LATIN = re.compile(
    "af|ca|cs|cy|da|de|en|eo|es|et|eu|fi|fr|ga|gl|hr|hu|id|is|it|la|lb|lt|lv|ms|mt|nb|nl|nn|no|pl|pt|ro|sk|sl|"
    "sq|sv|sw|tr|vi"
)
_CYRILLIC = frozenset(("ru", "uk", "be", "bg", "mk"))
_LOOK_ALIKE = {
    **dict(zip("АВЕЅІЈКМНОРСТУХаеѕіјорсух", "ABESIJKMHOPCTYXaesijopcyx", strict=True)),
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEZHIKMNOPTYXo", strict=True)),
}
"""Cyrillic and Greek letters by the Latin ones that nobody can tell them from."""
_TO_LATIN = str.maketrans(_LOOK_ALIKE)
_CYRILLIC_OF = {latin: other for other, latin in _LOOK_ALIKE.items() if other >= "\u0400"}
_WORD = re.compile("(?:[^\\W\\d_]|[\u0300-\u036f])+")
_NOT_LATIN = re.compile("[\u0370-\u052f]")
# The stress that dictionaries mark is no letter.
_CYRILLIC_AND_LOOK_ALIKES = re.compile(f"(?=.*[\u0400-\u052f])[\u0400-\u052f\u0301{''.join(_CYRILLIC_OF)}]+")


def plain_letters(text: str, language: str) -> str:
    """Ligatures, full-width and other forms of letters as the letters themselves, and look-alikes as the
    letters of the language.

    A word of a language in Latin script whose Cyrillic and Greek letters all look like Latin ones is taken to
    be typed by mistake; and so, where Cyrillic is written, is a word with Latin letters among Cyrillic ones.
    Any other foreign word stays as it is.
    """
    if text.isascii():
        return text
    base = language.split("-")[0]
    text = "".join(_plain(character, base) for character in text)
    if _LATIN.fullmatch(base):
        return _WORD.sub(lambda match: _latin(match.group()), text)
    if base in _CYRILLIC:
        return _WORD.sub(lambda match: _cyrillic(match.group()), text)
    return text


def lower_case(text: str, language: str) -> str:
    """Small letters by the rules of the language: in Turkish and Azeri, I is the capital of ı and İ of i."""
    if language.split("-")[0] in ("tr", "az"):
        text = text.replace("I", "ı").replace("İ", "i")
    return text.lower()


def _plain(character: str, language: str) -> str:
    if character.isascii():
        return character
    if _LIGATURES.match(character):
        return unicodedata.normalize("NFKC", character)
    form = unicodedata.decomposition(character)
    if form.startswith(_FORMS) and (character.isalnum() or language not in _EAST_ASIAN):
        return unicodedata.normalize("NFKC", character)
    return character


def _latin(word: str) -> str:
    # Other letters than these are of a word that somebody wrote in their script.
    if any(character not in _LOOK_ALIKE for character in _NOT_LATIN.findall(word)):
        return word
    return word.translate(_TO_LATIN)


def _cyrillic(word: str) -> str:
    if not _CYRILLIC_AND_LOOK_ALIKES.fullmatch(word):
        return word
    return "".join(_CYRILLIC_OF.get(character, character) for character in word)
