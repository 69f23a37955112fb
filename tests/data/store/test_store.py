"""Reading a sound store, and what is said where there is none."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, settings
from small_corpus import CONTRACT, manifest_body, prepare_small, reseal, utterances, write_corpus

from ttsfast.data.corpus.audio import read_audio
from ttsfast.data.features.mel import log_mel
from ttsfast.data.loading.batch import collate
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.store import Store
from ttsfast.data.store.utterance_table import Entry, UtteranceTable
from ttsfast.errors import InputError

fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_holds_what_the_corpus_holds(long_corpus: Path, pristine: Path) -> None:
    """Against a computation of its own, in float64."""
    store = Store.open(pristine)
    lines = [json.loads(line) for line in (long_corpus / "metadata.jsonl").read_text().splitlines()]
    assert [entry.id for entry in store.entries] == [line["id"] for line in lines]
    mels = [
        log_mel(read_audio(long_corpus / line["audio"], 8000), CONTRACT).astype(np.float64) for line in lines
    ]
    train = store.indices("train")
    assert 0 < len(train) < len(store)
    frames = np.concatenate([mels[i] for i in train])
    np.testing.assert_allclose(store.mel_mean, frames.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(store.mel_std, frames.std(axis=0), rtol=1e-6)
    assert np.abs(np.concatenate(mels).mean(axis=0) - store.mel_mean).max() > 1e-4
    for index, line in enumerate(lines):
        utterance = store[index]
        expected = (mels[index] - store.mel_mean) / store.mel_std
        np.testing.assert_allclose(utterance.mel.astype(np.float64), expected, atol=4e-3, rtol=1e-3)
        assert utterance.mel.dtype == np.float16
        assert store.symbols.decode(utterance.text) == line["text"] == store.entries[index].text
        assert utterance.text.dtype == np.int64
        assert store.speakers[utterance.speaker] == line["speaker"]
        assert utterance.truncated is line["truncated"]
        assert store.entries[index].audio == line["audio"]
        assert (store.frames[index], store.text_lengths[index]) == (len(mels[index]), len(line["text"]))
    np.testing.assert_allclose(store.silence, (np.log(1e-5) - store.mel_mean) / store.mel_std, rtol=2e-3)
    assert sorted([*train, *store.indices("validation")]) == list(range(len(store)))
    assert store.contract == CONTRACT


def test_digital_silence_is_the_pad_value(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 6)
    soundfile.write(corpus / "u000.wav", np.zeros(4000, np.float32), 8000)
    store_folder = tmp_path / "store"
    prepare_small(corpus, store_folder)
    store = Store.open(store_folder)
    silent = store[0].mel.astype(np.float32)
    np.testing.assert_array_equal(silent, np.broadcast_to(store.silence, silent.shape))
    assert not (store.silence == 0).any()


def test_loaded_mapped_and_unverified_are_the_same(pristine: Path) -> None:
    mapped = utterances(Store.open(pristine))
    assert mapped == utterances(Store.open(pristine, memory_map=False))
    assert mapped == utterances(Store.open(pristine, verify=False))
    assert mapped == utterances(Store.open(str(pristine), memory_map=False, verify=False))


def test_features_cannot_be_written_through(pristine: Path) -> None:
    for memory_map in (True, False):
        with pytest.raises(ValueError, match="read-only"):
            Store.open(pristine, memory_map=memory_map)[0].mel[0, 0] = 1


def test_indexing(pristine: Path) -> None:
    store = Store.open(pristine)
    assert store[-1].id == store[len(store) - 1].id
    assert [entry.id for entry in store.entries[3:5]] == ["u003", "u004"]
    for outside in (len(store), -len(store) - 1):
        with pytest.raises(IndexError):
            store[outside]
    with pytest.raises(InputError, match="'held out'"):
        store.indices("held out")


def test_entries_survive_the_round_trip(pristine: Path) -> None:
    entries = read_manifest(pristine).entries
    assert all(isinstance(entry, Entry) for entry in entries)
    again = UtteranceTable.of(list(entries))
    assert list(again) == list(entries)
    assert again is not entries


def test_goes_to_another_process(pristine: Path) -> None:
    store = Store.open(pristine, verify=False)
    copied = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 500
    assert utterances(copied) == utterances(store)


def test_serves_as_a_dataset(pristine: Path) -> None:
    store = Store.open(pristine)
    loader = torch.utils.data.DataLoader(store, batch_size=8, collate_fn=collate)  # type: ignore[arg-type]
    assert [name for batch in loader for name in batch.ids] == store.entries.id


def test_no_store(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="no complete store; run `ttsfast prepare`"):
        Store.open(tmp_path / "nothing")
    (folder / NAME).unlink()
    with pytest.raises(InputError, match="no complete store"):
        Store.open(folder)
    (folder / NAME).mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        Store.open(folder)
    with pytest.raises(InputError, match="features is 'other'"):
        Store.open(prepare_again(tmp_path), features="other")


def prepare_again(tmp_path: Path) -> Path:
    return prepare_small(write_corpus(tmp_path / "again", 4), tmp_path / "again-store").store


def test_on_the_fly_gives_the_stored_bytes(long_corpus: Path, pristine: Path, tmp_path: Path) -> None:
    stored = utterances(Store.open(pristine))
    assert stored == utterances(Store.open(pristine, features="on_the_fly"))
    moved = Path(shutil.copytree(long_corpus, tmp_path / "moved"))
    assert stored == utterances(Store.open(pristine, features="on_the_fly", corpus=moved))


def test_on_the_fly_says_what_is_missing(long_corpus: Path, pristine: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="preprocessing_mode=precompute"):
        Store.open(pristine, features="on_the_fly", corpus=tmp_path / "nowhere")
    moved = Path(shutil.copytree(long_corpus, tmp_path / "moved"))
    store = Store.open(pristine, features="on_the_fly", corpus=moved)
    (moved / "u004.wav").unlink()
    with pytest.raises(InputError, match=r"u004\.wav: no such file"):
        store[4]
    shutil.copy(moved / "u007.wav", moved / "u008.wav")
    with pytest.raises(InputError, match=r"u008\.wav: gives .* prepare again"):
        store[8]


def test_on_the_fly_stays_in_the_corpus(pristine: Path, folder: Path, long_corpus: Path) -> None:
    body = manifest_body(folder)
    body["entries"]["audio"][0] = "../outside.wav"
    reseal(folder, body)
    with pytest.raises(InputError, match="leaves"):
        Store.open(folder, features="on_the_fly")[0]
