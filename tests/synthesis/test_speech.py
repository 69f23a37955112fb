"""What to say, from texts, files and pipes, into files and streams."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from voices import BINS, small_voice

from ttsfast.data.features.contract import MelContract
from ttsfast.errors import InputError
from ttsfast.models.voice import Voice
from ttsfast.synthesis.speech import Line, given_lines, read_file, read_lines, stream_speech, write_speech
from ttsfast.synthesis.vocoder import Vocoder

LIBROSA = MelContract.preset("librosa-22k")
PLAIN = Vocoder("griffin-lim", LIBROSA)
WEIGHTS = (0.01 * np.random.default_rng(0).normal(size=(BINS, LIBROSA.hop_length))).astype(np.float32)
# As loud as speech, and for whole batches faster than Griffin-Lim.
LINEAR = Vocoder("linear", LIBROSA, lambda mel: mel[0].T @ WEIGHTS)


@pytest.fixture(scope="module")
def voice() -> Voice:
    return small_voice()


def test_lines_are_named_by_their_id_or_their_number() -> None:
    lines = list(read_lines(io.StringIO("\ufeffone\n\n  x_1.b | two | three \n فارسی|چهار\nfive\n"), "f.txt"))
    assert lines == [
        Line("0001", "one", "f.txt:1"),
        Line("x_1.b", "two | three", "f.txt:3"),
        Line("فارسی", "چهار", "f.txt:4"),
        Line("0005", "five", "f.txt:5"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a|x\nb|y\na|z\n", r"f\.txt:3: the name 'a' is taken by line 1"),
        ("0002|x\ny\n", r"f\.txt:2: the name '0002' is taken by line 1"),
        ("../a|x\n", r"f\.txt:1: '\.\./a' cannot name a file"),
        (".a|x\n", r"f\.txt:1: '\.a' cannot name a file"),
        ("|x\n", r"f\.txt:1: '' cannot name a file"),
        ("a|x\n" + "ص" * 101 + "|y\n", r"f\.txt:2: the name صصص.* has 202 bytes"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused_with_its_place(content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_lines(io.StringIO(content), "f.txt"))


def test_files_that_hold_nothing_to_say_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    with pytest.raises(InputError, match="cannot be read"):
        read_file(path)
    path.write_text("\n \n")
    with pytest.raises(InputError, match="holds no text"):
        read_file(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_file(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            Line("a", "bad cat", "f.txt:7"),
            r"f\.txt:7: unknown symbol 't' \(U\+0074 .*\) at character 7 of 'bad cat'",
        ),
        (Line("a", "\u200b", "f.txt:7"), r"f\.txt:7: nothing is left to speak"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place_and_nothing_is_written(
    line: Line, message: str, voice: Voice, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        write_speech(voice, [*given_lines(["bad"]), line], tmp_path / "out", None, PLAIN)
    assert not (tmp_path / "out").exists()


def test_speakers_are_chosen_by_name(voice: Voice, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no speaker 'carl': this voice has 'anna', 'ben'"):
        write_speech(voice, given_lines(["bad"]), tmp_path / "out", "carl", PLAIN)
    assert not (tmp_path / "out").exists()
    mels = [voice.speak(["bad"], [name])[0].log_mel[:3] for name in ("anna", "ben")]
    assert np.array_equal(voice.speak(["bad"])[0].log_mel[:3], mels[0])
    assert not np.allclose(mels[0], mels[1], atol=1e-3)


def test_a_batch_is_written_in_files_and_a_record(voice: Voice, tmp_path: Path) -> None:
    lines = [Line(f"n{number}", text, "f.txt:1") for number, text in enumerate(["a", "bad cab", "gab"] * 6)]
    entries = write_speech(voice, lines, tmp_path / "out", "ben", LINEAR)
    assert sorted(p.name for p in (tmp_path / "out").glob("*.wav")) == sorted(f"{x.name}.wav" for x in lines)
    record = json.loads((tmp_path / "out" / "speech.json").read_text(encoding="utf-8"))
    assert record["utterances"] == entries
    assert (record["vocoder"], record["speaker"]) == ("linear", "ben")
    assert MelContract.from_dict(record["mel_contract"]) == LIBROSA
    wave, rate = soundfile.read(tmp_path / "out" / "n1.wav")
    assert len(wave) / rate == pytest.approx(entries[1]["seconds"])
    # Batches of 16: the second batch starts with the same text as the first.
    again, _ = soundfile.read(tmp_path / "out" / "n16.wav")
    assert np.abs(wave).max() > 0.01
    assert np.abs(wave - again).max() < 1e-3


def test_a_stream_holds_what_the_files_hold(voice: Voice, tmp_path: Path) -> None:
    lines = given_lines(["bad cab", "a", "gab fed"])
    write_speech(voice, lines, tmp_path, None, LINEAR)
    files = [soundfile.read(tmp_path / f"{line.name}.wav", dtype="int16")[0] for line in lines]
    raw, wav = io.BytesIO(), io.BytesIO()
    stream_speech(voice, iter(lines), raw, None, LINEAR, raw=True)
    stream_speech(voice, iter(lines), wav, None, LINEAR, raw=False)
    streamed = np.frombuffer(raw.getvalue(), "<i2")
    # Alone or in a batch: the mels agree to rounding.
    assert np.abs(streamed.astype(int) - np.concatenate(files)).max() <= 2
    assert len(wav.getvalue()) == 44 + len(raw.getvalue())
    heard, rate = soundfile.read(io.BytesIO(wav.getvalue()), dtype="int16")
    assert rate == 22050
    assert np.array_equal(heard, streamed)


def test_a_stream_is_written_before_the_next_line_is_read(voice: Voice) -> None:
    out = io.BytesIO()
    sizes = []

    def lines() -> Any:
        for line in given_lines(["bad", "cab", "bat"]):
            sizes.append(out.tell())
            yield line

    with pytest.raises(InputError, match="unknown symbol 't'"):
        stream_speech(voice, lines(), out, None, LINEAR, raw=True)
    assert 0 == sizes[0] < sizes[1] < sizes[2]
