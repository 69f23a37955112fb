"""What is wrong with texts: the wrong language, look-alike letters, what is not read as it is written."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ttsfast.data.checks.audio import MUCH
from ttsfast.data.checks.check import Check, Row, Subject, some
from ttsfast.data.checks.finding import ERROR, NOTE, WARNING, Evidence, Finding
from ttsfast.data.corpus.scripts import belongs, script_of, script_of_language
from ttsfast.data.corpus.text import describe

_IPA = re.compile("[ˈˌːəɪʊɛɔæɑʌɹʃʒθðŋɡɐɾʔɜɚɝɒɨʉɯɤɵɘɲɳɬɮχʁħʕ\u0361]")
_TAGS = re.compile(
    r"<[/a-zA-Z][^<>]*>|&(?:amp|lt|gt|quot|nbsp|#\d+);|https?://\S+|www\.\S+|\{[^{}]*\}|\\[nrtu\"']"
)
_NOTES = re.compile(
    r"[\[(<*](?:noise|laugh\w*|music|inaudible|unintelligible|cough\w*|breath\w*|sil|spn|unk|pause)[\])>*]",
    re.I,
)
# UTF-8 read as Latin-1, Windows-1252 or, in Persian, Windows-1256; or what could not be decoded at all.
_GARBLED = re.compile(
    "\ufffd|[ÃÂ][\u0080-\u00bf]|â€[\u0080-\u00ff™œžŸ“”¦]|(?:[ØÙÚÛ][\u0080-\u00bf†‡…‹ŒŽ]){2}"
    "|(?:[طظعغ][\u00a2-\u00be€‚ƒ„…†‡ˆ‰‹Œ‘’“”•–—™›œ]){2}"
)
_PICTURES = re.compile("[\u2600-\u27bf\u2b50\u2b55\U0001f000-\U0001faff]")
_QUOTES = re.compile(r'^".*"$|""')
_ABBREVIATIONS = {
    "en": r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Jr|Sr|vs|etc|No|Co|Inc|Ltd|Ave|Blvd|Rd|Jan"
    r"|Feb|Mar|Apr|Aug|Sept|Oct|Nov|Dec|e\.g|i\.e|a\.m|p\.m)\.(?=\s*[^\s\"')\]])",
    "de": r"\b(?:Dr|Prof|Hr|Fr|Nr|Str|bzw|usw|ca|z\.\s?B|d\.\s?h|u\.\s?a)\.",
    "fr": r"\b(?:M|Mme|Mlle|Dr|St|etc|av|bd|p\.\s?ex)\.",
    "es": r"\b(?:Sr|Sra|Srta|Dr|Dra|etc|Ud|Uds|p\.\s?ej)\.",
}
_DIGIT = re.compile(r"\d")
_SIGNS = re.compile(r"[%&@#$€£¥+=<>§°©®™×÷/\\|~^_*]")


def _shown(row: Row, place: int, width: int = 24) -> str:
    """What stands about a place of a text."""
    begin, end = max(0, place - width), place + width
    cut = row.text[begin:end]
    return f"{'…' if begin else ''}{cut}{'…' if end < len(row.text) else ''}"


def _without_markup(text: str) -> str:
    """What is left to be read: the letters of tags and notes are no words of another language."""
    return _NOTES.sub(" ", _TAGS.sub(" ", text))


def matching(subject: Subject, expression: re.Pattern[str]) -> list[Evidence]:
    """The texts in which something matches, with what stands about it."""
    return [
        Evidence(row.id, repr(_shown(row, match.start())))
        for row in subject.rows
        if (match := expression.search(row.text))
    ]


class TextCheck(Check):
    """A check that tells of texts."""

    def told(
        self,
        subject: Subject,
        severity: str,
        found: Sequence[Evidence],
        verb: tuple[str, str],
        rest: str,
        **more: Any,
    ) -> Iterator[Finding]:
        """The finding "so many of all texts ``verb`` ``rest``" where there are any; ``more`` as
        ``Check.finding`` takes it."""
        if found:
            texts = some(len(found), len(subject.rows), "text", *verb)
            yield self.finding(severity, f"{texts} {rest}", found, **more)


ARE, HOLD = ("is", "are"), ("holds", "hold")


class Language(TextCheck):
    """Texts in another script than the language is written in."""

    name = "language"
    most = 0.5
    """Of a text's letters: then it is one of another language, and no foreign word."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        language = subject.language
        if all(belongs(character, language) for character in subject.characters):
            return
        foreign: list[tuple[Row, float, str]] = []
        words: list[tuple[Row, str]] = []
        for row in subject.rows:
            text = _without_markup(row.text)
            scripts = Counter(script_of(c) for c in text if script_of(c))
            outside = [c for c in text if not belongs(c, language)]
            if outside and len(outside) > self.most * sum(scripts.values()):
                foreign.append(
                    (row, len(outside) / sum(scripts.values()), scripts.most_common(1)[0][0].title())
                )
            elif outside and any(
                not belongs(c, language) for w in text.split() if _whole(w, language) for c in w
            ):
                word = next(w for w in text.split() if _whole(w, language))
                words.append((row, word))
        if foreign:
            share, own = len(foreign) / len(subject.rows), script_of_language(language).title()
            script = Counter(script for *_, script in foreign).most_common(1)[0][0]
            yield from self.told(
                subject,
                ERROR if share > MUCH else WARNING,
                [Evidence(r.id, f"{part:.0%} of {r.text[:60]!r}") for r, part, _ in foreign],
                ARE,
                f"in {script} letters, and the language is {language!r} ({own})",
                effect="one language is read by the rules of another: digits, phonemes, punctuation",
                remedy="name the language they are in with --language, or leave out those of another one",
                share=share,
            )
        yield from self.told(
            subject,
            WARNING,
            [Evidence(row.id, f"{word!r} in {row.text[:60]!r}") for row, word in words],
            HOLD,
            "words in another script",
            effect="their letters are too rare to be learned",
            remedy="write them as they are read, in the script of the language",
        )


