"""Reading a store: right bytes, or an error that names what is damaged; never a crash, never wrong data."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_corpus import CONTRACT, manifest_body, prepare_small, reseal, write_corpus

from ttsfast.data import features, writer
from ttsfast.data.audio import read_audio
from ttsfast.data.batch import collate
from ttsfast.data.manifest import NAME, Entries, Entry, parse_manifest, read_manifest
from ttsfast.data.mel import log_mel
from ttsfast.data.store import Store
from ttsfast.errors import InputError

fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 40)


@pytest.fixture(scope="module")
def pristine(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two shards, from several chunks each."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "CHUNK", 8)
        patch.setattr(writer, "SHARD_FRAMES", 1250)
        prepare_small(corpus, folder)
    assert len(read_manifest(folder).shards) == 2
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "store"))


def utterances(store: Store) -> list[tuple[Any, ...]]:
    found = [store[i] for i in range(len(store))]
    return [(u.id, u.text.tolist(), u.mel.tobytes(), u.mel.shape, u.speaker, u.truncated) for u in found]


def flip(path: Path, place: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


def mel_place(path: Path) -> int:
    """Where a shard's features begin."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return 8 + length + json.loads(data[8 : 8 + length])["mel"]["data_offsets"][0]


def test_holds_what_the_corpus_holds(corpus: Path, pristine: Path) -> None:
    """Against a computation of its own, in float64."""
    store = Store.open(pristine)
    lines = [json.loads(line) for line in (corpus / "metadata.jsonl").read_text().splitlines()]
    assert [entry.id for entry in store.entries] == [line["id"] for line in lines]
    mels = [log_mel(read_audio(corpus / line["audio"], 8000), CONTRACT).astype(np.float64) for line in lines]
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
    with pytest.raises(InputError, match="'test'"):
        store.indices("test")


def test_entries_survive_the_round_trip(pristine: Path) -> None:
    entries = read_manifest(pristine).entries
    assert all(isinstance(entry, Entry) for entry in entries)
    again = Entries.of(list(entries))
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


def test_damage_is_named_at_the_first_read(folder: Path) -> None:
    store = Store.open(folder)
    index = 25
    original = store[index].mel.tobytes()
    entry = store.entries[index]
    shard = folder / store.manifest.shards[entry.shard].name
    flip(shard, mel_place(shard) + entry.offset * 2 * CONTRACT.n_mels + 7)
    damaged = Store.open(folder)
    for other in [i for i in range(len(damaged)) if i != index]:
        assert damaged[other].id == damaged.entries[other].id
    for _ in range(2):
        with pytest.raises(InputError) as error:
            damaged[index]
        assert shard.name in str(error.value)
        assert "'u025'" in str(error.value)
        assert "ttsfast prepare --force" in str(error.value)
        assert "\n" not in str(error.value)
    assert Store.open(folder, verify=False)[index].mel.tobytes() != original


def test_shards_of_wrong_size_are_refused_before_they_are_mapped(folder: Path) -> None:
    shard = next(iter(sorted(folder.glob("mel-*"))))
    whole = shard.read_bytes()
    for size in (0, 1, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        shard.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"{shard.name}: {size} bytes, the manifest says {len(whole)}"):
            Store.open(folder)
    shard.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="bytes"):
        Store.open(folder)
    shard.unlink()
    with pytest.raises(InputError, match=f"{shard.name}: cannot be read"):
        Store.open(folder)
    shard.mkdir()
    with pytest.raises(InputError):
        Store.open(folder)


def test_swapped_shards_are_noticed(tmp_path: Path) -> None:
    """Two shards that differ in nothing that a size or a header shows."""
    corpus = write_corpus(tmp_path / "corpus", 64)
    for number in range(32):
        shutil.copy(corpus / f"u{number:03d}.wav", corpus / f"u{number + 32:03d}.wav")
    lines = (corpus / "metadata.jsonl").read_text().splitlines()
    same_length = [json.dumps(json.loads(line) | {"text": f"{i:02d}"}) for i, line in enumerate(lines)]
    (corpus / "metadata.jsonl").write_text("\n".join(same_length))
    folder = tmp_path / "store"
    with pytest.MonkeyPatch.context() as patch:
        samples = [soundfile.info(corpus / f"u{number:03d}.wav").frames for number in range(32)]
        patch.setattr(writer, "SHARD_FRAMES", sum(map(CONTRACT.frames, samples)))
        prepare_small(corpus, folder)
    one, two = sorted(folder.glob("mel-*"))
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)
    with pytest.raises(InputError, match=r"mel-.*(header does not fit|bytes, the manifest says)"):
        Store.open(folder)


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


