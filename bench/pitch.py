"""How much higher a voice is heard to speak where ``--pitch`` asks for it; writes bench/results/pitch.json.

Sentences of the test split, through Griffin-Lim, and the pitch of the sound as `prepare --pitch` finds it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from ttsfast.benchmarks import machine
from ttsfast.benchmarks.records import write_record
from ttsfast.data.features.tracks import pitch
from ttsfast.data.store.store import Store
from ttsfast.data.store.texts import reference_texts
from ttsfast.devices import torch_threads
from ttsfast.models.interface import Delivery
from ttsfast.models.voice import Voice

RECORD = Path(__file__).parent / "results" / "pitch.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="prepared with --pitch")
    parser.add_argument("run", type=Path, help="trained with model.pitch=true")
    parser.add_argument("--corpus", type=Path, required=True, help="that the store was prepared from")
    parser.add_argument("--sentences", type=int, default=10)
    parser.add_argument("--semitones", type=float, nargs="+", default=[-4.0, 4.0])
    parser.add_argument("--output", type=Path, default=RECORD)
    chosen = parser.parse_args()
    store, voice = Store.open(chosen.store), Voice.load(chosen.run)
    indices = [int(i) for i in store.indices("test")[: chosen.sentences]]
    written = reference_texts(store, indices, chosen.corpus)
    texts = [written[store.entries[i].id] for i in indices]
    with torch_threads(1):
        heard = {s: tracks(voice, texts, s) for s in (0.0, *chosen.semitones)}
        usual = [middle(track) for track in heard[0.0]]
        record = {
            "machine": machine.describe(torch.device("cpu")),
            "sentences": len(texts),
            "recorded_hertz": float(np.median([middle(store.tracks_of(i)["pitch"]) for i in indices])),
            "spoken_hertz": float(np.median(usual)),
            "raised_semitones": {
                f"{asked:+g}": float(
                    np.median(12 * np.log2([middle(t) / u for t, u in zip(heard[asked], usual, strict=True)]))
                )
                for asked in chosen.semitones
            },
        }
    write_record(chosen.output, record)
    print(json.dumps({k: v for k, v in record.items() if k != "machine"}, indent=1))


def tracks(voice: Voice, texts: list[str], semitones: float) -> list[np.ndarray]:
    """Of each text spoken, Hz."""
    delivery = Delivery(pitch=semitones)
    return [
        pitch(np.asarray(speech.wave, np.float32), voice.contract)
        for speech in voice.speak(texts, delivery=delivery)
    ]


def middle(track: np.ndarray) -> float:
    """The median of what is voiced, Hz; NaN where nothing is."""
    voiced = track[track > 0]
    return float(np.median(voiced)) if len(voiced) else float("nan")


if __name__ == "__main__":
    main()
