"""espeak-ng: the same samples for the same text, phonemes that keep punctuation, one-line errors."""

import sys
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from ttsfast.data.corpus.espeak import SAMPLE_RATE, available, phonemize, speak, speak_words
from ttsfast.errors import InputError

needs_espeak = pytest.mark.skipif(not available(), reason="espeakng-loader is not installed (extra 'demo')")


@needs_espeak
@pytest.mark.parametrize(("language", "text"), [("en", "one two three"), ("fa", "یک دو سه")])
def test_speech_is_audible_and_of_plausible_length(language: str, text: str) -> None:
    wave = speak(text, language)
    assert wave.dtype == np.float32
    assert 0.4 < len(wave) / SAMPLE_RATE < 2.5
    assert 0.1 < np.abs(wave).max() <= 1.0


@needs_espeak
def test_samples_do_not_depend_on_what_was_spoken_before() -> None:
    alone = speak("one two three")
    speak("seven eight nine, forty four")
    speak("سلام", "fa")
    assert np.array_equal(speak("one two three"), alone)
    assert not np.array_equal(speak("one two four"), alone)


@needs_espeak
def test_a_faster_rate_gives_shorter_speech() -> None:
    assert len(speak("one two three four", rate=300)) < 0.8 * len(speak("one two three four", rate=150))


@needs_espeak
def test_phonemes_do_not_depend_on_the_other_texts() -> None:
    texts = ["one two three", "read this; I read that", "the cat", "one"]
    together = phonemize(texts)
    assert together == phonemize(texts[::-1])[::-1] == [phonemize([text])[0] for text in texts]
    assert together[2] == "ðə kˈæt"


@needs_espeak
def test_reading_loads_the_library_once_as_what_each_loading_leaves_is_never_freed() -> None:
    loaded: list[str] = []
    counting = [True]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if counting[0] and event == "ctypes.dlopen":
            loaded.append(str(arguments[0]))

    speak("one")
    sys.addaudithook(hook)
    try:
        first = [phonemize([f"the cat {count}"]) for count in "abc"]
        speak("one two three")
        assert [phonemize([f"the cat {count}"]) for count in "abc"] == first
    finally:
        counting[0] = False
    assert len(loaded) == 3


@needs_espeak
def test_speech_does_not_depend_on_what_was_read_before() -> None:
    alone = speak("one two three")
    phonemize(["seven eight nine, forty four"])
    assert np.array_equal(speak("one two three"), alone)


@needs_espeak
def test_persian_phonemes_keep_punctuation_and_drop_language_marks() -> None:
    (phonemes,) = phonemize(["سلام، خوبی؟ hello سه\u200cشنبه؛ کتاب."], "fa")
    assert [mark for mark in phonemes if mark in "،؟؛."] == ["،", "؟", "؛", "."]
    assert phonemes.startswith("salˈɑm، ")
    assert "(" not in phonemes
    assert not any("\u0600" <= c <= "\u06ff" and c not in "،؛؟" for c in phonemes)
    assert "base" not in phonemize(["in=on"], "fa")[0]


@needs_espeak
def test_punctuation_inside_numbers_is_read_and_outside_is_kept() -> None:
    (phonemes,) = phonemize(["It costs 3.14, (yes) 1,000!"])
    assert "pɔɪnt" in phonemes
    assert "θˈaʊzənd" in phonemes
    assert [c for c in phonemes if c in ".,()!"] == [",", "(", ")", "!"]


@needs_espeak
def test_a_full_stop_that_shortens_a_word_is_no_end_of_sentence() -> None:
    (phonemes,) = phonemize(["Dr. Smith came at 5 p.m. from the U.S. Army, e.g. in a car. He left."])
    assert phonemes.count(".") == 2
    assert phonemes.startswith("dˈɑːktɚ smˈɪθ")
    (german,) = phonemize(["Am 3. Mai kam Dr. Meier."], "de")
    assert german.count(".") == 1
    assert phonemize(["م. رضایی آمد."], "fa")[0].count(".") == 1


@needs_espeak
@pytest.mark.parametrize("vowel", ["\u064e", "\u064f", "\u0650", "\u064b"])
def test_shadda_with_a_vowel_doubles_its_letter_in_either_order(vowel: str) -> None:
    one, other, name = phonemize([f"معل\u0651{vowel}م", f"معل{vowel}\u0651م", "تشدید"], "fa")
    assert one == other
    assert "ll" in one
    assert name not in one


@needs_espeak
def test_stress_is_kept() -> None:
    record, verb = phonemize(["a record", "to record it"])
    assert "ɹˈ" in record
    assert record.index("ˈ") < record.index("k")
    assert verb.index("ˈ") > verb.index("ɹ")


@needs_espeak
@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_nothing_to_say_is_an_error_to_speak_and_empty_to_phonemize(text: str) -> None:
    with pytest.raises(InputError, match="no text"):
        speak(text)
    assert phonemize([text]) == [""]


@needs_espeak
def test_unknown_language_and_nul_are_named() -> None:
    with pytest.raises(InputError, match="'xx-none'"):
        speak("one", "xx-none")
    with pytest.raises(InputError, match="NUL"):
        phonemize(["a\0b"])


@needs_espeak
def test_works_from_a_deep_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import espeakng_loader

    deep = tmp_path / ("a" * 120) / ("b" * 120)
    copytree(Path(espeakng_loader.__file__).parent / "espeak-ng-data", deep / "espeak-ng-data")
    expected = speak("one")
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(deep / "espeak-ng-data"))
    assert np.array_equal(speak("one"), expected)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert not available()
    for call in (lambda: speak("one"), lambda: phonemize(["one"])):
        with pytest.raises(InputError, match=r"pip install 'ttsfast\[phonemes\]'"):
            call()


@needs_espeak
def test_it_says_when_each_word_begins() -> None:
    # After a pause an onset is plain to see: silence, then sound within a hundredth of a second of the mark.
    spoken = speak_words("apple, apple, apple.")
    assert [word for word, _ in spoken.words] == [0, 1, 2]
    assert spoken.words[0][1] == 0.0
    for _, seconds in spoken.words[1:]:
        first = round(seconds * SAMPLE_RATE)
        before, after = (spoken.samples[first + a : first + b] for a, b in ((-400, -100), (0, 400)))
        assert np.abs(before).max() < 0.01 < 0.05 < np.abs(after).max()


@needs_espeak
def test_words_are_counted_as_spaces_part_them() -> None:
    # What is run together with the word before has no mark, nor has a part of a word behind a joiner.
    assert [word for word, _ in speak_words("is  it in the\u00a0house").words] == [0, 1, 2, 4]
    assert [word for word, _ in speak_words("سه\u200cشنبه می\u200cرود", "fa").words] == [0, 1]
