"""``ttsfast synth``: texts to wav files with their mel contract beside them, or to a stream of samples."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ttsfast.data.corpus.audio import pcm16, write_wav
from ttsfast.errors import InputError
from ttsfast.files import atomic_write, output_folder
from ttsfast.models.voice import Speech, Voice
from ttsfast.progress import console, track
from ttsfast.synthesis.vocoder import Vocoder

BATCH = 16
_NAME = re.compile(r"\w[\w.-]*")
_LONGEST_NAME = 200
"""bytes: file systems take 255, some of them for the ending and for the temporary file's"""
_UNKNOWN_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True)
class Line:
    """One utterance to speak."""

    name: str
    """of its file, without the suffix"""
    text: str
    where: str
    """for messages: the file and line"""


def given_lines(texts: Sequence[str]) -> list[Line]:
    """Texts from the command line, named 0001 and on."""
    return [Line(f"{number:04d}", text, f"text {text!r}") for number, text in enumerate(texts, start=1)]


def read_lines(handle: Iterable[str], source: str) -> Iterator[Line]:
    """``text`` or ``id|text``, one utterance a line; empty lines are passed over.

    A line without an id is named by its number, so that its name depends on no other line.

    Raises:
        InputError: an id that cannot name a file or stands twice, or a line without text; with its place.
    """
    seen: dict[str, int] = {}
    try:
        for number, line in enumerate(handle, start=1):
            line = line.strip("\ufeff \t\r\n")
            if not line:
                continue
            where = f"{source}:{number}"
            name, bar, text = (part.strip() for part in line.partition("|"))
            if not bar:
                name, text = f"{number:04d}", name
            elif len(name.encode()) > _LONGEST_NAME:
                raise InputError(
                    f"{where}: the name {name[:20]}... has {len(name.encode())} bytes, more than the "
                    f"{_LONGEST_NAME} that a file's may have; use a shorter id"
                )
            elif not _NAME.fullmatch(name):
                raise InputError(
                    f"{where}: {name!r} cannot name a file; use letters, digits, '_', '-' and '.', or no '|'"
                )
            if name in seen:
                raise InputError(f"{where}: the name {name!r} is taken by line {seen[name]}; use another id")
            seen[name] = number
            yield Line(name, text, where)
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 text ({error}); convert it") from error


def read_file(path: Path) -> list[Line]:
    """:func:`read_lines` of a file; raises InputError also when it cannot be opened or holds nothing."""
    try:
        with path.open(encoding="utf-8") as handle:
            lines = list(read_lines(handle, str(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if not lines:
        raise InputError(f"{path}: holds no text; write one utterance a line")
    return lines


def write_speech(
    voice: Voice, lines: Sequence[Line], output: Path, speaker: str | None, vocoder: Vocoder
) -> list[dict[str, Any]]:
    """Speak ``lines`` into ``output/NAME.wav``.

    Every text is checked before the first file is written. ``output/speech.json`` names the files, the texts,
    the vocoder and the mel contract.

    Raises:
        InputError: an unknown symbol, with its place, or an unknown speaker.
    """
    check(voice, lines, speaker)
    output_folder(output)
    rate = voice.contract.sample_rate
    entries = []
    spoken = _speak(voice, lines, speaker, vocoder)
    if len(lines) > 1:
        spoken = track(spoken, "speaking", total=len(lines))
    for line, speech in zip(lines, spoken, strict=True):
        path = output / f"{line.name}.wav"
        write_wav(path, speech.wave, rate)
        _note_cut(voice, line, speech)
        entries.append(
            {
                "file": str(path),
                "text": speech.text,
                "seconds": len(speech.wave) / rate,
                "stopped": speech.stopped,
            }
        )
    with atomic_write(output / "speech.json") as handle:
        record = {
            "mel_contract": voice.contract.to_dict(),
            "vocoder": vocoder.name,
            "speaker": speaker or voice.speakers[0],
            "utterances": entries,
        }
        handle.write(json.dumps(record, indent=1, ensure_ascii=False).encode())
    return entries


def stream_speech(
    voice: Voice, lines: Iterable[Line], out: IO[bytes], speaker: str | None, vocoder: Vocoder, *, raw: bool
) -> None:
    """Write 16-bit little-endian mono samples, each utterance as soon as it is spoken.

    Args:
        voice: who speaks.
        lines: may be read from a pipe; each is checked when its turn comes.
        out: where to.
        speaker: by name; the voice's first when None.
        vocoder: for the voice's contract.
        raw: samples alone; else a wav header comes first, with the greatest length there is, as for any
            stream whose end is not known.

    Raises:
        InputError: an unknown symbol, with its place, or an unknown speaker.
        BrokenPipeError: nobody reads any more.
    """
    if not raw:
        out.write(stream_header(voice.contract.sample_rate))
    for line in lines:
        check(voice, [line], speaker)
        for speech in _speak(voice, [line], speaker, vocoder):
            out.write(pcm16(speech.wave).astype("<i2").tobytes())
            out.flush()
            _note_cut(voice, line, speech)


def check(voice: Voice, lines: Sequence[Line], speaker: str | None) -> None:
    """Raise InputError where a text cannot be read (with its place) or the speaker is unknown."""
    if speaker is not None:
        voice.speaker_number(speaker)
    for line in lines:
        voice.encode(line.text, line.where)


def stream_header(sample_rate: int) -> bytes:
    """A 44-byte wav header (16-bit mono PCM) for a length that is not known yet."""
    return b"".join(
        (
            struct.pack("<4sI4s", b"RIFF", _UNKNOWN_LENGTH, b"WAVE"),
            struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16),
            struct.pack("<4sI", b"data", _UNKNOWN_LENGTH),
        )
    )


def _speak(voice: Voice, lines: Sequence[Line], speaker: str | None, vocoder: Vocoder) -> Iterator[Speech]:
    for start in range(0, len(lines), BATCH):
        texts = [line.text for line in lines[start : start + BATCH]]
        speakers = None if speaker is None else [speaker] * len(texts)
        yield from voice.speak(texts, speakers, batch_size=BATCH, vocoder=vocoder)


def _note_cut(voice: Voice, line: Line, speech: Speech) -> None:
    if not speech.stopped:
        console.print(
            f"{line.where}: the stop token did not fire, cut after {voice.max_frames} frames", markup=False
        )
