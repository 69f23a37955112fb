"""Is a long text read as well as its sentences? python bench/long_text.py STORE RUN --asr MODEL --output FILE

Sentences of the test split are put together, twenty to a text. A voice reads each text, and each of its
sentences by itself; Whisper listens to both. It listens to copies (the recordings' own log-mels made sound
again), joined with the same pauses, too: the difference there is what long sound costs the listener. Needs
the extra ``asr``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.data.store.store import Store
from ttsfast.data.store.texts import reference_texts
from ttsfast.evaluation import bootstrap
from ttsfast.evaluation.speech_recognition import Heard, Recogniser
from ttsfast.models.voice import Voice
from ttsfast.synthesis.lines import given_lines
from ttsfast.synthesis.reader import Reader
from ttsfast.synthesis.vocoder import load_vocoder

SENTENCES = 20
"""of a long text"""


class Listener:
    """Counts the words that are heard wrong."""

    def __init__(self, recogniser: Recogniser, rate: int) -> None:
        self._recogniser, self._rate = recogniser, rate

    def __call__(self, wave: np.ndarray, text: str) -> Heard:
        return self._recogniser.compare(wave, self._rate, self._recogniser.normalise(text))


def compare(long: Sequence[Heard], short: Sequence[Sequence[Heard]]) -> dict[str, Any]:
    """Word errors of texts and of their sentences, and the interval of the difference over texts."""
    words = [heard.words for heard in long]
    whole = [heard.word_errors for heard in long]
    single = [sum(heard.word_errors for heard in sentences) for sentences in short]
    return {
        "texts": len(long),
        "sentences": sum(map(len, short)),
        "words": sum(words),
        "word_error_of_texts": sum(whole) / sum(words),
        "word_error_of_sentences": sum(single) / sum(words),
        "difference_95": list(bootstrap.difference(whole, single, words)),
    }


def main() -> None:
    """Speak, listen, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--asr", required=True, help="a Whisper model for faster-whisper")
    parser.add_argument("--output", type=Path, default=Path("bench/results/long-text.json"))
    given = parser.parse_args()

    store, voice = Store.open(given.store), Voice.load(given.run)
    vocoder = load_vocoder(None, voice.contract)
    reader = Reader(voice=voice, vocoder=vocoder)
    listen = Listener(Recogniser(given.asr, voice.frontend.language), reader.sample_rate)
    indices = [int(index) for index in store.indices("test")]
    texts = reference_texts(store, indices, Path(store.manifest.corpus))
    # A sentence without an end would run on into the next.
    said = {i: f"{texts[store.entries.id[i]].rstrip(' ,;:')}." for i in indices}
    said = {i: text[:-1] if text[-2] in ".!?" else text for i, text in said.items()}
    groups = [indices[at : at + SENTENCES] for at in range(0, len(indices) - SENTENCES + 1, SENTENCES)]

    found: dict[str, tuple[list[Heard], list[list[Heard]]]] = {"voice": ([], []), "copies": ([], [])}
    faults: list[str] = []
    for group in groups:
        lines = [said[i] for i in group]
        (text,) = reader.speak(given_lines([" ".join(lines)]))
        alone = list(reader.speak(given_lines(lines)))
        faults += [one.fault for one in (text, *alone) if one.fault]
        copies = [vocoder(store[i].mel * voice.mel_std + voice.mel_mean) for i in group]
        joined = np.concatenate([piece for wave in copies for piece in (wave, reader.silence)])
        for name, whole, parts in (
            ("voice", text.wave, [one.wave for one in alone]),
            ("copies", joined, copies),
        ):
            found[name][0].append(listen(whole, " ".join(lines)))
            found[name][1].append([listen(wave, line) for wave, line in zip(parts, lines, strict=True)])
            print(name, json.dumps(compare(*found[name])), flush=True)
    record = {
        "machine": describe(torch.device("cpu")),
        "arguments": {"run": given.run.name, "asr": Path(given.asr).name},
        "not_read_whole": faults,
        **{name: compare(*heard) for name, heard in found.items()},
    }
    write_record(given.output, record)


if __name__ == "__main__":
    main()
