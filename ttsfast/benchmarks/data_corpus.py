"""Synthetic corpora for the benchmarks: noise as long as speech, with texts to match."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.data.store.shard import Shard, shard_name
from ttsfast.data.store.store import Store
from ttsfast.data.store.utterance_table import UtteranceTable

RATE = 22050
WORDS = ("rain", "falls", "on", "the", "roof", "and", "nobody", "hears", "it", "until", "morning", "comes")


def like_speech(utterances: int, seed: int = 0) -> np.ndarray:
    """Lengths of 1 to 8 seconds, most of them short."""
    return np.random.default_rng(seed).lognormal(1.3, 0.45, utterances).clip(1.0, 8.0)


def about_the_middle(utterances: int, seconds: tuple[float, float], seed: int = 0) -> np.ndarray:
    """Lengths, normal about the middle of ``seconds`` and within it."""
    low, high = seconds
    return np.random.default_rng(seed).normal((low + high) / 2, (high - low) / 5, utterances).clip(low, high)


def write_corpus(folder: Path, seconds: np.ndarray, seed: int = 0) -> None:
    """A recording of noise for each length, with as many words as speech of that length has."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    lines = []
    for number, length in enumerate(seconds.tolist()):
        wave = 0.1 * draw.standard_normal(int(length * RATE), dtype=np.float32)
        soundfile.write(folder / f"{number}.wav", wave, RATE)
        # A number makes every text its own, so that none is held out together with others.
        text = " ".join([*draw.choice(WORDS, size=max(2, round(2.6 * length))), str(number)])
        lines.append(json.dumps({"audio": f"{number}.wav", "id": f"u{number}", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_store(folder: Path, seconds: np.ndarray, seed: int = 0) -> Store:
    """A store of :func:`write_corpus`, whose recordings are deleted afterwards."""
    corpus = folder / "corpus"
    write_corpus(corpus, seconds, seed)
    prepare(corpus, folder / "store", PrepareOptions())
    for path in corpus.glob("*.wav"):
        path.unlink()
    return Store.open(folder / "store")


def tile_store(store: Store, folder: Path, utterances: int) -> Path:
    """A store of as many utterances or a few more, the given local one over and over: its manifest is as long
    as such a corpus's, and its shards are further names of the same files.
    """
    folder.mkdir()
    manifest, columns = store.manifest, dict(store.entries.columns())
    shards: list[Shard] = []
    parts = []
    for copy in range(-(-utterances // len(store))):
        names = [f"{name}-{copy}" for name in columns["id"]]
        numbers = np.add(columns["shard"], len(shards))
        parts.append(UtteranceTable({**columns, "id": names, "shard": numbers}))
        for shard in manifest.shards:
            name = shard_name(manifest.fingerprint, len(shards))
            os.link(Path(store.path) / shard.name, folder / name)
            shards.append(replace(shard, name=name))
    replace(manifest, shards=tuple(shards), entries=UtteranceTable.join(parts)).write(folder)
    return folder