def _whole(word: str, language: str) -> bool:
    """Whether all of a word's letters, two at least, are of another script."""
    letters = [c for c in word if script_of(c)]
    return len(letters) > 1 and not any(belongs(c, language) for c in letters)


class LookAlike(TextCheck):
    """Letters of several scripts in one word: typed on another keyboard, or read by a machine."""

    name = "look-alike letters"
    effect = "a word with one has another spelling, and the letter is too rare to be learned"
    remedy = "replace them by the letters of the language"

    def find(self, subject: Subject) -> Iterator[Finding]:
        found = []
        if len({script_of(character) for character in subject.characters} - {""}) < 2:
            return
        for row in subject.rows:
            for word in _without_markup(row.text).split():
                scripts = {script_of(c) for c in word} - {""}
                if len(scripts) > 1 and not scripts <= {"CJK", "HIRAGANA", "KATAKANA"}:
                    odd = [c for c in word if not belongs(c, subject.language)] or [word[0]]
                    if any(_IPA.match(c) for c in odd):
                        continue
                    found.append(Evidence(row.id, f"{describe(odd[0])} in {word!r}"))
                    break
        yield from self.told(subject, WARNING, found, ("mixes", "mix"), "letters of two scripts in one word")


class Garbled(TextCheck):
    """Text that was decoded by another encoding than it was written in."""

    name = "garbled text"
    effect = "accented letters are two odd symbols each, and are read as those"
    remedy = "export the listing again as UTF-8, and read it as such on the way"

    def find(self, subject: Subject) -> Iterator[Finding]:
        yield from self.told(subject, ERROR, matching(subject, _GARBLED), ARE, "garbled (another encoding)")


