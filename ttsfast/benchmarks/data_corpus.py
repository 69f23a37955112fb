"""Synthetic corpora for the data benchmarks: noise as long as speech, with texts to match."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from ttsfast.data.prepare import PrepareOptions, prepare
from ttsfast.data.store import Store

RATE = 22050
WORDS = ("rain", "falls", "on", "the", "roof", "and", "nobody", "hears", "it", "until", "morning", "comes")


def make_store(folder: Path, utterances: int, seconds: tuple[float, float], seed: int = 0) -> Store:
    """A store of recordings whose lengths are normal about the middle of ``seconds`` and within it; made by
    the package's own preparation, from wav files that are deleted afterwards.
    """
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    low, high = seconds
    lines = []
    for number in range(utterances):
        length = float(np.clip(draw.normal((low + high) / 2, (high - low) / 5), low, high))
        wave = 0.1 * draw.standard_normal(int(length * RATE), dtype=np.float32)
        soundfile.write(corpus / f"{number}.wav", wave, RATE)
        words = draw.choice(WORDS, size=max(2, round(2.7 * length)))
        lines.append(json.dumps({"audio": f"{number}.wav", "id": f"u{number}", "text": " ".join(words)}))
    (corpus / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    prepare(corpus, folder / "store", PrepareOptions())
    for path in corpus.glob("*.wav"):
        path.unlink()
    return Store.open(folder / "store")
