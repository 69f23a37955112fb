"""``ttsfast synth``: texts to wav files, each with the mel contract it was made under beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttsfast.data.audio import write_wav
from ttsfast.errors import InputError
from ttsfast.files import atomic_write, output_folder
from ttsfast.models.voice import Voice
from ttsfast.progress import console
from ttsfast.training.precision import find_device


def read_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 text file that are not empty. Raises InputError when it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def write_speech(
    run: Path, texts: Sequence[str], output: Path, speaker: str | None = None, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Speak ``texts`` with the voice of ``run`` into ``output/0001.wav`` and so on.

    Every text is checked before the first file is written. ``output/speech.json`` names the files, the texts
    and the mel contract.

    Raises:
        InputError: no text, an unknown symbol or speaker, or no voice at ``run``.
    """
    if not texts:
        raise InputError("nothing to say: give texts, or a file with --file")
    output_folder(output)
    voice = Voice.load(run, find_device(device))
    spoken = voice.speak(texts, None if speaker is None else [speaker] * len(texts))
    entries = []
    for number, speech in enumerate(spoken, start=1):
        path = output / f"{number:04d}.wav"
        write_wav(path, speech.wave, voice.contract.sample_rate)
        if not speech.stopped:
            console.print(
                f"{path}: the stop token did not fire, cut after {voice.max_frames} frames", markup=False
            )
        seconds = len(speech.wave) / voice.contract.sample_rate
        entries.append(
            {"file": str(path), "text": speech.text, "seconds": seconds, "stopped": speech.stopped}
        )
    with atomic_write(output / "speech.json") as handle:
        record = {"mel_contract": voice.contract.to_dict(), "utterances": entries}
        handle.write(json.dumps(record, indent=1, ensure_ascii=False).encode())
    return entries
