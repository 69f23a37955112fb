"""Does a voice leave out or repeat words? python bench/words_missing.py STORE RUN [RUN ...] --asr MODEL

Held-out sentences are spoken one by one, and one sentence five times as long as any that was trained on, in
one go. Whisper listens to them, and to copies (the recordings' own log-mels made sound again, joined for the
long sentence); words put in place of others, left out and added are counted. Needs the extra ``asr``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.data.store.store import Store
from ttsfast.data.store.texts import reference_texts
from ttsfast.evaluation.speech_recognition import Recogniser
from ttsfast.models.voice import Voice
from ttsfast.synthesis.vocoder import load_vocoder

TIMES = 5
"""the longest text of training"""


def compare(reference: str, heard: str) -> dict[str, Any]:
    """Words to be said, and what became of them."""
    import jiwer

    found = jiwer.process_words(reference, heard)
    return {
        "words": len(reference.split()),
        "replaced": found.substitutions,
        "missing": found.deletions,
        "added": found.insertions,
    }


def rates(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares of all words, and the worst sentence's share of missing ones."""
    words = sum(row["words"] for row in rows)
    return {
        "sentences": len(rows),
        "words": words,
        **{kind: sum(row[kind] for row in rows) / words for kind in ("replaced", "missing", "added")},
        "most_missing_of_a_sentence": max(row["missing"] / row["words"] for row in rows),
    }


def main() -> None:
    """Speak, listen, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("run", type=Path, nargs="+")
    parser.add_argument("--asr", required=True, help="a Whisper model for faster-whisper")
    parser.add_argument("--sentences", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path("bench/results/words-missing.json"))
    given = parser.parse_args()

    store = Store.open(given.store)
    recogniser = Recogniser(given.asr, store.frontend.language)
    vocoder = load_vocoder(None, store.manifest.contract)
    everything = [int(index) for index in store.indices("test")]
    texts = reference_texts(store, everything, Path(store.manifest.corpus))
    said = {index: texts[store.entries.id[index]] for index in everything}
    chosen = everything[: given.sentences]
    longest = int(store.text_lengths[store.indices("train")].max())
    long = everything[:1]
    while store.text_lengths[long].sum() < TIMES * longest:
        long.append(everything[len(long)])
    # One sentence: a full stop within would be an end to hear.
    long_text = ", ".join(said[index].rstrip(" .!?;,") for index in long) + "."

    def listen(wave: np.ndarray, text: str) -> dict[str, Any]:
        heard = recogniser.normalise(recogniser(wave, store.manifest.contract.sample_rate))
        return compare(recogniser.normalise(text), heard)

    copies = {index: vocoder(store[index].mel * store.mel_std + store.mel_mean) for index in {*chosen, *long}}
    record: dict[str, Any] = {
        "machine": describe(torch.device("cpu")),
        "arguments": {"asr": Path(given.asr).name, "sentences": given.sentences},
        "longest_text_of_training": longest,
        "copies": {
            "sentences": rates([listen(copies[index], said[index]) for index in chosen]),
            "long": listen(np.concatenate([copies[index] for index in long]), long_text),
        },
    }
    print(json.dumps(record["copies"]), flush=True)
    for run in given.run:
        voice = Voice.load(run)
        spoken = voice.speak([said[index] for index in chosen], vocoder=vocoder)
        # The limit is for what was trained on; this is longer on purpose.
        patient = replace(voice, max_frames=voice.max_frames * TIMES)
        (one,) = patient.speak([long_text], vocoder=vocoder)
        record[run.name] = {
            "sentences": rates(
                [listen(speech.wave, said[index]) for index, speech in zip(chosen, spoken, strict=True)]
            ),
            "not_read_whole": [speech.fault for speech in (*spoken, one) if speech.fault],
            "long": {
                "symbols": len(one.spoken),
                "seconds": len(one.wave) / store.manifest.contract.sample_rate,
                **listen(one.wave, long_text),
            },
        }
        print(run.name, json.dumps(record[run.name]), flush=True)
    write_record(given.output, record)


if __name__ == "__main__":
    main()
