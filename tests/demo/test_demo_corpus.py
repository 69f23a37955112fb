"""The demo corpus: deterministic, resumable, and held out in earnest."""

import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import soundfile

import ttsfast.demo.corpus as demo
from ttsfast.data.corpus.espeak import Spoken, available, speak_words
from ttsfast.data.corpus.word_times import read_word_times
from ttsfast.demo.corpus import demo_sentences, write_demo_corpus
from ttsfast.errors import InputError

needs_espeak = pytest.mark.skipif(not available(), reason="espeakng-loader is not installed (extra 'demo')")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("language", demo.LANGUAGES)
@pytest.mark.parametrize(("utterances", "held_out"), [(520, 40), (30, 4)])
def test_sentences_are_distinct_and_held_out_words_occur_in_training(
    language: str, utterances: int, held_out: int
) -> None:
    training, held = demo_sentences(language, utterances, held_out, seed=0)
    assert (len(training), len(held)) == (utterances, held_out)
    assert len({text.lower() for text in training + held}) == utterances + held_out
    known = {word.strip(".,?،؛؟").lower() for text in training for word in text.split()}
    assert all(word.strip(".,?،؛؟").lower() in known for text in held for word in text.split())
    # The symbols too, punctuation and capitals included: an unseen one could not be encoded.
    assert set("".join(held)) <= set("".join(training))


def test_sentences_follow_the_seed_and_the_language() -> None:
    assert demo_sentences("en", 20, 3, 0) == demo_sentences("en", 20, 3, 0)
    assert demo_sentences("en", 20, 3, 0) != demo_sentences("en", 20, 3, 1)
    persian = "".join(demo_sentences("fa", 520, 40, 0)[0])
    assert not any("a" <= c.lower() <= "z" for c in persian)
    assert {"\u200c", "،", "؟", "؛"} <= set(persian)


@pytest.mark.parametrize(
    ("language", "utterances", "held_out", "message"),
    [("xx", 5, 1, "'xx'"), ("en", 0, 1, "utterances >= 1"), ("en", 1, 500, "more utterances")],
)
def test_impossible_requests_are_named(language: str, utterances: int, held_out: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        demo_sentences(language, utterances, held_out, seed=0)


@needs_espeak
@pytest.mark.parametrize("language", demo.LANGUAGES)
def test_corpus_is_complete_and_of_the_promised_form(tmp_path: Path, language: str) -> None:
    report = write_demo_corpus(tmp_path / "c", language, utterances=30, held_out=4)
    rows = [line.split("|") for line in (tmp_path / "c/metadata.csv").read_text("utf-8").splitlines()]
    held = (tmp_path / "c/validation.txt").read_text("utf-8").split()
    assert len(rows) == 34 == report.written
    assert held == [row[0] for row in rows[30:]]
    seconds = 0.0
    for name, text, normalised in rows:
        wave, rate = soundfile.read(tmp_path / "c/wavs" / f"{name}.wav")
        assert text == normalised != ""
        assert rate == 22050
        assert wave.ndim == 1
        assert 0.6 < len(wave) / rate < 4.5
        # Trimmed: sound within 60 ms of either end.
        assert np.abs(wave[: rate * 60 // 1000]).max() > 0.002
        assert np.abs(wave[-rate * 60 // 1000 :]).max() > 0.002
        seconds += len(wave) / rate
    assert report.seconds == pytest.approx(seconds)


@needs_espeak
def test_a_second_call_does_nothing_and_a_partial_folder_is_finished(tmp_path: Path) -> None:
    first = write_demo_corpus(tmp_path / "a", utterances=12, held_out=2)
    expected = digests(tmp_path / "a")
    assert "words.json" in {Path(name).name for name in expected}
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    again = write_demo_corpus(tmp_path / "a", utterances=12, held_out=2)
    assert (first.written, again.written) == (14, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == stamps

    # As an interruption would leave it: some recordings, no listing; the rest must not depend on them.
    (tmp_path / "a/metadata.csv").unlink()
    (tmp_path / "a/validation.txt").unlink()
    (tmp_path / "a/words.json").unlink()
    for name in ("en-0003", "en-0009", "en-0014"):
        (tmp_path / f"a/wavs/{name}.wav").unlink()
    assert write_demo_corpus(tmp_path / "a", utterances=12, held_out=2).written == 3
    assert digests(tmp_path / "a") == expected

    write_demo_corpus(tmp_path / "b", utterances=12, held_out=2)
    assert digests(tmp_path / "b") == expected


@needs_espeak
def test_words_are_timed_in_the_recording_and_not_in_what_was_cut_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delayed(text: str, language: str, *, rate: int) -> Spoken:
        spoken = speak_words(text, language, rate=rate)
        words = tuple((word, seconds + 1.0) for word, seconds in spoken.words)
        return Spoken(np.concatenate([np.zeros(22050, np.float32), spoken.samples]), words)

    write_demo_corpus(tmp_path / "a", utterances=3, held_out=0)
    expected = read_word_times(tmp_path / "a")
    monkeypatch.setattr(demo, "speak_words", delayed)
    write_demo_corpus(tmp_path / "b", utterances=3, held_out=0)
    found = read_word_times(tmp_path / "b")
    assert expected is not None
    assert found is not None
    for name, words in expected.items():
        # The margin before the first sound is there only where silence was.
        assert np.ptp([seconds - at for (_, seconds), (_, at) in zip(found[name], words, strict=True)]) < 1e-3
        assert words[0][1] == pytest.approx(0.02, abs=1e-4)
        assert found[name][0][1] == pytest.approx(0.04, abs=0.006)


@needs_espeak
def test_an_interruption_leaves_no_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = demo.write_wav
    calls = []

    def failing(path: Path, wave: np.ndarray, rate: int) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(path, wave, rate)

    monkeypatch.setattr(demo, "write_wav", failing)
    with pytest.raises(KeyboardInterrupt):
        write_demo_corpus(tmp_path / "c", utterances=6, held_out=1)
    assert not (tmp_path / "c/metadata.csv").exists()
    monkeypatch.setattr(demo, "write_wav", real)
    assert write_demo_corpus(tmp_path / "c", utterances=6, held_out=1).written == 4


@needs_espeak
def test_a_folder_with_other_content_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("mine|text|text\n")
    with pytest.raises(InputError, match="other files"):
        write_demo_corpus(tmp_path, utterances=6, held_out=1)
    assert digests(tmp_path).keys() == {"metadata.csv"}

    write_demo_corpus(tmp_path / "demo", utterances=6, held_out=1)
    with pytest.raises(InputError, match="other settings"):
        write_demo_corpus(tmp_path / "demo", utterances=6, held_out=1, seed=1)


@pytest.mark.skipif(shutil.which("flite") is not None, reason="flite is installed here")
def test_flite_is_used_only_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="flite is not installed"):
        write_demo_corpus(tmp_path / "c", engine="flite")
    assert not (tmp_path / "c").exists()


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_flite_speaks_at_the_corpus_rate(tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "c", utterances=2, held_out=0, engine="flite")
    assert soundfile.info(tmp_path / "c/wavs/en-0001.wav").samplerate == 22050


def test_unusable_engines_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="English only"):
        write_demo_corpus(tmp_path / "c", "fa", engine="flite")
    with pytest.raises(InputError, match="'piper'"):
        write_demo_corpus(tmp_path / "c", engine="piper")
    monkeypatch.setattr(demo, "available", lambda: False)
    with pytest.raises(InputError, match="pip install"):
        write_demo_corpus(tmp_path / "c")
    assert not (tmp_path / "c").exists()
