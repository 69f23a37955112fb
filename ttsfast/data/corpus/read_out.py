"""Numbers, dates, money, signs and abbreviations as words, before a voice reads them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from ttsfast.data.corpus.words_for_signs import WORDS, Words, in_full, month_name
from ttsfast.errors import InputError

_NUMBER = r"\d{1,3}(?:G\d{3})+(?!\d)(?:D\d+)?|\d+(?:D\d+)?"
_POINTS = re.compile(r"(?<![\d.])\d+(?:\.\d+){2,}(?![\d.])")
_TIME = re.compile(r"(?<![\d:])(\d{1,2}):(\d\d)(?![\d:])")
_ISO_DATE = re.compile(r"(?<![\d/-])(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?![\d/-])")
_DATE = re.compile(r"(?<![\d./-])(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?![\d/-])")
_ONE_SIGN = re.compile(
    "(?<![\u2160-\u2188])[\u2160-\u2188](?![\u2160-\u2188])|[\u2460-\u249b\u24ea-\u24ff\u2776-\u2793]"
)
"""A number that is one character: circled and the like; Roman ones, but for several beside one another."""
_LONGEST = 15
"""Digits of a number that is read as one; of a longer one each is, as of one that begins with a zero."""
_YEARS = {"en": (1100, 2099), "de": (1100, 1999)}
"""Years that are read in two parts, by language."""


def read_out(text: str, language: str, keep: Callable[[str], bool]) -> str:
    """Put words in place of what is not written in letters.

    A number is read by the separators of the language, digit by digit where it begins with a zero or has more
    than 15 digits, and a year as years are; so is one that is a single sign (Ⅳ, ①). Whole numbers are read in
    all languages of num2words; all else in those of ``words_for_signs.py``.

    Args:
        text: raw.
        language: as a front end names it.
        keep: whether a piece of the text is to stay as it is, as where a voice learnt to read digits.

    Raises:
        InputError: there is a number to read, and num2words is not installed.
    """
    base = language.split("-")[0]
    words = WORDS.get(base)
    reading = _Reading(base, words)

    def put(pattern: str | re.Pattern[str], made: Callable[[re.Match[str]], str | None]) -> None:
        nonlocal text

        def replace(match: re.Match[str]) -> str:
            said = None if keep(match.group()) else made(match)
            return match.group() if said is None else _apart(said, match)

        text = re.sub(pattern, replace, text)

    put(_ONE_SIGN, lambda match: reading.whole(str(int(unicodedata.numeric(match.group())))))
    if words is None:
        # What separates thousands and decimals is not known.
        put(r"(?<![\d.,])\d+(?![.,]?\d)", lambda match: reading.whole(match.group()))
        return text
    for table, follows in ((words.before_numbers, r"(?=\s?(\d))"), (words.short, r"(?=(\s|$))")):
        full = in_full(table)
        short = "|".join(sorted(map(re.escape, full), key=len, reverse=True))
        if full:
            text = re.sub(rf"(?<![\w.])({short})\.{follows}", partial(_full, full), text, flags=re.IGNORECASE)
    group, decimal = (r"[.\u00a0\u202f]", ",") if words.comma else ("[,\u066c]", r"[.\u066b]")
    if base == "fa":
        decimal = r"[./\u066b]"
    number = f"(?:{_NUMBER.replace('G', group).replace('D', decimal)})"
    put(_ISO_DATE, lambda m: reading.date(int(m[1]), int(m[2]), int(m[3])))
    by_month = language in ("en", "en-us")
    put(_DATE, lambda m: reading.date(int(m[4]), *((int(m[1]), int(m[3]))[:: 1 if by_month else -1])))
    put(_TIME, lambda m: reading.time(m[1], m[2]))
    put(_POINTS, lambda m: f" {words.point} ".join(map(reading.whole, m.group().split("."))))
    signs = "".join(map(re.escape, words.money))
    if signs:
        put(rf"([{signs}])\s?({number})", lambda m: reading.money(m[1], m[2]))
        put(rf"({number})\s?([{signs}])", lambda m: reading.money(m[2], m[1]))
    if base == "tr":
        put(rf"[%٪]\s?({number})", lambda m: f"{words.percent} {reading.number(m[1])}")
    put(rf"({number})\s?[%٪]", lambda m: f"{reading.number(m[1])} {words.percent}")
    if words.ordinal:
        limit = r"\d{1,2}" if base == "de" else r"\d{1,9}"
        end = "" if base == "de" else r"(?!\w)"
        put(rf"(?<![\d.,])({limit})({words.ordinal}){end}", lambda m: reading.ordinal(m[1], m[2]))
    put(rf"(?<![\w)])[-−](?={number})", lambda m: words.minus)
    put(number, lambda m: reading.number(m.group()))
    for sign, said in words.signs.items():
        put(re.escape(sign), lambda m, said=said: said)  # type: ignore[misc]
    return text


def _apart(said: str, match: re.Match[str]) -> str:
    """With a space to letters and digits beside it."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return f"{' ' if before.isalnum() else ''}{said}{' ' if after.isalnum() else ''}"


