"""Synthetic corpora for the data benchmarks: noise as long as speech, with texts to match."""

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
