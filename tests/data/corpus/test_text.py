"""Text: one spelling for what reads the same, a fixed symbol table, errors that name symbol and place."""

import json
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ttsfast.data.corpus.espeak import available
from ttsfast.data.corpus.text import Symbols, TextFrontend, describe, normalize_text
from ttsfast.errors import InputError

ZWNJ = "\u200c"
needs_espeak = pytest.mark.skipif(not available(), reason="espeakng-loader is not installed (extra 'demo')")
# Letters, digits, marks and joiners of Persian and Arabic, presentation forms, invisible marks, Latin.
PERSIAN_SOUP = st.text(
    st.one_of(
        st.sampled_from(
            "\u200b\u200c\u200d\u200e\u200f\u061c\u202b\u2066\ufeff\u00ad\u00a0\u2028 ,;?.-«»،؛؟…–’“۔٫٬"
        ),
        st.characters(min_codepoint=0x0600, max_codepoint=0x06FF),
        st.characters(min_codepoint=0xFB50, max_codepoint=0xFEFF),
        st.sampled_from("aAEIİßéẛ̣ΑΣ0123456789٣۴\u0301\u0654\u0653\u064e"),
    ),
    max_size=12,
)


@given(
    st.one_of(PERSIAN_SOUP, st.text(max_size=20)), st.sampled_from(["en", "fa", "hi", "tr"]), st.booleans()
)
@settings(max_examples=600, deadline=None)
@example(text=f"ا{ZWNJ}\u064e{ZWNJ}ب", language="fa", keep=False)
@example(text="e\u200b\u0301 \u0627\u200b\u0653", language="en", keep=True)
@example(text="яİa", language="ru", keep=False)
@example(text=f"ی\u200b\u0654ا 1,{ZWNJ}2", language="fa", keep=True)
def test_normalising_twice_changes_nothing(text: str, language: str, keep: bool) -> None:
    once = normalize_text(text, language, keep_case=keep, keep_diacritics=keep)
    assert normalize_text(once, language, keep_case=keep, keep_diacritics=keep) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == once.strip()
    assert "  " not in once
    invisible = {c for c in once if unicodedata.category(c) in ("Cc", "Cf")}
    assert invisible <= {"en": set(), "fa": {ZWNJ}}.get(language, {ZWNJ, "\u200d"})


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("كتاب علي و مصطفى", "کتاب علی و مصطفی"),
        ("٠١٢٣٤٥٦٧٨٩ 0123456789 ۰۱۲۳۴۵۶۷۸۹", "۰۱۲۳۴۵۶۷۸۹ ۰۱۲۳۴۵۶۷۸۹ ۰۱۲۳۴۵۶۷۸۹"),
        ("کـــتاب", "کتاب"),
        ("کِتابِ مَن مثلاً", "کتاب من مثلا"),
        ("خانۀ من", "خانهٔ من"),
        ("خانه\u0654 من", "خانهٔ من"),
        ("مسي\u0654ول مسی\u0654ول", "مسئول مسئول"),
        ("ا\u0653ب", "آب"),
        (f"می{ZWNJ}{ZWNJ}روم", f"می{ZWNJ}روم"),
        (f"{ZWNJ}می {ZWNJ} روم{ZWNJ}.", "می روم."),
        (f"۵{ZWNJ}تا", "۵تا"),
        ("سلام, خوبی? بله; ۱,۰۰۰", "سلام، خوبی؟ بله؛ ۱,۰۰۰"),
        ("\ufeff\u202bسلام\u202c\u200f دنیا\u2069", "سلام دنیا"),
        ("ﺳﻼم ﷼", "سلام ریال"),
        ("«سلام»\u00a0\u2003دنیا\n", "«سلام» دنیا"),
        ("کتاب iPhone", "کتاب iphone"),
    ],
)
def test_persian_spellings_that_read_the_same_become_one(raw: str, expected: str) -> None:
    assert normalize_text(raw, "fa") == expected


def test_harakat_stay_when_asked_for() -> None:
    assert normalize_text("کِتابِ مَن ي", "fa", keep_diacritics=True) == "کِتابِ مَن ی"
    assert normalize_text(f"مِ{ZWNJ}ن", "fa", keep_diacritics=True) == f"مِ{ZWNJ}ن"
    assert normalize_text("خانهٔ من", "fa") == "خانهٔ من"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Hello,  WORLD!\t", "hello, world!"),
        ("don’t “quote” – or — dash…", 'don\'t "quote" — or — dash...'),
        ("cafe\u0301 well\u2011known soft\u00adhyphen", "café well-known softhyphen"),
        (f"zero\u200bwidth{ZWNJ} \ufeffmarks", "zerowidth marks"),
        ("bell\x07 null\0", "bell null"),
        ("12 eggs? yes; no.", "12 eggs? yes; no."),
        ("", ""),
    ],
)
def test_english_normalisation(raw: str, expected: str) -> None:
    assert normalize_text(raw, "en") == expected
    assert normalize_text("NASA Says", "en", keep_case=True) == "NASA Says"


@pytest.mark.parametrize(
    ("language", "raw", "expected"),
    [
        ("tr", "IŞIK İstanbul ISPARTA", "ışık istanbul ısparta"),
        ("tr-tr", "I\u0307zmir", "izmir"),
        ("az", "QIZIL İPƏK", "qızıl ipək"),
        ("en", "IŞIK", "işik"),
        ("de", "GROẞE", "große"),
        ("el", "ΟΔΟΣ", "οδος"),
    ],
)
def test_capitals_become_small_by_the_language(language: str, raw: str, expected: str) -> None:
    assert normalize_text(raw, language) == expected


