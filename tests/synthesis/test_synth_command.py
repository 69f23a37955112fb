"""``ttsfast synth`` as it is called: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner
from voices import walking_voice

from ttsfast.cli import app
from ttsfast.errors import InputError, SpeechError, exit_code
from ttsfast.models.voice import Voice
from ttsfast.synthesis import vocoder
from ttsfast.synthesis.vocoder import Vocoder


@pytest.fixture(autouse=True)
def _the_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads ten symbols of a text, and no more."""
    voice = walking_voice(lambda symbols: symbols, last=lambda symbols: min(symbols - 1, 9))
    monkeypatch.setattr(Voice, "load", lambda *args, **choices: voice)
    # Griffin-Lim would take seconds.
    quick = Vocoder("quick", voice.contract, lambda mel: np.repeat(mel[0, 0], voice.contract.hop_length))
    monkeypatch.setattr(vocoder, "load_vocoder", lambda *args, **choices: quick)


def synth(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["synth", "voice", *map(str, arguments)])


def test_every_sentence_is_spoken_and_reported(tmp_path: Path) -> None:
    result = synth("bad cab. a fed bee.", "--output", tmp_path / "out", "--json")
    assert result.exit_code == 0
    (entry,) = json.loads(result.stdout)
    assert [sentence["read"] for sentence in entry["sentences"]] == [1.0, 1.0]
    result = synth("bad cab.", "--output", tmp_path / "x.wav")
    assert (result.exit_code, (tmp_path / "x.wav").is_file()) == (0, True)
    assert "100% read" in result.stdout


def test_what_was_not_read_whole_ends_in_code_1_with_its_id_after_the_others(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("one|bad cab\ntwo|bad cab fed bee\nthree|cab\n", encoding="utf-8")
    result = synth("--input", lines, "--output", tmp_path / "out", "--json")
    assert isinstance(result.exception, SpeechError)
    assert exit_code(result.exception) == 1
    assert "left out: two;" in str(result.exception)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "one.wav",
        "speech.json",
        "three.wav",
    ]
    assert [entry["file"] is None for entry in json.loads(result.stdout)] == [False, True, False]
    # In one go it is too long, sentence by sentence it is not.
    two = "bad cab. fed bee."
    assert isinstance(synth(two, "--no-split", "--output", tmp_path / "whole").exception, SpeechError)
    assert synth(two, "--output", tmp_path / "split").exit_code == 0


def test_choices_of_reading_reach_the_voice(tmp_path: Path) -> None:
    words = tmp_path / "words.tsv"
    words.write_text("cab\tbee\n", encoding="utf-8")
    result = synth("a 〜 cab", "--lexicon", words, "--unknown", "skip", "--output", tmp_path / "o", "--json")
    assert result.exit_code == 0
    (entry,) = json.loads(result.stdout)
    assert entry["sentences"][0]["spoken"] == "a bee."
    assert "left out, unknown: '〜' (U+301C WAVE DASH)" in " ".join(result.stderr.split())
    for arguments in (("a 〜",), ("a", "--unknown", "drop"), ("a", "--lexicon", tmp_path / "none")):
        assert isinstance(synth(*arguments, "--output", tmp_path / "no").exception, InputError)
    assert not (tmp_path / "no").exists()


def test_files_are_replaced_only_when_asked(tmp_path: Path) -> None:
    assert synth("a", "--output", tmp_path).exit_code == 0
    assert "--overwrite" in str(synth("a", "--output", tmp_path).exception)
    assert synth("a", "--output", tmp_path, "--overwrite").exit_code == 0