def test_every_byte_of_the_manifest_counts(pristine: Path) -> None:
    path = pristine / NAME
    whole = path.read_bytes()
    parse_manifest(whole, path)
    for place in range(len(whole)):
        for bit in (1, 0x20, 0x80):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            with pytest.raises(InputError, match=r"manifest\.json: damaged"):
                parse_manifest(bytes(damaged), path)
    for size in range(len(whole)):
        with pytest.raises(InputError, match=r"manifest\.json: damaged"):
            parse_manifest(whole[:size], path)


@given(data=st.data())
@fuzz
def test_flipped_shards_give_an_error_or_the_right_bytes(pristine: Path, tmp_path: Path, data: Any) -> None:
    expected = utterances(Store.open(pristine))
    folder = Path(shutil.copytree(pristine, tmp_path / "store", dirs_exist_ok=True))
    shard = sorted(folder.glob("mel-*"))[data.draw(st.integers(0, 1))]
    header = 8 + int.from_bytes(shard.read_bytes()[:8], "little")
    # As many in the header as in the bulk.
    place = data.draw(st.one_of(st.integers(0, header), st.integers(0, shard.stat().st_size - 1)))
    flip(shard, place, data.draw(st.integers(1, 255)))
    for memory_map in (True, False):
        try:
            read = utterances(Store.open(folder, memory_map=memory_map))
        except InputError as error:
            assert shard.name in str(error)  # noqa: PT017
        else:
            assert read == expected


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
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, inner in items for place in places(inner, (*path, key))]


