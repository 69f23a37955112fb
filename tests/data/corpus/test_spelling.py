"""What a voice reads for a text: known symbols, the user's own readings, a closed sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast.data.corpus.espeak import available
from ttsfast.data.corpus.lexicon import Lexicon
from ttsfast.data.corpus.spelling import Spelling
from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.errors import InputError

LETTERS = TextFrontend("en")
SYMBOLS = Symbols.of(["abcdefghijklmnopqrstuvwxyz '-,.!"])
needs_espeak = pytest.mark.skipif(
    not available(), reason="espeakng-loader is not installed (extra 'phonemes')"
)


def spelt(text: str, spelling: Spelling | None = None, symbols: Symbols = SYMBOLS) -> str:
    return (spelling or Spelling())(text, "f.txt:3", LETTERS, symbols)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The red book", "the red book."),
        ("Yes!", "yes!"),
        ("well,", "well."),
        ("he said -", "he said."),
        ("so 'it is.'", "so 'it is.'"),
    ],
)
def test_a_sentence_is_closed(text: str, expected: str) -> None:
    assert spelt(text) == expected


def test_a_voice_without_a_full_stop_is_given_none() -> None:
    assert spelt("the red book", symbols=Symbols.of(["abcdefghijklmnopqrstuvwxyz "])) == "the red book"
    hindi = Symbols.of(["नमस्ते।."])
    assert Spelling()("नमस्ते", "here", TextFrontend("hi"), hindi) == "नमस्ते।"


def test_unknown_symbols_are_named_or_left_out() -> None:
    with pytest.raises(
        InputError, match=r"f\.txt:3: unknown symbol '\?' .* or leave it out with --unknown skip"
    ):
        spelt("What is it?")
    skip = Spelling(unknown="skip")
    assert spelt("What is 〜 it?", skip) == "what is it."
    assert skip.skipped("What is 〜 it?", "f.txt:3", LETTERS, SYMBOLS) == ["?", "〜"]
    with pytest.raises(InputError, match=r"f\.txt:3: nothing is left to speak"):
        spelt("漢字", skip)
    with pytest.raises(InputError, match="unknown is 'drop', must be one of error, skip"):
        Spelling(unknown="drop")


@given(st.text(max_size=40))
@settings(deadline=None)
def test_whatever_the_text_only_known_symbols_are_read(text: str) -> None:
    skip = Spelling(unknown="skip")
    try:
        made = spelt(text, skip)
    except InputError:
        # Nothing was left to read.
        return
    assert set(made) <= set(SYMBOLS.characters)
    assert made[-1] in ".!'"


def test_numbers_are_read_unless_the_voice_learnt_digits() -> None:
    pytest.importorskip("num2words", reason="num2words is not installed")
    assert spelt("I have 3 cats") == "i have three cats."
    assert (
        spelt("I have 3 cats", symbols=Symbols.of(["abcdefghijklmnopqrstuvwxyz 0123456789"]))
        == "i have 3 cats"
    )


def lexicon(folder: Path, content: str) -> Lexicon:
    path = folder / "words.tsv"
    path.write_text(content, encoding="utf-8")
    return Lexicon.read(path)


@needs_espeak
def test_what_espeak_would_name_or_pass_over_is_unknown_to_a_voice_of_phonemes() -> None:
    frontend = TextFrontend("en", phonemes=True)
    symbols = Symbols.of(frontend.batch(["the red book, pi, Chinese letter, Arabic seen, help"]))
    for text, letter in (("你", "你"), ("سلام", "س"), ("привет", "п"), ("<", "<")):
        text = f"the {text} book"
        with pytest.raises(InputError, match=rf"f\.txt:3: unknown symbol '{letter}' .* --unknown skip"):
            Spelling()(text, "f.txt:3", frontend, symbols)
        skip = Spelling(unknown="skip")
        assert skip(text, "f.txt:3", frontend, symbols) == skip("the book", "f.txt:3", frontend, symbols)
        assert letter in skip.skipped(text, "f.txt:3", frontend, symbols)
    # What looks like Latin letters, a Greek letter by itself and phonemes of the user's are read.
    for text, same in (("hеlр", "help"), ("π", "pi")):
        assert Spelling()(text, "f", frontend, symbols) == Spelling()(same, "f", frontend, symbols)
    assert Spelling()("[[θˈiːtə]]", "f", frontend, Symbols.of(["θˈiːtə"])) == "θˈiːtə"
    # Latin words in a language of another script are read.
    assert Spelling()("hello", "f", TextFrontend("fa", phonemes=True), Symbols.of(["həlˈəʊ"])) == "həlˈəʊ"


def test_words_are_read_as_the_user_writes_them(tmp_path: Path) -> None:
    spelling = Spelling(
        lexicon=lexicon(tmp_path, "# mine\nNginx\tengine ex\n\nNew York\tnoo york\nyork\tyawk\n")
    )
    assert spelt("NGINX in New York, York, nginxes", spelling) == "engine ex in noo york, yawk, nginxes."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a b\n", r"words\.tsv:1: 'a b': write a word, a tab and how it is read"),
        ("a\t\n", r"words\.tsv:1: "),
        ("a\tx\n\na\ty\n", r"words\.tsv:3: 'a' has a reading already"),
    ],
)
def test_a_faulty_lexicon_is_named_with_its_line(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        lexicon(tmp_path, content)


def test_a_lexicon_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Lexicon.read(tmp_path / "words.tsv")


def test_phonemes_are_refused_by_a_voice_of_letters() -> None:
    with pytest.raises(
        InputError, match=r"f\.txt:3: \[\[həlˈəʊ\]\] is phonemes, and this voice reads letters"
    ):
        spelt("hello [[həlˈəʊ]]")


@needs_espeak
def test_phonemes_inline_and_of_the_lexicon_are_taken_as_they_are(tmp_path: Path) -> None:
    frontend = TextFrontend("en", phonemes=True)
    spelling = Spelling(lexicon=lexicon(tmp_path, "GIF\t/dʒˈɪf/\n"))
    plain = frontend("the red book is here")
    symbols = Symbols.of([plain, "dʒˈɪf.əʊ,"])
    assert spelling("The GIF is here", "here", frontend, symbols).split()[1] == "dʒˈɪf"
    made = spelling("the [[dʒˈəʊ]] book, here", "here", frontend, symbols)
    assert made.split()[1] == "dʒˈəʊ"
    assert made.endswith(".")
    with pytest.raises(InputError, match="unknown symbol 'ŋ'"):
        spelling("[[dʒˈɪŋ]]", "here", frontend, symbols)
