"""Texts that are wrong."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from random import Random

from spoken import SPOKEN, WRITTEN, Corpus, clean, fault


def _any(random: Random, share: float) -> list[int]:
    """Places of so many of the sentences that nobody has spoken yet: a word put into one that has a recording
    would be a second fault, a word that is not said.
    """
    return random.sample(range(SPOKEN, WRITTEN), max(1, round(share * WRITTEN)))


@fault("error", "language")
def another_language_was_named(corpus: Corpus, random: Random) -> Corpus:
    return replace(corpus, language="fa" if corpus.language == "en" else "en")


@fault("warning", "language")
def a_few_texts_of_another_language(corpus: Corpus, random: Random) -> Corpus:
    other = clean("fa" if corpus.language == "en" else "en").clips
    return corpus.texts(lambda _: other[random.randrange(WRITTEN)].text, _any(random, 0.02))


@fault("warning", "language")
def foreign_words(corpus: Corpus, random: Random) -> Corpus:
    word = "خانه" if corpus.language == "en" else "email"
    return corpus.texts(lambda text: f"{text[:-1]} {word}.", _any(random, 0.03))


@fault("warning", "look-alike letters", "en")
def cyrillic_letters(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.replace("e", "е").replace("o", "о", 1), _any(random, 0.02))


@fault("error", "garbled text", "fa")
def utf8_read_as_latin1(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.encode().decode("latin-1"), _any(random, 0.1))


@fault("error", "garbled text", "en")
def an_accent_read_as_latin1(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(
        lambda text: f"{text[:-1]} in the café.".encode().decode("cp1252"), _any(random, 0.02)
    )


@fault("error", "garbled text")
def letters_that_could_not_be_decoded(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text[:4] + "\ufffd" + text[5:], _any(random, 0.02))


@fault("error", "phonemes", "en")
def phonemes_made_twice(corpus: Corpus, random: Random) -> Corpus:
    from ttsfast.data.corpus.espeak import phonemize

    spelt = phonemize([clip.text for clip in corpus.clips], "en")
    clips = [replace(clip, text=text) for clip, text in zip(corpus.clips, spelt, strict=True)]
    return replace(corpus, clips=clips, phonemes=True)


@fault("warning", "digits")
def numbers_in_digits(corpus: Corpus, random: Random) -> Corpus:
    number = "1984" if corpus.language == "en" else "۱۳۶۳"
    return corpus.texts(lambda text: f"{text[:-1]} {number}.", _any(random, 0.03))


@fault("warning", "abbreviations", "en")
def titles_abbreviated(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: f"Dr. Smith and Mrs. Jones say: {text}", _any(random, 0.05))


@fault("warning", "abbreviations")
def signs_for_words(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: f"{text[:-1]} & %.", _any(random, 0.05))


@fault("warning", "markup")
def tags(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: f"<i>{text}</i>", _any(random, 0.03))


@fault("warning", "markup")
def entities(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.replace(" ", " &amp; ", 1), _any(random, 0.03))


@fault("warning", "markup")
def notes_of_a_transcriber(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: f"[noise] {text}", _any(random, 0.03))


@fault("warning", "markup")
def pictures(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: f"{text} \U0001f600", _any(random, 0.03))


@fault("warning", "markup")
def csv_quotes(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: f'"{text}"', _any(random, 0.2))


@fault("warning", "unicode forms", "en")
def full_width_letters(corpus: Corpus, random: Random) -> Corpus:
    def change(text: str) -> str:
        return "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in f"{text[:-1]} abc.")

    return corpus.texts(change, _any(random, 0.02))


@fault("warning", "unicode forms", "en")
def ligatures(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: f"{text[:-1]} on the oﬃce ﬂoor.", _any(random, 0.02))


@fault("note", "unicode forms", "en")
def letters_apart_from_their_accents(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: unicodedata.normalize("NFD", f"{text[:-1]} café."), _any(random, 0.1))


@fault("warning", "rare symbols")
def symbols_that_occur_once(corpus: Corpus, random: Random) -> Corpus:
    marks = iter("«»[]¿¡")
    return corpus.texts(lambda text: f"{text[:-2]}{next(marks)}{text[-2:]}", random.sample(range(WRITTEN), 6))


@fault("warning", "final punctuation")
def no_final_punctuation(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.rstrip(".؟?"))


@fault("note", "final punctuation")
def no_final_punctuation_in_some(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.rstrip(".؟?"), _any(random, 0.3))


@fault("warning", "odd texts")
def a_letter_held_down(corpus: Corpus, random: Random) -> Corpus:
    """The second character: the fourth, which it was before, is a space in English."""
    return corpus.texts(lambda text: text[:1] + text[1] * 9 + text[2:], [3])


@fault("error", "odd texts")
def nothing_but_punctuation(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda _: "...", _any(random, 0.01))


@fault("note", "arabic letters", "fa")
def arabic_yeh_and_kaf(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.replace("ی", "ي").replace("ک", "ك"), _any(random, 0.2))


@fault("note", "presentation forms", "fa")
def tatweel(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text[:2] + "ـ" + text[2:], _any(random, 0.05))


@fault("warning", "shadda with a vowel", "fa")
def shadda_with_a_vowel(corpus: Corpus, random: Random) -> Corpus:
    changed = corpus.texts(lambda text: f"{text[:-1]} محمّد و مُحَمَّد.", _any(random, 0.05))
    return replace(changed, phonemes=True)


@fault("warning", "persian separators", "fa")
def thousands_apart(corpus: Corpus, random: Random) -> Corpus:
    changed = corpus.texts(lambda text: f"{text[:-1]} ۱۲٬۵۰۰ تومان و ۳٫۵.", _any(random, 0.05))
    return replace(changed, phonemes=True)


@fault("warning", "missing zwnj", "fa")
def prefixes_behind_a_space(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.replace("می\u200c", "می ").replace("\u200c", " "))


@fault("note", "loose zwnj", "fa")
def joiners_that_part_nothing(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.replace(" ", "\u200c ", 1), _any(random, 0.1))
