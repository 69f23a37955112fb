"""A corpus of a few short tones, and the store that is prepared from it, for the tests of the data path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from ttsfast.data.features.contract import MelContract
from ttsfast.data.prepare import extraction, writer
from ttsfast.data.prepare.prepare import PrepareOptions, PrepareReport, prepare
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.store import Store

RATE = 8000
CONTRACT = replace(
    MelContract.preset("librosa-22k"),
    sample_rate=RATE,
    n_fft=256,
    hop_length=64,
    win_length=256,
    n_mels=12,
    fmax=4000.0,
)
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def write_corpus(folder: Path, utterances: int = 20, seed: int = 0) -> Path:
    """JSON lines; two speakers, utterances of 0.1 to 0.6 s, every seventh truncated."""
    # Machines that are lent for their GPU may lack it.
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(utterances):
        generator = np.random.default_rng([seed, number])
        samples = int(generator.uniform(0.1, 0.6) * RATE)
        wave = 0.3 * np.sin(np.arange(samples) * generator.uniform(0.1, 1.5))
        wave += 0.05 * generator.standard_normal(samples)
        soundfile.write(folder / f"u{number:03d}.wav", wave.astype(np.float32), RATE)
        entry = {
            "audio": f"u{number:03d}.wav",
            "id": f"u{number:03d}",
            "text": f"{WORDS[number % 10]} {WORDS[number // 10 % 10]} {WORDS[number * 7 % 10]}.",
            "speaker": ["ann", "bob"][number % 2],
            "truncated": number % 7 == 3,
        }
        lines.append(json.dumps(entry))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def options(**changes: Any) -> PrepareOptions:
    """What the tests prepare with."""
    return PrepareOptions(**({"contract": CONTRACT, "jobs": 1, "validation_fraction": 0.2} | changes))


def prepare_small(corpus: Path, store: Path, **changes: Any) -> PrepareReport:
    """Prepare with :func:`options`."""
    return prepare(corpus, store, options(**changes))


CHUNK, SHARD_FRAMES = 4, 200


def set_small_pieces() -> None:
    """Several chunks and shards from twenty utterances, for the rest of this process."""
    extraction.CHUNK, writer.SHARD_FRAMES = CHUNK, SHARD_FRAMES


def edit(corpus: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the listing's entries."""
    listing = corpus / "metadata.jsonl"
    entries = [json.loads(line) for line in listing.read_text().splitlines()]
    change(entries)
    listing.write_text("\n".join(json.dumps(entry) for entry in entries))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too, by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def reseal(folder: Path, body: dict[str, Any]) -> None:
    """Write ``body`` as a manifest whose own hash is right, whatever it says."""
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)},\n" for k, v in body.items()]
    text = "{\n" + "".join(lines)
    # A lone surrogate can only be written as an escape.
    content = text.encode("utf-8", "backslashreplace")
    seal = f'"manifest_sha256": "{hashlib.sha256(content).hexdigest()}"\n}}\n'
    (folder / NAME).write_bytes(content + seal.encode())


def manifest_body(folder: Path) -> dict[str, Any]:
    """The manifest's plain values, without its seal."""
    body = json.loads((folder / NAME).read_bytes())
    del body["manifest_sha256"]
    return body


def two_shards(corpus: Path, folder: Path) -> Path:
    """A store of two shards, from several chunks each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "CHUNK", 8)
        patch.setattr(writer, "SHARD_FRAMES", 1250)
        prepare_small(corpus, folder)
    assert len(read_manifest(folder).shards) == 2
    return folder


def utterances(store: Store) -> list[tuple[Any, ...]]:
    """All that a store holds, to compare."""
    found = [store[i] for i in range(len(store))]
    return [(u.id, u.text.tolist(), u.mel.tobytes(), u.mel.shape, u.speaker, u.truncated) for u in found]


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 3),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=5),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, inner in items for place in places(inner, (*path, key))]


def put(body: Any, path: tuple[Any, ...], value: Any) -> None:
    """Set the value at one of :func:`places`."""
    for key in path[:-1]:
        body = body[key]
    body[path[-1]] = value