@pytest.mark.parametrize(
    ("language", "raw", "expected"),
    [
        ("en", "\ufb01nd the \ufb02ow, o\ufb03ce", "find the flow, office"),
        ("en", "\uff28\uff45\uff4c\uff4c\uff4f\uff01 \uff15", "hello! 5"),
        ("en", "\U0001d407\U0001d41e\U0001d425\U0001d425\U0001d428", "hello"),
        # Cyrillic and Greek letters among Latin ones, and words of nothing else.
        ("en", "h\u0435llo \u0441op, \u039fh \u0410", "hello cop, oh a"),
        # A word that is Russian stays, to be named.
        ("en", "hello привет", "hello привет"),
        ("ru", "пpивет мoй email", "привет мой email"),
        ("nl", "\u0133s", "ijs"),
        ("ar", "\ufefa\ufee0\ufee1", "\u0644\u0625\u0644\u0645"),
        # Other signs read otherwise than their letters.
        ("en", "m² ½ №", "m² ½ №"),
        ("ja", "ﾊﾞｽ、５！", "バス、5！"),
    ],
)
def test_forms_and_look_alikes_become_plain_letters(language: str, raw: str, expected: str) -> None:
    assert normalize_text(raw, language) == expected


def test_joiners_stay_in_languages_that_write_with_them() -> None:
    assert normalize_text("क\u200dष", "hi") == "क\u200dष"
    assert normalize_text("क\u200dष", "en") == "कष"


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5))
def test_symbols_encode_what_they_were_made_of(texts: list[str]) -> None:
    symbols = Symbols.of(texts)
    assert len(symbols) == len(set("".join(texts))) + 1
    for text in texts:
        ids = symbols.encode(text, "test")
        assert ids.dtype == np.int64
        assert ids.min() >= 1
        assert ids.max() < len(symbols)
        assert symbols.decode([*ids, 0, 0]) == text
    assert Symbols.from_list(symbols.to_list()) == symbols
    assert Symbols.of(reversed(texts)) == symbols


def test_padding_is_symbol_zero_and_in_no_text() -> None:
    symbols = Symbols.of(["<pad>", "_"])
    assert symbols.to_list()[0] == "<pad>"
    assert 0 not in symbols.encode("<pad>_", "test")
    assert len(Symbols.of([])) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abcé", r"^metadata\.csv:7: unknown symbol 'é' \(U\+00E9 LATIN SMALL LETTER E WITH ACUTE\) at"),
        ("abcé", r"at character 4 of 'abcé'; "),
        (f"ab{ZWNJ}", r"an invisible character \(U\+200C ZERO WIDTH NON-JOINER\) at character 3"),
        ("ab\x07", r"\(U\+0007 without a name\)"),
        ("", "the text is empty"),
    ],
)
def test_unknown_symbols_are_named_with_their_place(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Symbols.of(["abc"]).encode(text, "metadata.csv:7")
    assert "\n" not in str(caught.value)
    assert ZWNJ not in describe(ZWNJ)


def test_decoding_outside_the_set_is_refused() -> None:
    for ids in ([1, 4], [-1]):
        with pytest.raises(ValueError, match="symbol ids"):
            Symbols.of(["abc"]).decode(ids)


@pytest.mark.parametrize(
    "table",
    [[], ["a"], ["a", "<pad>"], ["<pad>", "ab"], ["<pad>", "b", "a"], ["<pad>", "a", "a"], ["<pad>", 3]],
)
def test_a_spoilt_symbol_table_is_refused(table: list[Any]) -> None:
    with pytest.raises(InputError, match="symbol table"):
        Symbols.from_list(table)


def test_the_front_end_survives_json_and_is_strict() -> None:
    frontend = TextFrontend("fa", phonemes=True)
    values = json.loads(json.dumps(frontend.to_dict()))
    assert TextFrontend.from_dict(values) == frontend
    for bad in (
        {**values, "phonemes": 1},
        {**values, "x": 1},
        {"language": "fa"},
        {**values, "language": None},
    ):
        with pytest.raises(InputError, match="text front end"):
            TextFrontend.from_dict(bad)
    with pytest.raises(InputError, match="'English'"):
        TextFrontend("English")


def test_the_letter_front_end_normalises() -> None:
    assert TextFrontend("en")("Hello  World") == "hello world"
    assert TextFrontend("fa")("كِتاب") == "کتاب"
    assert TextFrontend("fa", keep_diacritics=True)("كِتاب") == "کِتاب"


@needs_espeak
def test_the_phoneme_front_end_keeps_punctuation_and_reads_vowels() -> None:
    frontend = TextFrontend("fa", phonemes=True)
    assert "،" in frontend("سلام، دنیا؛ خوبی؟")
    # Ezafe, written as a kasra, is heard.
    assert frontend("کتابِ من") != frontend("کتاب من")
    assert frontend("كتابِ من") == frontend("کتابِ من")
    english = TextFrontend("en", phonemes=True)
    assert english.batch(["Hello, world!", "BBC", "x"]) == [
        english("Hello, world!"),
        english("BBC"),
        english("x"),
    ]
    assert english("the US team") != english("the us team")
    assert english("") == ""
