"""What Persian texts are typed with."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ttsfast.data.checks.check import Subject
from ttsfast.data.checks.finding import NOTE, WARNING, Finding
from ttsfast.data.checks.texts import HOLD, TextCheck, matching

_ARABIC = re.compile("[يىكةۀ٠-٩]")
_SHAPED = re.compile("[\ufb50-\ufdff\ufe70-\ufefcـ]")
_SHADDA = re.compile("\u0651[\u064b-\u0650]|[\u064b-\u0650]\u0651")
_SEPARATORS = re.compile("[٬٫]")
# The prefix of a verb, the plural and the comparative, with a space where a joiner belongs.
_SPACED = re.compile(r"(?<!\w)ن?می (?=[آ-ی]{2})|(?<=[آ-ی]) (?:ها|های|هایی|هایم|هایش|تر|ترین)(?!\w)")
_LOOSE_JOINER = re.compile("(?<![آ-ی\u064b-\u0652\u0654])\u200c|\u200c(?![آ-ی])")


class _Persian(TextCheck):
    """Texts that match an expression."""

    expression: re.Pattern[str]
    severity = WARNING
    said: str

    def find(self, subject: Subject) -> Iterator[Finding]:
        if subject.language == "fa" and self.concerns(subject):
            yield from self.told(subject, self.severity, matching(subject, self.expression), HOLD, self.said)

    def concerns(self, subject: Subject) -> bool:
        """Whether the expression means anything in it."""
        return True


class ArabicLetters(_Persian):
    """Arabic yeh, kaf and digits, which look like the Persian ones."""

    name = "arabic letters"
    expression = _ARABIC
    severity = NOTE
    said = "Arabic yeh, kaf, teh or digits"
    effect = "none: preparation replaces yeh, kaf and digits; other tools may not"
    remedy = "nothing needs to be done, or --fix writes the Persian ones"

    def concerns(self, subject: Subject) -> bool:
        """A store's texts have been normalised."""
        return subject.store is None


class ShapedLetters(ArabicLetters):
    """Presentation forms and tatweel."""

    name = "presentation forms"
    expression = _SHAPED
    said = "presentation forms or tatweel"
    effect = "none: preparation replaces them; other tools may not"


class Shadda(_Persian):
    """Shadda with a vowel, which espeak-ng reads aloud by its name."""

    name = "shadda with a vowel"
    expression = _SHADDA
    said = "shadda with a vowel"
    effect = "where the marks are kept in another order, espeak-ng says 'tashdid' in the midst of the word"
    remedy = "look at the phonemes of the first one named, or take the vowel marks out"

    def concerns(self, subject: Subject) -> bool:
        """Letters alone lose their vowel marks."""
        return subject.phonemes


class Separators(_Persian):
    """Thousands and decimal separators in numbers."""

    name = "persian separators"
    expression = _SEPARATORS
    said = "the separators ٬ or ٫ in a number"
    effect = "the parts are read as numbers of their own"
    remedy = "write numbers as they are read"


class SpacedAffixes(_Persian):
    """A space where a zero-width joiner belongs."""

    name = "missing zwnj"
    expression = _SPACED
    said = "«می», «ها» or «تر» behind a space, where a ZWNJ belongs"
    effect = "one word is two: a pause is learned within verbs and plurals, and both spellings are met"
    remedy = "write them with a ZWNJ (the normalizer of hazm or parsivar does)"


class LooseJoiners(_Persian):
    """Joiners that part nothing."""

    name = "loose zwnj"
    expression = _LOOSE_JOINER
    severity = NOTE
    said = "a ZWNJ that parts no letters"
    effect = "none: preparation removes them; other tools may not"
    remedy = "nothing needs to be done, or --fix removes them"

    def concerns(self, subject: Subject) -> bool:
        """A store's texts have been normalised."""
        return subject.store is None


CHECKS = (Shadda(), Separators(), SpacedAffixes(), ArabicLetters(), ShapedLetters(), LooseJoiners())