def _ascii(digits: str) -> str:
    return "".join(str(int(digit)) for digit in digits)


def _full(full: dict[str, str], match: re.Match[str]) -> str:
    # At the end of the text its full stop ends the sentence, too.
    return full[match[1].lower()] + ("" if match[2] else ".")


class _Reading:
    """The parts of numbers in one language."""

    def __init__(self, language: str, words: Words | None) -> None:
        self.language, self._words = language, words

    @property
    def words(self) -> Words:
        assert self._words is not None
        return self._words

    def whole(self, digits: str, kind: str = "cardinal") -> str:
        """A number without a separator, in the digits of any script."""
        digits = _ascii(digits)
        if len(digits) > _LONGEST or (len(digits) > 1 and digits[0] == "0"):
            return " ".join(_num2words(int(digit), self.language, "cardinal") for digit in digits)
        return _num2words(int(digits), self.language, kind)

    def number(self, written: str) -> str:
        """A number with separators, as the language writes them."""
        decimal = "," if self.words.comma else r"[.\u066b/]" if self.language == "fa" else r"[.\u066b]"
        first, *rest = re.split(decimal, written, maxsplit=1)
        digits = _ascii(re.sub(r"\D", "", first))
        span = _YEARS.get(self.language, (1, 0))
        year = len(first) == 4 and not rest and span[0] <= int(digits) <= span[1]
        said = self.whole(digits, "year" if year else "cardinal")
        if rest:
            decimals = " ".join(_num2words(int(digit), self.language, "cardinal") for digit in rest[0])
            said += f" {self.words.point} {decimals}"
        return said

    def ordinal(self, digits: str, suffix: str) -> str:
        said = self.whole(digits, "ordinal")
        # "-omin" stands before its noun, "-om" after it.
        return said + "ین" if self.language == "fa" and suffix.endswith("ین") else said

    def date(self, year: int, month: int, day: int) -> str | None:
        """None for what is no date."""
        if not (1 <= month <= 12 and 1 <= day <= 31) or not self.words.date:
            return None
        kind = "year" if self.language in ("en", "de") else "cardinal"
        return self.words.date.format(
            day=self.whole(str(day)),
            nth=self.whole(str(day), "ordinal") + ("r" if self.language == "de" else ""),
            month=month_name(self.language, year, month),
            year=self.whole(str(year), kind),
        )

    def time(self, hour: str, minute: str) -> str | None:
        """None for what is no time."""
        if int(hour) > 24 or int(minute) > 59:
            return None
        hours, minutes = self.whole(str(int(hour))), int(minute)
        if self.language == "en":
            if minutes == 0:
                return f"{hours} o'clock"
            return f"{hours} {'oh ' if minutes < 10 else ''}{self.whole(str(minutes))}"
        between = {"de": " Uhr ", "fr": " heures ", "fa": " و ", "nl": " uur "}.get(self.language, " ")
        if minutes == 0:
            return f"{hours}{between.rstrip() if self.language != 'fa' else ''}"
        return f"{hours}{between}{self.whole(str(minutes))}{' دقیقه' if self.language == 'fa' else ''}"

    def money(self, sign: str, written: str) -> str:
        one, many, cent, cents = self.words.money[sign]
        match = re.fullmatch(r"(.*\d)[.,\u066b](\d\d)", written)
        hundredths = int(match[2]) if match and cent else 0
        amount = match[1] if match and cent else written
        single = _ascii(re.sub(r"\D", "", amount)) == "1"
        said = f"{self.number(amount)} {one if single else many}"
        joined = " و " if self.language == "fa" else " "
        if hundredths:
            said += f"{joined}{self.whole(str(hundredths))} {cent if hundredths == 1 else cents}"
        return said


@cache
def _converters() -> tuple[Any, frozenset[str]]:
    try:
        import num2words
    except ImportError as error:
        raise InputError("a number is to be read, which needs num2words: pip install num2words") from error
    return num2words.num2words, frozenset(num2words.CONVERTER_CLASSES)


def _num2words(value: int, language: str, kind: str) -> str:
    convert, languages = _converters()
    if language not in languages:
        return str(value)
    said = convert(value, lang=language, to=kind)
    return str(said).replace(",", "")