def put(body: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        body = body[key]
    body[path[-1]] = value


@given(data=st.data())
@settings(fuzz, max_examples=200)
def test_a_sealed_manifest_with_junk_is_refused_or_harmless(
    pristine: Path, tmp_path: Path, data: Any
) -> None:
    """Whatever a field holds: InputError, or a store all of whose utterances can be read."""
    folder = Path(shutil.copytree(pristine, tmp_path / "store", dirs_exist_ok=True))
    body = manifest_body(folder)
    put(body, data.draw(st.sampled_from(places(body))), data.draw(JUNK))
    reseal(folder, body)
    try:
        store = Store.open(folder)
        read = utterances(store)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert [u[3] for u in read] == [(n, CONTRACT.n_mels) for n in store.frames]


def set_entry(column: str, value: Any, index: int = 2) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["entries"][column].__setitem__(index, value)


def set_field(*path: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: put(body, path[:-1], path[-1])


def drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def apply(body: Any) -> None:
        for key in path[:-1]:
            body = body[key]
        del body[path[-1]]

    return apply


MUTATIONS = {
    "format": set_field("format", "other"),
    "version": set_field("version", 1),
    "version type": set_field("version", True),
    "fingerprint": set_field("fingerprint", "12"),
    "no contract": drop("contract"),
    "contract key": drop("contract", "n_fft"),
    "contract bins": set_field("contract", "n_mels", 11),
    "frontend": set_field("frontend", "language", 3),
    "symbols": set_field("symbols", 2, "xx"),
    "duplicate speaker": set_field("speakers", ["ann", "ann"]),
    "fewer speakers": set_field("speakers", ["ann"]),
    "zero deviation": set_field("statistics", "mel_std", 0, 0.0),
    "negative deviation": set_field("statistics", "mel_std", 0, -1.0),
    "huge mean": set_field("statistics", "mel_mean", 0, 1e300),
    "text mean": set_field("statistics", "mel_mean", 0, "0"),
    "tiny deviation": set_field("statistics", "mel_std", 0, 1e-30),
    "missing mean": drop("statistics", "mel_mean", 0),
    "other split's statistics": set_field("statistics", "split", "all"),
    "shard elsewhere": set_field("shards", 0, "name", "../x.safetensors"),
    "absolute shard": set_field("shards", 0, "name", "/etc/passwd"),
    "shard in a folder": set_field("shards", 0, "name", "a/b"),
    "no shard name": set_field("shards", 0, "name", ""),
    "parent as shard": set_field("shards", 0, "name", ".."),
    "shard twice": lambda body: body["shards"].append(copy.deepcopy(body["shards"][0])),
    "shard behind a server's escape": set_field("shards", 0, "name", "%2e%2e%2fx.safetensors"),
    "shard header": set_field("shards", 0, "header_crc32c", 1),
    "history": set_field("history", ["12"]),
    "statistics of more": set_field("statistics", "utterances", 41),
    "statistics of none": set_field("statistics", "utterances", 0),
    "shard size": set_field("shards", 0, "size", -1),
    "shard frames": set_field("shards", 0, "frames", 10**6),
    "shard hash": set_field("shards", 0, "sha256", "zz"),
    "missing shard": drop("shards", 1),
    "unused shard": lambda body: body["shards"].append(body["shards"][0] | {"name": "other"}),
    "short column": drop("entries", "frames", 0),
    "duplicate id": set_entry("id", "u001"),
    "id type": set_entry("id", 7),
    "half a surrogate": set_entry("id", "\ud800"),
    "split": set_entry("split", "test"),
    "negative offset": set_entry("offset", -1),
    "offset beyond": set_entry("offset", 10**9),
    "overlap": set_entry("offset", 0),
    "zero frames": set_entry("frames", 0),
    "more frames": set_entry("frames", 10**6),
    "fractional frames": set_entry("frames", 1.5),
    "huge frames": set_entry("frames", 2**80),
    "no symbols": set_entry("symbols", 0),
    "text offset": set_entry("text_offset", 1),
    "speaker": set_entry("speaker", 2),
    "shard number": set_entry("shard", 2),
    "shard order": set_entry("shard", 1),
    "checksum range": set_entry("crc32c", 2**32),
    "other checksum": set_entry("crc32c", 1),
    "truncated": set_entry("truncated", 1),
    "no entries": lambda body: [column.clear() for column in body["entries"].values()],
    "exclusion": set_field("exclusions", [{"id": "x", "reason": "y"}]),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_sealed_manifest_with_a_lie_is_refused(folder: Path, name: str) -> None:
    body = manifest_body(folder)
    MUTATIONS[name](body)
    assert json.dumps(body) != json.dumps(manifest_body(folder))
    reseal(folder, body)
    with pytest.raises(InputError, match=r"manifest\.json|\.safetensors"):
        Store.open(folder)


@pytest.mark.parametrize(
    "content", ["[]", "{", "{}", '{"a": 1, "a": 2}', "NaN", "[" * 10_000, '{"a": 1e999}']
)
def test_sealed_nonsense_is_refused(tmp_path: Path, content: str) -> None:
    body = content.encode()
    seal = f'"manifest_sha256": "{hashlib.sha256(body).hexdigest()}"\n}}\n'
    (tmp_path / NAME).write_bytes(body + seal.encode())
    with pytest.raises(InputError, match=r"manifest\.json: .*ttsfast prepare --force"):
        read_manifest(tmp_path)


def test_the_seal_of_the_tests_is_the_stores_own(folder: Path) -> None:
    before = (folder / NAME).read_bytes()
    reseal(folder, manifest_body(folder))
    assert (folder / NAME).read_bytes() == before


def test_symbols_out_of_range_are_refused(folder: Path) -> None:
    """A symbol beyond the table would read outside an embedding."""
    body = manifest_body(folder)
    body["symbols"] = body["symbols"][:5]
    reseal(folder, body)
    with pytest.raises(InputError, match=r"utterance 'u000': a symbol id is not from 1 to 4"):
        Store.open(folder)[0]


def test_on_the_fly_gives_the_stored_bytes(corpus: Path, pristine: Path, tmp_path: Path) -> None:
    stored = utterances(Store.open(pristine))
    assert stored == utterances(Store.open(pristine, features="on_the_fly"))
    moved = Path(shutil.copytree(corpus, tmp_path / "moved"))
    assert stored == utterances(Store.open(pristine, features="on_the_fly", corpus=moved))


def test_on_the_fly_says_what_is_missing(corpus: Path, pristine: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="preprocessing_mode=precompute"):
        Store.open(pristine, features="on_the_fly", corpus=tmp_path / "nowhere")
    moved = Path(shutil.copytree(corpus, tmp_path / "moved"))
    store = Store.open(pristine, features="on_the_fly", corpus=moved)
    (moved / "u004.wav").unlink()
    with pytest.raises(InputError, match=r"u004\.wav: no such file"):
        store[4]
    shutil.copy(moved / "u007.wav", moved / "u008.wav")
    with pytest.raises(InputError, match=r"u008\.wav: gives .* prepare again"):
        store[8]


def test_on_the_fly_stays_in_the_corpus(pristine: Path, folder: Path, corpus: Path) -> None:
    body = manifest_body(folder)
    body["entries"]["audio"][0] = "../outside.wav"
    reseal(folder, body)
    with pytest.raises(InputError, match="leaves"):
        Store.open(folder, features="on_the_fly")[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads whatever the permissions say")
def test_unreadable_shard(folder: Path) -> None:
    shard = next(iter(sorted(folder.glob("mel-*"))))
    shard.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        Store.open(folder)
