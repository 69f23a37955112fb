"""Errors by hand, spelling that counts as the same, and a small Whisper listening to espeak."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from listening import whisper_folder

from ttsfast.data.corpus import espeak
from ttsfast.errors import InputError
from ttsfast.evaluation.speech_recognition import Recogniser, count_errors, plain_words, text_normaliser


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(whisper_folder(), "en")


def test_errors_by_hand() -> None:
    pytest.importorskip("jiwer", reason="jiwer is not installed: pip install -e '.[asr]'")
    # One word put for another, one left out, one added.
    found = count_errors("the cat sat on the mat", "the bat sat the mat again")
    assert (found.word_errors, found.words) == (3, 6)
    assert count_errors("the cat", "the cat").word_errors == 0
    silent = count_errors("one two", "")
    assert (silent.word_errors, silent.words, silent.character_errors, silent.characters) == (2, 2, 7, 7)
    assert count_errors("cat", "cap").character_errors == 1
    # More than everything can be wrong.
    assert count_errors("no", "no no no").word_errors == 2


def test_english_is_normalised_as_whispers_figures_are() -> None:
    pytest.importorskip("whisper_normalizer", reason="whisper-normalizer is not installed")
    normalise = text_normaliser("en-us")
    assert normalise("Mr. Brown didn't see  twenty-two colours!") == "mister brown did not see 22 colors"
    assert normalise("Hmm...") == ""
    assert normalise("Wait... it is 3.5.") == "wait it is 3.5"


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("de", "Straße – »Übung«, ja?", "strasse übung ja"),
        ("fr", "L'été, c'est 3 €", "l été c est 3"),
        # Arabic letters to Persian ones, a non-joiner to a space, digits to Persian ones.
        ("fa", "مي‌روم؛ 12", "می روم ۱۲"),
        ("hi", "क्या हुआ?", "क्या हुआ"),
        ("zh", "你好,世界", "你 好 世 界"),
    ],
)
def test_other_languages_keep_their_letters(language: str, text: str, expected: str) -> None:
    assert plain_words(text, language) == text_normaliser(language)(text) == expected


@pytest.mark.skipif(not espeak.available(), reason="espeak-ng is not installed")
def test_speech_is_heard_at_any_rate(recogniser: Recogniser) -> None:
    text = "The weather is beautiful today."
    wave = espeak.speak(text, rate=140)
    found = recogniser.compare(wave, espeak.SAMPLE_RATE, recogniser.normalise(text))
    assert found.words == 5
    assert found.word_errors <= 2
    # At another rate it is other speech.
    wrong = recogniser.compare(wave, 3 * espeak.SAMPLE_RATE, recogniser.normalise(text))
    assert wrong.word_errors >= 4


def test_silence_says_nothing(recogniser: Recogniser) -> None:
    assert recogniser(np.zeros(16000, dtype=np.float32), 16000) == ""


def test_what_is_no_model_or_another_language_is_named(recogniser: Recogniser, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--asr {tmp_path}: no Whisper model"):
        Recogniser(tmp_path, "en")
    with pytest.raises(InputError, match="knows English alone, the store's is 'fa'"):
        Recogniser(whisper_folder(), "fa")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(InputError, match=r"--asr needs the package jiwer: pip install 'ttsfast\[asr\]'"):
        Recogniser("small", "en")


def test_a_device_that_cannot_listen_is_named(
    recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def transcribe(*given: object, **named: object) -> None:
        raise RuntimeError("Library libcublas.so.12 is not found or cannot be loaded")

    monkeypatch.setattr("faster_whisper.WhisperModel.transcribe", transcribe)
    with pytest.raises(InputError, match=r"cannot listen on cpu \(Library libcublas.* --device cpu"):
        recogniser(np.zeros(16000, dtype=np.float32), 16000)
