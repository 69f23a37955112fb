"""Pitch and energy: what the numbers are, where they lie in time, and that a store keeps them as mels.

Mutants that these tests were seen to kill: pitch frames cut without the room that centres them; the path's
steps kept; the last bin's square forgotten in energy; unvoiced frames in the statistics; tracks read from
another utterance's place; their checksum not compared at reading or in verification, or left out of the seal;
options that leave tracks out of the fingerprint; rows of a batch in another order; tracks of one chunk at the
start of all on a device.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_corpus import (
    CONTRACT,
    contents,
    manifest_body,
    options,
    prepare_small,
    reseal,
    write_corpus,
)

from ttsfast import native
from ttsfast.data.features import tracks
from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.mel import log_mel, padded
from ttsfast.data.inspection.summary import inspect
from ttsfast.data.loading.batch import Batch, collate
from ttsfast.data.loading.device_corpus import DeviceCorpus, fits_beside_a_model, needed_bytes
from ttsfast.data.loading.device_loader import DeviceLoader
from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.prepare.append import append
from ttsfast.data.prepare.options import PrepareOptions
from ttsfast.data.prepare.partitions import Partition
from ttsfast.data.prepare.prepare import finalize, prepare_partition
from ttsfast.data.prepare.rebuild import rebuild
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError

PRESETS = [MelContract.preset("librosa-22k"), MelContract.preset("hifigan-22k")]
REFLECTED = replace(PRESETS[0], padding="center_reflect")
BOTH = {"pitch": True, "energy": True}


def voice(hertz: np.ndarray | float, samples: int, rate: int) -> np.ndarray:
    """Three harmonics of a pitch (samples,) or constant, with a little noise."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, samples)) / rate
    noise = 0.002 * np.random.default_rng(0).standard_normal(samples)
    return (0.2 * sum(np.sin(k * phase + k) / k for k in (1, 2, 3)) + noise).astype(np.float32)