class Phonemes(TextCheck):
    """Phonemes in the listing, which the front end would make phonemes of once more."""

    name = "phonemes"
    most = 0.2
    """Of the texts; a text in letters holds hardly any sign of IPA."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        found = [row for row in subject.rows if len(_IPA.findall(row.text)) >= 2]
        if len(found) > self.most * len(subject.rows):
            twice = subject.phonemes
            yield from self.told(
                subject,
                ERROR if twice else NOTE,
                [Evidence(row.id, repr(row.text[:60])) for row in found],
                ARE,
                "phonemes already" + (", and --phonemes makes phonemes of them again" if twice else ""),
                effect="IPA is read as if it were spelling"
                if twice
                else "`ttsfast synth` must be given phonemes, too",
                remedy="prepare without --phonemes"
                if twice
                else "keep the sentences, and prepare with --phonemes",
            )


class Digits(TextCheck):
    """Numbers in digits."""

    name = "digits"
    effect = "a digit has no sound of its own: '1' is one, ten, first, and a year"
    remedy = "write numbers as they are read (num2words does, for most languages)"

    def find(self, subject: Subject) -> Iterator[Finding]:
        if not subject.phonemes:
            yield from self.told(subject, WARNING, matching(subject, _DIGIT), HOLD, "digits")


class Abbreviations(TextCheck):
    """Abbreviations, and signs that stand for words."""

    name = "abbreviations"
    effect = "what is said is not what is written, and the full stop in a sentence teaches no pause"
    remedy = "write them as they are read, or prepare with --phonemes, which reads the common ones"
    many = 0.01
    """Of the texts: fewer are a note."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        if subject.phonemes:
            return
        untagged = replace(subject, rows=[row for row in subject.rows if not _TAGS.search(row.text)])
        pattern = re.compile(_ABBREVIATIONS.get(subject.language.split("-")[0], r"(?!)"))
        for said, expression in (("abbreviations", pattern), ("signs that stand for words", _SIGNS)):
            found = matching(untagged, expression)
            severity = WARNING if len(found) > self.many * len(subject.rows) else NOTE
            yield from self.told(subject, severity, found, HOLD, said)


class Markup(TextCheck):
    """What is not meant to be read: tags, entities, addresses, notes of a transcriber, emoji."""

    name = "markup"
    effect = "symbols that nobody says"
    remedy = "take them out of the texts"

    def find(self, subject: Subject) -> Iterator[Finding]:
        for said, expression in (
            ("markup", _TAGS),
            ("notes of a transcriber", _NOTES),
            ("pictures", _PICTURES),
            ("quotes of a csv file", _QUOTES),
        ):
            found = matching(subject, expression)
            if said.startswith("quotes") and len(found) > 0.9 * len(subject.rows) > 8:
                said = "quotes of a csv file about them"
            yield from self.told(subject, WARNING, found, HOLD, said)


class Spelling(TextCheck):
    """One letter in several encodings: composed or not, of full width, ligatures."""

    name = "unicode forms"

    def find(self, subject: Subject) -> Iterator[Finding]:
        kept, mended = [], []
        shaped = {c for c in subject.characters if _shaped(c)}
        for row in subject.rows:
            odd = [character for character in row.text if character in shaped] if shaped else []
            if odd:
                kept.append(Evidence(row.id, f"{describe(odd[0])} in {row.text[:60]!r}"))
            elif not unicodedata.is_normalized("NFC", row.text):
                mended.append(Evidence(row.id, repr(row.text[:60])))
        yield from self.told(
            subject,
            WARNING,
            kept,
            HOLD,
            "letters of another shape (full width, ligatures)",
            effect="a word with one has another spelling, and the letter is too rare to be learned",
            remedy="replace them by plain letters (Unicode NFKC)",
        )
        if subject.store is None:
            yield from self.told(
                subject,
                NOTE,
                mended,
                ARE,
                "not in Unicode's composed form",
                effect="none: preparation composes them; other tools may not",
                remedy="nothing needs to be done, or --fix writes them composed",
            )


