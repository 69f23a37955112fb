"""Long text in sentences, each about as long as those that a voice was trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ttsfast.data.corpus.abbreviations import ORDINALS, abbreviations

ENDS = ".!?…؟۔。！？｡．।॥։።။‼⁇⁈⁉"
"""Marks that end a sentence, of all scripts."""
_UNSPACED = "。！？｡．"
GREEK_QUESTION = ";"
_CLOSERS = "\"'’”»›)\\]）」』】"
_END = re.compile(f"[{ENDS}]+[{_CLOSERS}]*(?=\\s)|[{_UNSPACED}]+(?![{_UNSPACED}{_CLOSERS}])")
_END_GREEK = re.compile(f"[{ENDS}{GREEK_QUESTION}]+[{_CLOSERS}]*(?=\\s)")
_PARAGRAPH = re.compile(r"\n\s*\n")
_LAST_TOKEN = re.compile(r"[^\s(\[«\"'“‘]*$")
_INITIAL = re.compile(r"[^\W\d_]\u0654?")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_CLAUSE = re.compile(r"[,;:—–،؛，、；：](?=\s)")


def split_sentences(text: str, language: str) -> list[str]:
    """The sentences of a text, in order and stripped; together they hold all that it does but white space.

    A full stop does not end one after an abbreviation of the language, an initial, an ordinal of a language
    that writes them so, or inside a number; and no mark does before a small letter, unless the text itself
    begins with one. A blank line ends one always.
    """
    return [
        sentence
        for paragraph in _PARAGRAPH.split(text)
        for sentence in _split_paragraph(paragraph.strip(), language)
        if sentence
    ]


def ends_no_sentence(before: str, after: str, language: str) -> bool:
    """Whether a full stop between two parts of a text only shortens a word or makes a number an ordinal.

    Args:
        before: from the beginning of the sentence.
        after: what follows; at the end of a text each full stop is one.
        language: as a front end names it.
    """
    following = next((c for c in after if c.isalnum()), "")
    token = _LAST_TOKEN.search(before)
    word = token.group() if token else ""
    if not following or not word:
        return False
    if word.isdecimal():
        # The head of a list, or an ordinal.
        return before.strip() == word or (language.split("-")[0] in ORDINALS and len(word) <= 2)
    if word.lower() in abbreviations(language, before_number=following.isdecimal()):
        return True
    if _INITIAL.fullmatch(word):
        # A small letter by itself is a word: "it is i."
        return not word.islower()
    # "p.m." may end a sentence, "U.S." stands before a name.
    return bool(_DOTTED.fullmatch(word)) and (word.isupper() or not following.isupper())


def _split_paragraph(text: str, language: str) -> Iterator[str]:
    first = next((c for c in text if c.isalpha()), "")
    begin = 0
    for match in (_END_GREEK if language == "el" else _END).finditer(text):
        before, after = text[begin : match.start()], text[match.end() :]
        following = next((c for c in after if c.isalnum()), "")
        if first.isupper() and following.islower():
            continue
        if re.match(r"\.(?!\.)", match.group()) and ends_no_sentence(before, after, language):
            continue
        yield text[begin : match.end()].strip()
        begin = match.end()
    yield text[begin:].strip()


def split_long(sentence: str, longest: int) -> list[str]:
    """A sentence in pieces of at most ``longest`` characters: at its commas where that is enough, else also
    between words; a longer word stays whole.
    """
    pieces = [""]
    begin = 0
    for end in [*(match.end() for match in _CLAUSE.finditer(sentence)), len(sentence)]:
        clause = sentence[begin:end].strip()
        begin = end
        if len(pieces[-1]) + 1 + len(clause) <= longest:
            pieces[-1] = f"{pieces[-1]} {clause}".strip()
            continue
        pieces.append("")
        for word in clause.split():
            if pieces[-1] and len(pieces[-1]) + 1 + len(word) > longest:
                pieces.append("")
            pieces[-1] = f"{pieces[-1]} {word}".strip()
    return [piece for piece in pieces if piece]
