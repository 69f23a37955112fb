"""Long text in sentences: full stops that end none, scripts with marks of their own, nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttsfast.data.corpus.sentences import split_long, split_sentences


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        (
            "en",
            ["Dr. Smith paid $3.50.", "He left at 5 p.m.", "It was late.", "So Mr. A. B. Jones et al. say!"],
        ),
        ("en", ['"Is it?" she asked.', "Yes...", "And No. 5 of the U.S. Army, e.g. here.", "No.", "Sure?!"]),
        ("en", ["the red book is in the garden.", "my mother sees it.", "our friend"]),
        ("en", ["1. First.", "2. Then in 1999.", "He said (it is so.)", "Right."]),
        ("en-us", ["Mrs. Hill came.", "\u201cGo.\u201d", "We went."]),
        (
            "fa",
            [
                "سلام.",
                "آقای دکتر م. رضایی آمد.",
                "ساعت ۳.۵ بود؟",
                "بله!",
                "سال ۱۳۵۷ ه.ش. بود.",
                "او گفت: «برو.»",
            ],
        ),
        ("de", ["Das ist z.B. ein Test.", "Am 3. Mai kam er.", "Gut."]),
        ("fr", ["M. Dupont est là.", "Voilà\u00a0!", "C'est bon."]),
        ("ru", ["Проф. Иванов пришёл.", "Это т.е. так.", "Да."]),
        ("tr", ["Dr. Ali geldi.", "3. katta oturdu.", "Gitti."]),
        ("hi", ["नमस्ते।", "आप कैसे हैं?", "ठीक।"]),
        ("el", ["Τι κάνεις;", "Καλά.", "Εσύ;"]),
        ("ur", ["یہ ایک کتاب ہے۔", "کیا؟", "ہاں۔"]),
        ("en", ["A heading without an end\n\n", "And text."]),
    ],
)
def test_sentences_are_found(language: str, sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences), language) == [sentence.strip() for sentence in sentences]


def test_scripts_without_spaces_are_split_at_their_marks() -> None:
    assert split_sentences("你好。今天很好！是吗？", "zh") == ["你好。", "今天很好！", "是吗？"]
    assert split_sentences("「はい。」と言った。行く。", "ja") == ["「はい。」と言った。", "行く。"]


@given(st.text(st.sampled_from("aB1.!?؟。; \n'»,م"), max_size=40), st.sampled_from(["en", "fa", "el", "de"]))
def test_no_character_is_lost_or_moved(text: str, language: str) -> None:
    sentences = split_sentences(text, language)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentences)


@given(st.text(st.sampled_from("ab, ;"), max_size=60), st.integers(1, 12))
def test_a_long_sentence_is_cut_and_nothing_is_lost(text: str, longest: int) -> None:
    pieces = split_long(text, longest)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) <= longest or " " not in piece for piece in pieces)


def test_commas_are_preferred_to_the_middle_of_a_clause() -> None:
    assert split_long("one two, three four five; six", 20) == ["one two,", "three four five; six"]
    assert split_long("one two three", 20) == ["one two three"]
