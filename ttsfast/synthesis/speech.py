"""``ttsfast synth``: texts to wav files with their mel contract beside them, or to a stream of samples."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ttsfast.data.corpus.audio import pcm16, write_wav
from ttsfast.data.corpus.text import describe
from ttsfast.errors import InputError, SpeechError
from ttsfast.files import atomic_write, check_output_file, output_folder
from ttsfast.progress import console, track
from ttsfast.synthesis.lines import Line
from ttsfast.synthesis.reader import Reader, Utterance

_UNKNOWN_LENGTH = 0xFFFFFFFF
_RECORD = "speech.json"
OTHER_SOUNDS = frozenset((".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wma"))
"""Endings of what is no folder, and no wav file either."""


def write_speech(
    reader: Reader, lines: Sequence[Line], output: Path, *, overwrite: bool = False
) -> list[dict[str, Any]]:
    """Speak ``lines`` into ``output/NAME.wav``, or all into one file where ``output`` ends in ``.wav``.

    Every text is checked before the first file is written. ``output/speech.json`` (for ``x.wav``,
    ``x.json``) names the files, the texts with their sentences, the vocoder and the mel contract. What was
    not read whole is not written; its entry has no file and says why in ``fault``.

    Raises:
        InputError: no text, an unknown symbol, with its place, or an unknown speaker; a file that is there
            already and is not to be overwritten, or one of another kind than wav.
    """
    if not lines:
        raise InputError("there is nothing to say: give texts, or a file that holds some")
    check(reader, lines)
    if output.suffix.lower() in OTHER_SOUNDS:
        raise InputError(f"{output}: only wav files are written; name it {output.stem}.wav and convert that")
    single = output.suffix.lower() == ".wav"
    record = output.with_suffix(".json") if single else output / _RECORD
    paths = [output if single else output / f"{line.name}.wav" for line in lines]
    if taken := [path for path in (record, *paths) if path.exists() and not overwrite]:
        raise InputError(f"{taken[0]}: is there already; choose another --output, or --overwrite it")
    output_folder(output.parent if single else output)
    if single:
        check_output_file(output)
    entries: list[dict[str, Any]] = []
    waves: list[np.ndarray] = []
    spoken: Iterable[Utterance] = reader.speak(lines)
    if len(lines) > 1:
        spoken = track(spoken, "speaking", total=len(lines))
    for path, utterance in zip(paths, spoken, strict=True):
        _note(utterance)
        whole = not utterance.fault
        entries.append({"file": str(path) if whole else None, **_entry(utterance, reader)})
        if single and whole:
            waves += [reader.silence, utterance.wave] if waves else [utterance.wave]
        elif whole:
            write_wav(path, utterance.wave, reader.sample_rate)
        else:
            # An older one of this name would pass for it.
            path.unlink(missing_ok=True)
    if waves:
        write_wav(output, np.concatenate(waves), reader.sample_rate)
    values = {
        "mel_contract": reader.voice.contract.to_dict(),
        "vocoder": reader.vocoder.name,
        "speaker": reader.speaker or reader.voice.speakers[0],
        "utterances": entries,
    }
    with atomic_write(record) as handle:
        handle.write(json.dumps(values, indent=1, ensure_ascii=False).encode())
    return entries


def stream_speech(reader: Reader, lines: Iterable[Line], out: IO[bytes], *, raw: bool) -> None:
    """Write 16-bit little-endian mono samples, each sentence as soon as it is spoken, with pauses between.

    Args:
        reader: who speaks.
        lines: may be read from a pipe; each is checked when its turn comes.
        out: where to.
        raw: samples alone; else a wav header comes first, with the greatest length there is, as for any
            stream whose end is not known.

    Raises:
        InputError: an unknown symbol, with its place, or an unknown speaker.
        SpeechError: at the end, when a sentence was not read whole and so was left out.
        BrokenPipeError: nobody reads any more.
    """
    if not raw:
        out.write(stream_header(reader.sample_rate))
    unread = []
    begun = False
    for line in lines:
        check(reader, [line])
        for speech in reader.stream(line):
            one = Utterance(line, (speech,), reader.silence)
            _note(one)
            if speech.fault:
                unread.append(line.name)
                continue
            samples = [reader.silence, speech.wave] if begun else [speech.wave]
            begun = True
            out.write(pcm16(np.concatenate(samples)).astype("<i2").tobytes())
            out.flush()
    require_whole(unread)


def check(reader: Reader, lines: Sequence[Line]) -> None:
    """Raise InputError as the reader does, and say which symbols are left out as unknown."""
    reader.check(lines)
    for line in lines:
        if left_out := reader.skipped(line):
            console.print(
                f"{line.where}: left out, unknown: {', '.join(map(describe, left_out))}", markup=False
            )


def require_whole(unread: Sequence[str]) -> None:
    """Raise SpeechError when there are utterances, given by their names, that were not read whole."""
    if unread:
        more = f" and {len(unread) - 10} more" if len(unread) > 10 else ""
        raise SpeechError(
            f"not read whole in two tries, and left out: {', '.join(unread[:10])}{more}; train the voice for "
            "longer, or write shorter sentences"
        )


def stream_header(sample_rate: int) -> bytes:
    """A 44-byte wav header (16-bit mono PCM) for a length that is not known yet."""
    return b"".join(
        (
            struct.pack("<4sI4s", b"RIFF", _UNKNOWN_LENGTH, b"WAVE"),
            struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16),
            struct.pack("<4sI", b"data", _UNKNOWN_LENGTH),
        )
    )


def _entry(utterance: Utterance, reader: Reader) -> dict[str, Any]:
    rate = reader.sample_rate
    starts = utterance.starts
    return {
        "id": utterance.line.name,
        "text": utterance.line.text,
        "seconds": len(utterance.wave) / rate,
        "stopped": all(speech.stopped for speech in utterance.sentences),
        "read": utterance.read,
        "fault": utterance.fault,
        "sentences": [
            {
                "text": speech.text,
                "spoken": speech.spoken,
                "start": start / rate,
                "seconds": len(speech.wave) / rate,
                "read": speech.read,
                "stopped": speech.stopped,
            }
            for start, speech in zip(starts, utterance.sentences, strict=True)
        ],
    }


def _note(utterance: Utterance) -> None:
    """Say what the ear may not notice."""
    if utterance.fault:
        console.print(f"{utterance.line.where}: not spoken: {utterance.fault}", markup=False)
        return
    again = sum(not speech.stopped and speech.read is not None for speech in utterance.sentences)
    if again:
        console.print(
            f"{utterance.line.where}: {again} of {len(utterance.sentences)} sentences spoken twice, as the "
            "stop did not fire at their end; the second time they ended where attention had read them",
            markup=False,
        )