def _shaped(character: str) -> bool:
    """Whether it is another shape of a letter; not of Arabic ones, which Persian texts are asked about."""
    if character in "…ªº" or "\ufb50" <= character <= "\ufeff":
        return False
    return unicodedata.decomposition(character).split(" ")[0] in _SHAPES


_SHAPES = (
    "<wide>",
    "<narrow>",
    "<compat>",
    "<super>",
    "<sub>",
    "<circle>",
    "<square>",
    "<fraction>",
    "<font>",
)


class Rare(Check):
    """Symbols that are hardly ever seen."""

    name = "rare symbols"
    effect = "an embedding that is trained a few times is noise where the symbol occurs"
    remedy = "spell these otherwise, or add texts that hold them"
    least = 5
    """Times. A row of the embedding moves only where its symbol is in the batch."""
    enough = 200
    """Utterances below which everything is rare, which is said otherwise."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        if len(subject.rows) < self.enough:
            return
        counts: Counter[str] = Counter()
        first: dict[str, Row] = {}
        for row in subject.rows:
            for symbol in set(row.symbols) - first.keys():
                first[symbol] = row
            counts.update(row.symbols)
        rare = sorted((c for c in counts if counts[c] < self.least), key=counts.__getitem__)
        if rare:
            n = len(rare)
            letters = any(script_of(c) and belongs(c, subject.language) for c in rare)
            yield self.finding(
                NOTE if letters and n < 3 else WARNING,
                f"{some(n, len(counts), 'symbol', 'occurs', 'occur')} less than {self.least} times",
                [Evidence(first[c].id, f"{describe(c)}, {counts[c]} times") for c in rare],
                times=self.least,
            )


class FinalMark(Check):
    """Sentences without an end."""

    name = "final punctuation"
    mark = re.compile(r"[.!?…؟。！？۔।:;,،؛—–\-][\"'”’»)\]]*$")

    def find(self, subject: Subject) -> Iterator[Finding]:
        rows = [row for row in subject.rows if row.text]
        without = [row for row in rows if not self.mark.search(row.text.rstrip())]
        if not without:
            return
        n = len(without)
        every = n == len(rows) and n > 1
        yield self.finding(
            WARNING if every else NOTE,
            f"{some(n, len(rows), 'text', 'ends', 'end')} without punctuation",
            [Evidence(row.id, repr(row.text[-40:])) for row in without],
            effect="a full stop is no symbol that this voice knows"
            if every
            else "the end of a sentence has no sign of its own, so that the voice runs on, or stops early, "
            "where it meets the other kind",
            remedy="write the mark that the reader's voice makes, on all or on none",
        )


class Apart(TextCheck):
    """Texts that say one thing over and over, or nothing at all."""

    name = "odd texts"
    effect = "a text that nobody said pulls the alignment of all others"
    remedy = "listen to these and correct their texts, or leave them out"
    times = 5
    """Of one letter in a row."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        groups: dict[str, list[Evidence]] = defaultdict(list)
        pattern = re.compile(rf"([^\W\d_])\1{{{self.times - 1},}}")
        for row in subject.rows:
            if row.text and not any(c.isalnum() for c in row.text):
                groups["no letter at all"].append(Evidence(row.id, repr(row.text[:60])))
            elif match := pattern.search(row.text):
                groups["a letter over and over"].append(Evidence(row.id, repr(_shown(row, match.start()))))
        for said, found in groups.items():
            severity = ERROR if said.startswith("no") else WARNING
            yield from self.told(subject, severity, found, ("has", "have"), said)


CHECKS = (
    Garbled(),
    Language(),
    Phonemes(),
    LookAlike(),
    Apart(),
    Markup(),
    Digits(),
    Abbreviations(),
    Spelling(),
)
LAST = (Rare(), FinalMark())
"""What any of the others may be the cause of."""