@pytest.mark.parametrize("hertz", [80.0, 97.3, 210.0, 333.3, 555.0])
@pytest.mark.parametrize("contract", PRESETS)
def test_the_pitch_of_a_voice_is_within_a_hundredth(contract: MelContract, hertz: float) -> None:
    found = tracks.pitch(voice(hertz, contract.sample_rate // 2, contract.sample_rate), contract)
    # Where frames reach over the ends, periods are cut.
    inner = found[4:-4]
    assert (inner > 0).all()
    assert np.abs(inner / hertz - 1).max() < 0.01
    # Finer than the path, whose steps are of 0.0116.
    assert np.abs(np.median(inner) / hertz - 1) < 0.005
    assert len(np.unique(inner)) > 4


def test_noise_and_silence_are_unvoiced() -> None:
    contract = PRESETS[0]
    noise = 0.1 * np.random.default_rng(1).standard_normal(contract.sample_rate)
    assert (tracks.pitch(noise.astype(np.float32), contract) > 0).mean() < 0.1
    silence = np.zeros(contract.sample_rate // 4, dtype=np.float32)
    assert not tracks.pitch(silence, contract).any()
    assert not tracks.energy(silence, contract).any()


@pytest.mark.parametrize("contract", [*PRESETS, REFLECTED, CONTRACT], ids=lambda c: c.padding)
def test_frames_lie_where_the_mel_s_do(contract: MelContract) -> None:
    rate = contract.sample_rate
    rising = 110 * 2 ** (np.arange(rate) / rate)
    wave = voice(rising, rate, rate)
    found = tracks.pitch(wave, contract)
    centres = np.arange(len(found)) * contract.hop_length + contract.n_fft // 2 - contract.pad
    inner = slice(20, -20)
    late = np.log2(found[inner] / 110) * rate - centres[inner]
    # An octave a second; a frame late would be a hop.
    assert abs(np.median(late)) < 0.5 * contract.hop_length

    click = np.zeros(rate, dtype=np.float32)
    click[rate // 3] = 1.0
    nearest = np.argmin(np.abs(centres - rate // 3))
    energy = tracks.energy(click, contract)
    assert energy.argmax() == nearest == log_mel(click, contract).mean(axis=1).argmax()


@given(samples=st.integers(600, 9000), contract=st.sampled_from([*PRESETS, REFLECTED]))
@settings(max_examples=10, deadline=None)
def test_as_many_frames_as_the_mel(samples: int, contract: MelContract) -> None:
    wave = voice(150.0, samples, contract.sample_rate)
    frames = len(log_mel(wave, contract))
    found = tracks.compute(wave, contract, tracks.NAMES)
    assert {name: (len(track), track.dtype) for name, track in found.items()} == dict.fromkeys(
        tracks.NAMES, (frames, np.dtype(np.float32))
    )


@pytest.mark.parametrize("contract", [*PRESETS, replace(CONTRACT, win_length=200)])
def test_energy_is_the_norm_of_the_magnitudes(contract: MelContract) -> None:
    import librosa

    wave = voice(150.0, 5000, contract.sample_rate) + np.float32(0.1)
    spectrum = librosa.stft(
        padded(wave, contract).astype(np.float64),
        n_fft=contract.n_fft,
        hop_length=contract.hop_length,
        win_length=contract.win_length,
        center=False,
    )
    expected = np.sqrt((np.abs(spectrum) ** 2 + contract.magnitude_epsilon).sum(axis=0))
    np.testing.assert_allclose(tracks.energy(wave, contract), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_corpus(tmp_path_factory.mktemp("corpus"), 12)
    for name in ("u000", "u005"):
        wave = voice(200.0, 3000, CONTRACT.sample_rate)
        wave[1500:] = 0
        soundfile.write(folder / f"{name}.wav", wave, CONTRACT.sample_rate)
    return folder


@pytest.fixture(scope="module")
def pristine(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ttsfast.data.prepare.extraction.CHUNK", 4)
        patch.setattr("ttsfast.data.prepare.writer.SHARD_FRAMES", 200)
        prepare_small(corpus, folder, **BOTH)
    assert len(read_manifest(folder).shards) > 2
    return folder


def read(folder: Path) -> dict[str, tuple[bytes, ...]]:
    store = Store.open(folder)
    found = [store[i] for i in range(len(store))]
    return {u.id: tuple(a.tobytes() for a in (u.mel, u.pitch, u.energy) if a is not None) for u in found}


def test_a_store_gives_what_was_computed(pristine: Path, corpus: Path) -> None:
    store = Store.open(pristine)
    computed = options().features
    kept: dict[str, list[np.ndarray]] = {"pitch": [], "energy": []}
    for index, entry in enumerate(store.entries):
        wave, found = computed.read(corpus / entry.audio), store[index]
        for name, expected in tracks.compute(wave, CONTRACT, tracks.NAMES).items():
            stored = getattr(found, name)
            assert stored.shape == found.mel.shape[:1]
            np.testing.assert_array_equal(stored, expected)
            if entry.split == "train":
                kept[name].append(expected[expected > 0] if name == "pitch" else expected)
    assert any((store[index].pitch == 0).sum() > 10 for index in store.indices("train"))
    for name, values in kept.items():
        whole = np.concatenate(values).astype(np.float64)
        np.testing.assert_allclose(store.tracks[name], [whole.mean(), whole.std()], rtol=1e-5)
    assert verify(pristine).ok
    assert inspect(store).tracks["pitch"] == store.tracks["pitch"].tolist()
    assert dict(inspect(store).rows())["energy"].startswith("mean")


def test_a_store_without_them_knows_nothing_of_them(
    corpus: Path, tmp_path: Path, pristine: Path, small_pieces: None
) -> None:
    prepare_small(corpus, tmp_path / "plain")
    found = contents(tmp_path / "plain")
    assert not any(word in data for data in found.values() for word in (b'"pitch', b'"energy', b"tracks"))
    store = Store.open(tmp_path / "plain")
    assert (store.tracks, store[0].pitch, store[0].energy) == ({}, None, None)
    mels = {name: parts[:1] for name, parts in read(pristine).items()}
    assert read(tmp_path / "plain") == mels
    with pytest.raises(InputError, match="energy was None, is 'L2 norm"):
        prepare_small(corpus, tmp_path / "plain", energy=True)
    prepare_small(corpus, tmp_path / "energy", energy=True)
    held = Store.open(tmp_path / "energy")[0]
    assert held.pitch is None
    assert held.energy is not None
    assert (
        len({read_manifest(f).fingerprint for f in (tmp_path / "plain", tmp_path / "energy", pristine)}) == 3
    )


def test_options_come_back_from_a_store_s_words() -> None:
    for names in ({}, {"pitch": True}, {"energy": True}, BOTH):
        mine = replace(options(**names), test_fraction=0.1)
        assert PrepareOptions.from_dict(mine.to_dict(), jobs=1) == mine
    said = options(**BOTH).to_dict() | {"pitch": "by ear"}
    with pytest.raises(InputError, match="pitch is 'by ear'"):
        PrepareOptions.from_dict(said)


def test_workers_of_their_own_make_the_same_store(
    corpus: Path, tmp_path: Path, pristine: Path, small_pieces: None
) -> None:
    for index in (1, 2):
        prepare_partition(corpus, tmp_path / "parts", options(**BOTH), Partition(index, 2))
    finalize(tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(pristine)


def test_a_rebuilt_manifest_is_the_lost_one(folder: Path) -> None:
    lost = (folder / NAME).read_bytes()
    (folder / NAME).unlink()
    rebuild(folder)
    assert (folder / NAME).read_bytes() == lost


def test_appending_keeps_statistics_and_adds_tracks(tmp_path: Path, small_pieces: None) -> None:
    corpus = write_corpus(tmp_path / "corpus", 8)
    prepare_small(corpus, tmp_path / "store", **BOTH)
    before, old = read(tmp_path / "store"), Store.open(tmp_path / "store").tracks
    append(write_corpus(corpus, 12), tmp_path / "store", jobs=1)
    after, new = read(tmp_path / "store"), Store.open(tmp_path / "store").tracks
    assert verify(tmp_path / "store").ok
    assert len(after) == 12
    assert all(len(parts) == 3 for parts in after.values())
    assert {name: after[name] for name in before} == before
    np.testing.assert_array_equal(new["pitch"], old["pitch"])


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_flip_is_found(pristine: Path, folder: Path, data: Any) -> None:
    sound = contents(pristine)
    name = data.draw(st.sampled_from(sorted(sound)))
    header = 0 if name == NAME else 8 + int.from_bytes(sound[name][:8], "little")
    places = header_of(sound[name])["pitch"]["data_offsets"] if header else [0, len(sound[name])]
    # Of the shards as a whole, and often of the tracks themselves.
    whole = st.integers(0, len(sound[name]) - 1)
    place = data.draw(whole | st.integers(header + places[0], header + places[1] - 1))
    changed = bytearray(sound[name])
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(changed)
    try:
        assert not verify(folder).ok
        expected = read(pristine)
        with pytest.raises(InputError) as caught:
            # Whatever could be read until the error came is right, and the error comes.
            assert read(folder) == expected
        assert "\n" not in str(caught.value)
    finally:
        (folder / name).write_bytes(sound[name])


def header_of(shard: bytes) -> dict[str, Any]:
    header = json.loads(shard[8 : 8 + int.from_bytes(shard[:8], "little")])
    assert isinstance(header, dict)
    return header


def test_every_byte_of_the_tracks_is_looked_at(folder: Path) -> None:
    path = folder / read_manifest(folder).shards[1].name
    sound = path.read_bytes()
    head = 8 + int.from_bytes(sound[:8], "little")
    for name in (*tracks.NAMES, "tracks_crc32c"):
        begin, end = header_of(sound)[name]["data_offsets"]
        for place in {head + begin, head + end - 1, head + (begin + end) // 2}:
            changed = bytearray(sound)
            changed[place] ^= 0x10
            path.write_bytes(changed)
            with pytest.raises(InputError, match="fit"):
                read(folder)
            problems = verify(folder).problems
            # Not only as a whole: what was changed is named.
            assert any(
                "do not fit their checksum" in p or "index do not fit their hash" in p for p in problems
            ), name
            if name == "tracks_crc32c":
                assert verify(folder, quick=True).problems
            (folder / NAME).rename(folder / "aside")
            with pytest.raises(InputError, match="do not fit"):
                rebuild(folder)
            (folder / "aside").rename(folder / NAME)
    path.write_bytes(sound)
    assert verify(folder).ok


@pytest.mark.parametrize("name", tracks.NAMES)
def test_statistics_of_other_tracks_are_found(folder: Path, name: str) -> None:
    body = manifest_body(folder)
    body["statistics"][name][0] *= 1.1
    reseal(folder, body)
    assert any(f"the {name} of the training split has mean" in p for p in verify(folder).problems)
    del body["statistics"][name]
    reseal(folder, body)
    with pytest.raises(InputError, match="holds pitch and energy, the manifest says"):
        Store.open(folder)


@pytest.mark.parametrize("value", [None, [], [1.0], [1.0, 0.0], [1.0, -1.0], ["a", "b"], {"mean": 1}])
def test_statistics_that_are_none_are_refused(folder: Path, value: Any) -> None:
    body = manifest_body(folder)
    body["statistics"]["pitch"] = value
    reseal(folder, body)
    with pytest.raises(InputError, match="pitch"):
        Store.open(folder)


def loaded(store: Store, backend: str, workers: int, **more: Any) -> list[Batch]:
    with MelLoader.open(store, batch_size=3, num_workers=workers, backend=backend, **more) as loader:
        return list(loader)


@pytest.mark.parametrize("in_memory", [False, True])
def test_batches_hold_them_whatever_makes_the_batches(pristine: Path, in_memory: bool) -> None:
    store = Store.open(pristine, memory_map=not in_memory)
    expected = loaded(store, "python", 0)
    ways = [("python", 2)] + [("cpp", n) for n in (0, 1, 2, 4)] * (native.core is not None)
    for backend, workers in ways:
        for batch, truth in zip(loaded(store, backend, workers), expected, strict=True):
            for name, tensor in truth.tensors().items():
                assert torch.equal(tensor, batch.tensors()[name]), (backend, workers, name)
    for batch in expected:
        for row, name in enumerate(batch.ids):
            utterance = store[store.entries.id.index(name)]
            length = int(batch.mel_lengths[row])
            for key, track in (("pitch", batch.pitch), ("energy", batch.energy)):
                assert track is not None
                assert track.shape == batch.mel.shape[:2]
                np.testing.assert_array_equal(track[row, :length].numpy(), getattr(utterance, key))
                assert not track[row, length:].any()
    assert any(batch.pitch is not None and batch.pitch.any() for batch in expected)


def test_a_loader_names_the_utterance_whose_tracks_are_damaged(folder: Path) -> None:
    path = folder / read_manifest(folder).shards[0].name
    content = bytearray(path.read_bytes())
    content[
        8 + int.from_bytes(content[:8], "little") + header_of(bytes(content))["energy"]["data_offsets"][0]
    ] ^= 1
    path.write_bytes(content)
    store = Store.open(folder)
    for backend in ["python"] + ["cpp"] * (native.core is not None):
        with pytest.raises(InputError, match=r"utterance 'u0.*pitch and energy do not fit"):
            loaded(Store.open(folder), backend, 1, frame_budget=10_000)
    assert store[len(store) - 1].energy is not None


def test_collate_of_one_s_own_items() -> None:
    mel = np.zeros((3, 2), np.float32)
    item = {"text": [1], "mel": mel, "pitch": torch.tensor([1.0, 0.0, 2.0]), "energy": [1.0, 2.0, 3.0]}
    batch = collate([item, item | {"mel": mel[:2], "pitch": [5, 6], "energy": np.ones(2)}])
    assert batch.pitch is not None
    assert batch.energy is not None
    assert batch.pitch[:, :4].tolist() == [[1, 0, 2, 0], [5, 6, 0, 0]]
    assert batch.energy.shape == batch.mel.shape[:2]
    assert collate([{"text": [1], "mel": mel}]).pitch is None
    with pytest.raises(InputError, match="'1': no pitch, which others"):
        collate([item, {"text": [1], "mel": mel}])
    with pytest.raises(InputError, match="'0': energy is float64"):
        collate([item | {"energy": np.ones(4)}])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_batches_from_a_corpus_on_a_device_are_the_loader_s(
    pristine: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(pristine)
    options = {"batch_size": 3, "seed": 2, "dtype": dtype, "targets": True}
    for chunk in (1, 1 << 25):
        monkeypatch.setattr("ttsfast.data.loading.device_corpus._CHUNK", chunk)
        with (
            DeviceLoader.open(store, device="cpu", **options) as ours,
            MelLoader.open(store, **options) as theirs,
        ):
            for one, other in zip(ours, theirs, strict=True):
                assert {"pitch", "energy"} <= one.tensors().keys() == other.tensors().keys()
                for name, tensor in other.tensors().items():
                    assert torch.equal(one.tensors()[name].view(torch.uint8), tensor.view(torch.uint8)), name


def test_what_tracks_take_on_a_device_is_counted(
    pristine: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(pristine)
    prepare_small(corpus, tmp_path / "plain")
    plain = Store.open(tmp_path / "plain")
    indices = store.indices("train")
    assert indices.tolist() == plain.indices("train").tolist()
    needed = needed_bytes(store, indices)
    assert needed - needed_bytes(plain, indices) == 2 * 4 * store.frames[indices].sum()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for free, fits in ((4 * needed, True), (4 * needed - 4, False)):
        monkeypatch.setattr("ttsfast.data.loading.device_corpus.free_bytes", lambda device, free=free: free)
        assert fits_beside_a_model(store, indices, torch.device("cuda")) is fits


def test_tracks_of_another_length_stay_off_a_device(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Store.tracks_of

    def cut(self: Store, index: int) -> dict[str, np.ndarray]:
        return right(self, index) | ({"energy": right(self, index)["energy"][1:]} if index == 3 else {})

    monkeypatch.setattr(Store, "tracks_of", cut)
    with pytest.raises(InputError, match="tracks of other lengths"):
        DeviceCorpus(Store.open(pristine), np.arange(5), "cpu")
