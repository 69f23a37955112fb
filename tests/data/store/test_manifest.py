"""The parser of manifests: whatever is in the file, an error in one line or a store that can be read."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_corpus import (
    CONTRACT,
    JUNK,
    manifest_body,
    places,
    put,
    reseal,
    utterances,
)

from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import _column, _taken_out, parse_manifest, read_manifest
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError

fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
    "endless option": set_field("options", "max_duration", float("1e999")),
    "unspeakable option": set_field("options", "layout", "\ud800"),
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
    "split": set_entry("split", "dev"),
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


@given(st.text(alphabet='0123456789, -.e]"ttru', max_size=30) | st.lists(st.integers(0, 2**70)).map(str))
@settings(max_examples=500, deadline=None)
def test_numbers_are_read_past_json_only_as_json_reads_them(text: str) -> None:
    numbers = text.strip("[]").encode()
    column = _column(numbers)
    if column is None:
        return
    values = [int(number) for number in numbers.decode().split(", ")]
    assert column.tolist() == [min(value, 2**63 - 1) for value in values]


def test_columns_are_taken_out_of_what_a_store_writes(folder: Path) -> None:
    content = (folder / NAME).read_bytes()
    rest, columns = _taken_out(content)
    values = json.loads(content)
    assert list(columns) == [name for name in values["entries"] if type(values["entries"][name][0]) is int]
    assert json.loads(rest)["entries"] == values["entries"] | {key: [] for key in columns}
    for name, column in columns.items():
        assert column.tolist() == values["entries"][name]
