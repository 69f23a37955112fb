"""Damaged shards: an error that names file and utterance, or the right bytes; never wrong data."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_corpus import CONTRACT, manifest_body, prepare_small, reseal, utterances, write_corpus

from ttsfast.data.prepare import writer
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError

fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def flip(path: Path, place: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


def mel_place(path: Path) -> int:
    """Where a shard's features begin."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return 8 + length + json.loads(data[8 : 8 + length])["mel"]["data_offsets"][0]


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


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads whatever the permissions say")
def test_unreadable_shard(folder: Path) -> None:
    shard = next(iter(sorted(folder.glob("mel-*"))))
    shard.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        Store.open(folder)


def test_symbols_out_of_range_are_refused(folder: Path) -> None:
    """A symbol beyond the table would read outside an embedding."""
    body = manifest_body(folder)
    body["symbols"] = body["symbols"][:5]
    reseal(folder, body)
    with pytest.raises(InputError, match=r"utterance 'u000': a symbol id is not from 1 to 4"):
        Store.open(folder)[0]
