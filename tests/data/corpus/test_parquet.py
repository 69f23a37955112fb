"""Parquet files as Hugging Face's datasets writes them: rows, splits, and the recordings inside."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from small_corpus import RATE, prepare_small

from ttsfast.data.corpus.listings import read_corpus
from ttsfast.data.corpus.parquet import open_recording, recording_sha256
from ttsfast.data.store.recordings import Recordings
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'parquet')")


def wav(number: int) -> bytes:
    buffer = io.BytesIO()
    samples = 0.3 * np.sin(np.arange(2000 + 100 * number) * 0.1 * (number + 1))
    soundfile.write(buffer, samples, RATE, format="WAV")
    return buffer.getvalue()


def write(path: Path, texts: list[Any], **columns: list[Any]) -> Path:
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    audio = [{"bytes": wav(number), "path": f"{path.stem}-{number}.wav"} for number in range(len(texts))]
    table = pyarrow.table({"audio": audio, "text": texts, **columns})
    parquet.write_table(table, path, row_group_size=2)
    return path


def test_rows_speakers_and_splits(tmp_path: Path) -> None:
    write(tmp_path / "data/train-00000-of-00001.parquet", ["one", "two", None], speaker_id=[7, 8, 7])
    write(tmp_path / "data/test-00000-of-00001.parquet", ["three"], speaker_id=[9])
    corpus = read_corpus(tmp_path)
    assert corpus.layout == "parquet"
    assert [(i.id, i.speaker, i.text, i.split) for i in corpus.items] == [
        ("test-00000-of-00001-0.wav", "9", "three", "test"),
        ("train-00000-of-00001-0.wav", "7", "one", "train"),
        ("train-00000-of-00001-1.wav", "8", "two", "train"),
    ]
    assert next(e.detail for e in corpus.exclusions).startswith(
        "data/train-00000-of-00001.parquet#2: its 'text'"
    )
    with open_recording(corpus.items[2].audio) as file:
        assert file.read() == wav(1)


def test_a_store_is_made_of_them_and_reads_them_again(tmp_path: Path) -> None:
    write(tmp_path / "c/train.parquet", ["one two", "two one", "three five", "four six"])
    report = prepare_small(tmp_path / "c", tmp_path / "store")
    assert report.utterances == 4
    store = Store.open(tmp_path / "store")
    recordings = Recordings(tmp_path / "store", store.manifest, None)
    for index in range(4):
        np.testing.assert_array_equal(recordings.mel(index), store[index].mel)
    assert prepare_small(tmp_path / "c", tmp_path / "store").unchanged


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["one"])
    address = f"{path}#1"
    with pytest.raises(InputError, match=r"a\.parquet#1: has no bytes of a recording"):
        recording_sha256(address)
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as parquet"):
        read_corpus(tmp_path)
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"x": [1]}), path)
    with pytest.raises(InputError, match=r"a\.parquet: has the columns x; needed are"):
        read_corpus(tmp_path)
