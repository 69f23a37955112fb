"""Which sounds are listened to, which frames of pitch are compared, and where the words come from."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ttsfast.errors import InputError
from ttsfast.evaluation.evaluate import evaluate
from ttsfast.evaluation.report import write_report
from ttsfast.evaluation.report_words import words_section
from ttsfast.evaluation.sound import measure_sound
from ttsfast.evaluation.speech_recognition import Heard
from ttsfast.evaluation.words import Words
from ttsfast.models.voice import Voice
from ttsfast.synthesis.vocoder import Vocoder


class Ear:
    """Hears the words that it is told to; remembers what it listened to."""

    name, language = "ear", "en"

    def __init__(self) -> None:
        self.heard: list[tuple[np.ndarray, str]] = []

    def normalise(self, text: str) -> str:
        return "" if text == "nothing" else text

    def compare(self, wave: np.ndarray, sample_rate: int, reference: str) -> Heard:
        self.heard.append((wave, reference))
        words = len(reference.split())
        # Wrong once in a copy, which is as loud as 0.25, always in the voice, never in a recording.
        errors = {0.25: 1, 0.5: words}.get(float(np.abs(wave).max()), 0)
        return Heard(reference, errors, words, 2 * errors, len(reference))


@pytest.fixture
def loud_when_spoken(corpus: Any) -> Vocoder:
    """A vocoder whose copies of recordings can be told from free-running speech, which is off by 9."""

    def run(mel: np.ndarray) -> np.ndarray:
        offset = mel.mean() - corpus.mel_mean.mean()
        return np.full(mel.shape[2] * corpus.contract.hop_length, 0.5 if offset > 5 else 0.25, np.float32)

    return Vocoder("stand-in", corpus.contract, run)


def spoken(corpus: Any, offset: float) -> dict[str, np.ndarray]:
    return {u.id: u.mel.astype(np.float32) + np.float32(offset) for u in corpus.utterances}


def test_all_three_kinds_are_heard(
    corpus: Any, voice: Voice, loud_when_spoken: Vocoder, tmp_path: Path
) -> None:
    corpus.write_wavs(tmp_path / "corpus")
    ear, order = Ear(), [9, 5, 1]
    found = measure_sound(
        voice, corpus, order, spoken(corpus, 9.0), loud_when_spoken, ear, tmp_path / "corpus"
    )
    assert found.words is not None
    # "nothing" has no word, so nobody listens to it.
    assert list(found.words.references) == ["utt009", "utt001"]
    recorded = [wave for wave, _ in ear.heard[2::3]]
    for wave, number in zip(recorded, (9, 1), strict=True):
        np.testing.assert_allclose(wave, corpus.waves[number], atol=1e-4)
    assert found.figures["free_running"]["word_error"] == 1.0
    assert found.figures["copy_synthesis"]["word_error"] == 2 / 5
    assert found.figures["natural"]["word_error"] == 0.0
    assert found.figures["copy_synthesis"]["character_error"] == 4 / 18
    plain = json.loads(json.dumps(found.words.to_dict()))
    assert plain["word_error"]["copy_synthesis"]["value"] == 2 / 5
    low, high = plain["word_error"]["copy_synthesis"]["interval"]
    assert low <= 2 / 5 <= high
    assert plain["by_utterance"]["utt001"]["free_running"]["word_errors"] == 3
    assert plain["by_utterance"]["utt001"]["text"] == "a dog ran"


def test_without_the_recordings_natural_is_left_out_and_that_is_said(
    corpus: Any, voice: Voice, loud_when_spoken: Vocoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = replace(corpus, path=tmp_path / "gone")
    found = measure_sound(voice, moved, [1], spoken(corpus, 9.0), loud_when_spoken, Ear())
    assert set(found.figures) == {"free_running", "copy_synthesis"}
    assert "the recordings of" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match="is not there"):
        measure_sound(voice, moved, [1], spoken(corpus, 9.0), loud_when_spoken, Ear(), tmp_path / "gone")
    with pytest.raises(InputError, match="no whole utterance has a word"):
        measure_sound(voice, moved, [5], spoken(corpus, 9.0), loud_when_spoken, Ear())


def test_pitch_is_compared_along_the_warping(corpus: Any, voice: Voice) -> None:
    """Speech that begins 20 frames late has the recording's voicing once it is warped onto it."""
    late, recording = 20, corpus[6]
    frames, hop, rate = len(recording.mel), corpus.contract.hop_length, corpus.contract.sample_rate
    half = frames // 2
    pitch = np.zeros(frames, dtype=np.float32)
    pitch[half:] = 200.0
    tracked = replace(corpus, tracks={"pitch": (200.0, 1.0)})
    tracked.utterances[6] = replace(recording, pitch=pitch)

    def tone(mel: np.ndarray) -> np.ndarray:
        """Voiced where the recording is; a semitone high where it begins late."""
        count = mel.shape[2]
        start, ratio = (half, 1.0) if count == frames else (half + late, 2 ** (1 / 12))
        time = np.arange(count * hop)
        wave = 0.3 * np.sin(2 * np.pi * 200.0 * ratio * time / rate)
        return np.where(time < start * hop, 0.0, wave).astype(np.float32)

    mel = recording.mel.astype(np.float32)
    predicted = np.concatenate([np.repeat(mel[:1], late, axis=0), mel])
    try:
        found = measure_sound(
            voice, tracked, [6], {recording.id: predicted}, Vocoder("tone", corpus.contract, tone)
        )
    finally:
        tracked.utterances[6] = recording
    assert found.words is None
    free, copied = found.figures["free_running"], found.figures["copy_synthesis"]
    assert free["f0_rmse"] == pytest.approx(100.0, abs=15.0)
    assert copied["f0_rmse"] == pytest.approx(0.0, abs=15.0)
    assert free["gross_pitch_error"] == copied["gross_pitch_error"] == 0.0
    # Frame by frame it would be 20 of them, far more than the edge of the tone.
    assert copied["voicing_error"] < 0.05
    assert free["voicing_error"] < 0.05


