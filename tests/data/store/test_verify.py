"""Verification finds every kind of damage, names it, and never raises."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_corpus import manifest_body, prepare_small, reseal, write_corpus

from ttsfast.data.prepare import extraction
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.shard import ShardArrays, utterance_crc
from ttsfast.data.store.shard_file import ShardFile, write_shard
from ttsfast.data.store.verify import verify

fuzz = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def pristine(tiny_store: Path) -> Path:
    return tiny_store


def shard_of(folder: Path) -> Path:
    return next(iter(folder.glob("mel-*")))


def rewrite(folder: Path, change: Any, *, checksums: bool = True) -> None:
    """Change a shard's arrays and make every hash fit again: what only a look at the content can find."""
    manifest = read_manifest(folder)
    shard = manifest.shards[0]
    opened = ShardFile(folder / shard.name, shard, manifest.contract.n_mels)
    arrays = {name: array.copy() for name, array in opened.arrays().named().items()}
    change(arrays)
    if checksums:
        for i in range(shard.utterances):
            mel = arrays["mel"][arrays["mel_offsets"][i] : arrays["mel_offsets"][i + 1]]
            text = arrays["text"][arrays["text_offsets"][i] : arrays["text_offsets"][i + 1]]
            arrays["crc32c"][i] = utterance_crc(mel, text)
    metadata = {name: value for name, value in opened.metadata.items() if name != "sha256"}
    written = write_shard(folder / shard.name, ShardArrays(**arrays), metadata)
    body = manifest_body(folder)
    body["shards"][0] = vars(written)
    if checksums:
        body["entries"]["crc32c"] = arrays["crc32c"].tolist()
    reseal(folder, body)


def test_a_sound_store(pristine: Path) -> None:
    for quick in (True, False):
        report = verify(pristine, quick=quick)
        assert report.ok
        assert report.problems == []
        assert report.utterances == 8
        assert report.frames == read_manifest(pristine).entries.frames.sum()
        assert report.bytes == shard_of(pristine).stat().st_size
        assert "sound" in str(report)
        plain = json.loads(json.dumps(report.to_dict()))
        assert plain["ok"] is True
        assert plain["quick"] is quick


@given(data=st.data())
@fuzz
def test_every_flip_in_a_shard_is_found(pristine: Path, tmp_path: Path, data: Any) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "store", dirs_exist_ok=True))
    content = bytearray(shard_of(folder).read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    place = data.draw(st.one_of(st.integers(0, header), st.integers(0, len(content) - 1)))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    shard_of(folder).write_bytes(content)
    report = verify(folder)
    assert not report.ok
    assert all(shard_of(folder).name in problem for problem in report.problems)


@given(data=st.data())
@fuzz
def test_every_truncation_is_found_even_by_a_quick_look(pristine: Path, tmp_path: Path, data: Any) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "store", dirs_exist_ok=True))
    path = data.draw(st.sampled_from([shard_of(folder), folder / NAME]))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    for quick in (True, False):
        report = verify(folder, quick=quick)
        assert not report.ok
        assert path.name in str(report)


def test_every_flip_in_the_manifest_is_found(folder: Path) -> None:
    content = (folder / NAME).read_bytes()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (folder / NAME).write_bytes(damaged)
        assert not verify(folder, quick=True).ok


def test_missing_files_are_findings(folder: Path, tmp_path: Path) -> None:
    shard_of(folder).unlink()
    report = verify(folder, quick=True)
    assert len(report.problems) == 1
    assert "cannot be read" in report.problems[0]
    assert "1 problems" in str(report)
    assert "no complete store" in verify(tmp_path / "nowhere").problems[0]


def the_problem(folder: Path) -> str:
    (problem,) = verify(folder).problems
    return problem


def test_damage_is_named_by_utterance(folder: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["mel"][arrays["mel_offsets"][5] + 1, 3] += 1

    rewrite(folder, change, checksums=False)
    assert "utterance 'u005': the stored bytes do not fit their checksum" in the_problem(folder)
    assert verify(folder, quick=True).ok


def test_nan_is_found_though_every_hash_fits(folder: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["mel"][arrays["mel_offsets"][2], 0] = np.nan

    rewrite(folder, change)
    assert "'u002': holds NaN or Inf" in the_problem(folder)


def test_other_symbols_than_the_text_are_found(folder: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        start = arrays["text_offsets"][4]
        arrays["text"][start : start + 2] = arrays["text"][start : start + 2][::-1]

    rewrite(folder, change)
    assert "'u004': the stored symbols are not those of its text" in the_problem(folder)


def test_a_text_with_an_unknown_symbol_is_found(folder: Path) -> None:
    body = manifest_body(folder)
    body["entries"]["text"][3] = "Ω" + body["entries"]["text"][3][1:]
    reseal(folder, body)
    assert any("'u003'" in problem and "U+03A9" in problem for problem in verify(folder).problems)


@pytest.mark.parametrize(("shift", "scale"), [(0.05, 1.0), (0.0, 1.05)])
def test_other_statistics_are_found(folder: Path, shift: float, scale: float) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["mel"][:, 7] = arrays["mel"][:, 7] * scale + shift

    rewrite(folder, change)
    assert "bin 7" in the_problem(folder)


@pytest.mark.parametrize("other", ["train", "test"])
def test_a_text_in_both_splits_is_found(folder: Path, other: str) -> None:
    body = manifest_body(folder)
    entries = body["entries"]
    train, held = entries["split"].index("train"), entries["split"].index("validation")
    entries["text"][train] = entries["text"][held].replace(" ", ", ", 1)
    entries["split"][train] = other
    reseal(folder, body)
    assert any("in both splits" in problem for problem in verify(folder).problems)


def test_work_of_several_chunks_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "CHUNK", 3)
    prepare_small(write_corpus(tmp_path / "corpus", 11), tmp_path / "store")
    assert verify(tmp_path / "store").ok
