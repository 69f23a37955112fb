"""What to say, from texts, files and pipes, into files and streams."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from voices import BINS, Walker, parallel_voice, small_voice, walking_voice

from ttsfast.data.corpus.spelling import Spelling
from ttsfast.data.features.contract import MelContract
from ttsfast.errors import InputError, SpeechError
from ttsfast.models.interface import Delivery
from ttsfast.models.voice import AFTER_THE_END, Voice
from ttsfast.synthesis.lines import Line, given_lines, read_file, read_lines
from ttsfast.synthesis.reader import PAUSE, Reader
from ttsfast.synthesis.speech import require_whole, stream_speech, write_speech
from ttsfast.synthesis.vocoder import Vocoder

LIBROSA = MelContract.preset("librosa-22k")
PLAIN = Vocoder("griffin-lim", LIBROSA)
WEIGHTS = (0.01 * np.random.default_rng(0).normal(size=(BINS, LIBROSA.hop_length))).astype(np.float32)
# As loud as speech, and for whole batches faster than Griffin-Lim.
LINEAR = Vocoder("linear", LIBROSA, lambda mel: mel[0].T @ WEIGHTS)


@pytest.fixture(scope="module")
def voice() -> Voice:
    return walking_voice(stop=lambda symbols: symbols, characters="abcdefg .")


def reader(voice: Voice, vocoder: Vocoder = LINEAR, **choices: Any) -> Reader:
    return Reader(voice=voice, vocoder=vocoder, **choices)


def test_lines_are_named_by_their_id_or_their_number() -> None:
    lines = list(read_lines(io.StringIO("\ufeffone\n\n  x_1.b | two, three \n فارسی|چهار\nfive\n"), "f.txt"))
    assert lines == [
        Line("0001", "one", "f.txt:1"),
        Line("x_1.b", "two, three", "f.txt:3"),
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
        ("a|x|X\n", r"f\.txt:1: has more columns than id\|text"),
        ("id|text\na|x\n", r"f\.txt:1: is a header row"),
        ("a|x\n" + "ص" * 101 + "|y\n", r"f\.txt:2: the name صصص.* has 202 bytes"),
    ],
)
def test_a_line_that_is_none_is_refused_with_its_place(content: str, message: str) -> None:
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
        write_speech(reader(voice), [*given_lines(["bad"]), line], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_speakers_are_chosen_by_name(voice: Voice, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no speaker 'carl': this voice has 'anna', 'ben'"):
        write_speech(reader(voice, speaker="carl"), given_lines(["bad"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    small = small_voice()
    mels = [small.speak(["bad"], [name])[0].log_mel[:3] for name in ("anna", "ben")]
    assert np.array_equal(small.speak(["bad"])[0].log_mel[:3], mels[0])
    assert not np.allclose(mels[0], mels[1], atol=1e-3)


def test_a_batch_is_written_in_files_and_a_record(voice: Voice, tmp_path: Path) -> None:
    lines = [Line(f"n{number}", text, "f.txt:1") for number, text in enumerate(["a", "bad cab", "gab"] * 6)]
    entries = write_speech(reader(voice, speaker="ben"), lines, tmp_path / "out")
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
    write_speech(reader(voice), lines, tmp_path)
    files = [soundfile.read(tmp_path / f"{line.name}.wav", dtype="int16")[0] for line in lines]
    raw, wav = io.BytesIO(), io.BytesIO()
    stream_speech(reader(voice), iter(lines), raw, raw=True)
    stream_speech(reader(voice), iter(lines), wav, raw=False)
    streamed = np.frombuffer(raw.getvalue(), "<i2")
    pause = np.zeros(round(PAUSE * 22050), dtype=np.int16)
    assert np.array_equal(streamed, np.concatenate([files[0], pause, files[1], pause, files[2]]))
    assert len(wav.getvalue()) == 44 + len(raw.getvalue())
    heard, rate = soundfile.read(io.BytesIO(wav.getvalue()), dtype="int16")
    assert rate == 22050
    assert np.array_equal(heard, streamed)


def test_a_parallel_voice_streams_what_it_writes_and_at_the_speed_that_is_asked_for(tmp_path: Path) -> None:
    voice, lines = parallel_voice(), given_lines(["bad cab", "gab fed"])
    seconds = {}
    for speed in (1.0, 2.0):
        speaking = reader(voice, delivery=Delivery(speed=speed))
        entries = write_speech(speaking, lines, tmp_path / str(speed))
        seconds[speed] = [entry["seconds"] for entry in entries]
        assert all(entry["read"] == 1.0 and entry["stopped"] for entry in entries)
        files = [soundfile.read(entry["file"], dtype="int16")[0] for entry in entries]
        raw = io.BytesIO()
        stream_speech(speaking, iter(lines), raw, raw=True)
        pause = np.zeros(round(PAUSE * 22050), dtype=np.int16)
        written = np.concatenate([files[0], pause, files[1]]).astype(int)
        # One sentence at a time is rounded otherwise than two at once.
        assert np.abs(np.frombuffer(raw.getvalue(), "<i2") - written).max() <= 8
    for usual, fast in zip(seconds[1.0], seconds[2.0], strict=True):
        assert abs(fast - usual / 2) <= 3 * 256 / 22050
    with pytest.raises(InputError, match="cannot change its speed"):
        write_speech(reader(small_voice(), delivery=Delivery(speed=2.0)), lines, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_stream_is_written_before_the_next_line_is_read(voice: Voice) -> None:
    out = io.BytesIO()
    sizes = []

    def lines() -> Any:
        for line in given_lines(["bad", "cab", "bat"]):
            sizes.append(out.tell())
            yield line

    with pytest.raises(InputError, match="unknown symbol 't'"):
        stream_speech(reader(voice), lines(), out, raw=True)
    assert 0 == sizes[0] < sizes[1] < sizes[2]


THREE = "bad cab. a fed bee. gab"


def test_long_text_is_spoken_sentence_by_sentence(voice: Voice, tmp_path: Path) -> None:
    (entry,) = write_speech(reader(voice), given_lines([THREE]), tmp_path)
    sentences = entry["sentences"]
    assert [s["text"] for s in sentences] == ["bad cab.", "a fed bee.", "gab"]
    # What lacks a full stop is given one.
    assert [s["spoken"] for s in sentences] == ["bad cab.", "a fed bee.", "gab."]
    assert entry["read"] == 1.0
    wave, rate = soundfile.read(tmp_path / "0001.wav")
    assert len(wave) == sum(round(s["seconds"] * rate) for s in sentences) + 2 * round(PAUSE * rate)
    for sentence in sentences:
        begin = round(sentence["start"] * rate)
        assert not wave[:begin][-100:].any() or begin == 0
        assert np.abs(wave[begin : begin + round(sentence["seconds"] * rate)]).max() > 0.01


def test_a_text_may_be_spoken_in_one_go(voice: Voice, tmp_path: Path) -> None:
    (entry,) = write_speech(reader(voice, split=False), given_lines([THREE]), tmp_path)
    assert [s["text"] for s in entry["sentences"]] == [THREE]


def test_a_sentence_longer_than_all_recordings_is_cut_at_its_commas_and_between_words(voice: Voice) -> None:
    text = ", ".join(["bad cab"] * 9) + " " + "fed " * 40
    pieces = reader(voice).sentences(Line("x", text, "here"))
    assert len(pieces) > 3
    assert max(map(len, pieces)) <= 60
    assert " ".join(pieces) == text.strip()


@pytest.mark.parametrize("stop", [lambda symbols: 2, lambda symbols: None], ids=["too early", "never"])
def test_a_stop_in_the_wrong_place_is_followed_by_a_try_that_attention_ends(
    stop: Any, tmp_path: Path
) -> None:
    voice = walking_voice(stop)
    entries = write_speech(reader(voice), given_lines(["bad cab", "a"]), tmp_path)
    assert [e["fault"] for e in entries] == ["", ""]
    assert [e["read"] for e in entries] == [1.0, 1.0]
    # "bad cab." has 8 symbols, and the last but one is near enough to its end.
    frames = 7 + round(AFTER_THE_END * 22050 / 256)
    assert entries[0]["seconds"] == pytest.approx(frames * 256 / 22050, abs=0.02)
    assert not entries[0]["stopped"]
    assert isinstance(voice.model, Walker)
    assert voice.model.calls == 2


def test_what_is_not_read_whole_in_two_tries_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    voice = walking_voice(lambda symbols: symbols, last=lambda symbols: min(symbols - 1, 9))
    lines = [
        Line("good", "bad cab", "f:1"),
        Line("long", "bad cab fed bee", "f:2"),
        Line("end", "cab", "f:3"),
    ]
    (tmp_path / "long.wav").write_bytes(b"of another day")
    entries = write_speech(reader(voice), lines, tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["end.wav", "good.wav", "speech.json"]
    assert [e["file"] is None for e in entries] == [False, True, False]
    assert "62% of the text was read" in entries[1]["fault"]
    assert entries[1]["read"] == pytest.approx(10 / 16)
    with pytest.raises(SpeechError, match=r"left out: long; "):
        require_whole([e["id"] for e in entries if e["fault"]])
    out = io.BytesIO()
    with pytest.raises(SpeechError, match=r"left out: long; "):
        stream_speech(reader(voice), iter(lines), out, raw=True)
    whole = sum(round(e["seconds"] * 22050) for e in entries if e["file"])
    assert len(out.getvalue()) == 2 * (whole + round(PAUSE * 22050))


def test_one_file_holds_all_that_was_said(voice: Voice, tmp_path: Path) -> None:
    path = tmp_path / "new" / "hello.WAV"
    entries = write_speech(reader(voice), given_lines(["bad cab", "a"]), path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["hello.WAV", "hello.json"]
    seconds = sum(e["seconds"] for e in entries) + PAUSE
    assert soundfile.info(path).duration == pytest.approx(seconds, abs=1e-3)
    with pytest.raises(InputError, match=r"hello\.mp3: only wav files are written; name it hello\.wav"):
        write_speech(reader(voice), given_lines(["bad"]), tmp_path / "hello.mp3")
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(InputError, match=r"folder\.wav: is "):
        write_speech(reader(voice), given_lines(["bad"]), tmp_path / "folder.wav", overwrite=True)


@pytest.mark.parametrize("output", ["out", "out.wav"])
def test_files_are_not_overwritten_unasked(output: str, voice: Voice, tmp_path: Path) -> None:
    write_speech(reader(voice), given_lines(["bad cab"]), tmp_path / output)
    held = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="is there already; choose another --output, or --overwrite it"):
        write_speech(reader(voice), given_lines(["a"]), tmp_path / output)
    assert held == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_speech(reader(voice), given_lines(["a"]), tmp_path / output, overwrite=True)
    assert all(path.read_bytes() != content for path, content in held.items())


def test_what_says_nothing_but_is_unknown_is_not_left_out_in_silence(voice: Voice) -> None:
    lines = given_lines(["a bad egg. ***"])
    with pytest.raises(InputError, match=r"unknown symbol '\*'"):
        reader(voice).check(lines)
    skipping = reader(voice, spelling=Spelling(unknown="skip"))
    assert skipping.sentences(lines[0]) == ["a bad egg."]
    assert skipping.skipped(lines[0]) == ["*"]


def test_a_byte_that_is_not_text_is_named_and_nothing_is_written(voice: Voice, tmp_path: Path) -> None:
    lines = given_lines(["a bad \udcff egg"])
    with pytest.raises(InputError, match="character 7 is not UTF-8"):
        write_speech(reader(voice, spelling=Spelling(unknown="skip")), lines, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sentence_of_which_nothing_is_left_is_a_pause(voice: Voice) -> None:
    skip = reader(voice, spelling=Spelling(unknown="skip"))
    assert skip.sentences(Line("x", "bad. ... 漢字! cab.", "here")) == ["bad.", "cab."]
    assert reader(voice).sentences(Line("x", "bad. ... cab.", "here")) == ["bad.", "cab."]
    with pytest.raises(InputError, match="unknown symbol '漢'"):
        reader(voice).check([Line("x", "bad. 漢字! cab.", "here")])


@given(st.text(st.sampled_from("abz .,\n"), max_size=80))
@settings(max_examples=60, deadline=None)
def test_every_letter_of_a_text_is_in_one_of_its_sentences(text: str) -> None:
    assume("a" in text)
    whole = walking_voice(lambda symbols: symbols)
    line = Line("x", text, "here")
    given_to_it = "".join(whole.spoken(piece, "here") for piece in reader(whole).sentences(line))
    assert [c for c in given_to_it if c.isalpha()] == [c for c in text if c.isalpha()]


def test_nothing_to_say_is_refused(voice: Voice, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is nothing to say"):
        write_speech(reader(voice), [], tmp_path)
    with pytest.raises(InputError, match="nothing is left to speak"):
        write_speech(reader(voice), given_lines(["..."]), tmp_path)