def test_a_cut_clip_is_passed_over(corpus: Any, voice: Voice) -> None:
    cut = replace(corpus[1], truncated=True, pitch=np.zeros(len(corpus[1].mel), np.float32))
    store = replace(corpus, utterances=[cut], texts=["a dog ran"], splits=["test"])
    hop = corpus.contract.hop_length
    silent = Vocoder("silence", corpus.contract, lambda mel: np.zeros(mel.shape[2] * hop, np.float32))
    found = measure_sound(voice, store, [0], {cut.id: cut.mel.astype(np.float32)}, silent)
    assert dict(found.figures["free_running"]) == {}
    with pytest.raises(InputError, match="no whole utterance has a word"):
        measure_sound(voice, store, [0], {cut.id: cut.mel.astype(np.float32)}, silent, Ear())  # type: ignore[arg-type]


def test_an_evaluation_has_words_and_sounds_of_the_vocoder_that_is_named(
    corpus: Any, voice: Voice, parrot: Any, loud_when_spoken: Vocoder, tmp_path: Path
) -> None:
    corpus.write_wavs(tmp_path / "corpus")
    parrot.offset = 9.0
    found = evaluate(
        voice,
        corpus,
        untrained=copy.deepcopy(parrot),
        samples=1,
        worst=0,
        copy_synthesis_utterances=1,
        vocoder=loud_when_spoken,
        recogniser=Ear(),  # type: ignore[arg-type]
        corpus=tmp_path / "corpus",
    )
    assert found.samples[0].synthesised.max() == 0.5
    assert found.samples[0].copy_synthesis.max() == 0.25
    assert found.figures["word_error"] == 1.0
    assert found.baselines["natural"]["word_error"] == 0.0
    assert 0.0 < found.baselines["copy_synthesis"]["word_error"] < 1.0
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["vocoder"] == "stand-in"
    assert set(plain["words"]["by_utterance"]) <= {entry.id for entry in corpus.entries}
    page = write_report(tmp_path, found, title="voice").read_text()
    assert '<h2 id="words">' in page


def test_the_page_shows_what_was_heard() -> None:
    heard = {"free_running": {"u": Heard("<i>", 2, 2, 4, 5)}, "natural": {"u": Heard("a <b>", 0, 2, 0, 5)}}
    section = words_section(Words("<m>", "fa", {"u": "a <b>"}, heard))
    assert "<i>" not in section
    assert "<m>" not in section
    assert 'lang="fa">&lt;i&gt;</td>' in section
    assert "<strong>100.0%</strong> (100.0 to 100.0)" in section
    assert "<strong>0.0%</strong>" in section
