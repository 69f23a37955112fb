"""The parser of shard headers: whatever a header says, one line, or arrays that lie inside the file."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_corpus import JUNK, places, put

from ttsfast.data.prepare.rebuild import rebuild
from ttsfast.data.store.checksums import crc32c
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.shard import DTYPES, Shard
from ttsfast.data.store.shard_file import ShardFile, write_shard
from ttsfast.data.store.shard_header import parse_header
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError

fuzz = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def shard(tiny_store: Path) -> tuple[Shard, bytes]:
    found = read_manifest(tiny_store).shards[0]
    return found, (tiny_store / found.name).read_bytes()


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def opened(content: bytes, shard: Shard) -> ShardFile:
    """With a manifest that vouches for the header."""
    head = 8 + int.from_bytes(content[:8], "little")
    lie = replace(shard, size=len(content), header_crc32c=crc32c(content[:head]))
    return ShardFile("shard", lie, 12, content=content)


def test_what_was_written_is_read(shard: tuple[Shard, bytes]) -> None:
    file = opened(joined(*split(shard[1])), shard[0])
    assert file.arrays().mel.shape == (shard[0].frames, 12)
    assert file.metadata["entries"]["id"][0] == "u000"
    begin, rows = file.extent("mel")
    assert rows == shard[0].frames
    raw = np.frombuffer(joined(*split(shard[1])), np.uint8)[begin : begin + rows * 24]
    assert raw.tobytes() == file.arrays().mel.tobytes()


@given(data=st.data())
@fuzz
def test_junk_in_a_header_is_refused_or_harmless(shard: tuple[Shard, bytes], data: Any) -> None:
    header, body = split(shard[1])
    put(header, data.draw(st.sampled_from(places(header))), data.draw(JUNK))
    try:
        file = opened(joined(header, body), shard[0])
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert {name: array.dtype for name, array in file.arrays().named().items()} == DTYPES


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
@settings(fuzz, max_examples=500)
def test_arbitrary_bytes_are_no_header(content: bytes, length: int) -> None:
    for header in (
        content,
        length.to_bytes(8, "little") + content,
        len(content).to_bytes(8, "little") + content,
    ):
        with pytest.raises(InputError):
            parse_header(header, len(header) + 100)


def move(name: str, begin: int, end: int) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        offsets = header[name]["data_offsets"]
        header[name]["data_offsets"] = [offsets[0] + begin, offsets[1] + end]

    return change


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "overlap": move("speaker", -4, -4),
    "beyond the end": move("mel", 2**40, 2**40),
    "before the start": move("mel_offsets", -8, -8),
    "gap": move("text", 4, 4),
    "longer": move("text", 0, 4),
    "negative shape": lambda header: header["text"].update(shape=[-1]),
    "huge shape": lambda header: header["mel"].update(shape=[2**62, 12]),
    "another type": lambda header: header["mel"].update(dtype="F32"),
    "another rank": lambda header: header["speaker"].update(shape=[8, 1]),
    "no metadata": lambda header: header.pop("__metadata__"),
    "another array": lambda header: header.update(extra=header["text"]),
    "missing array": lambda header: header.pop("crc32c"),
    "metadata is no object": lambda header: header.update(__metadata__={"ttsfast": "[]"}),
    "metadata is no JSON": lambda header: header.update(__metadata__={"ttsfast": "{"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_header_with_a_lie_is_refused(shard: tuple[Shard, bytes], name: str) -> None:
    header, body = split(shard[1])
    CHANGES[name](header)
    with pytest.raises(InputError, match=r"^shard: "):
        _ = opened(joined(header, body), shard[0]).metadata


@given(place=st.integers(0, 2**16), junk=JUNK)
# What JSON of Python can say and a manifest cannot.
@example(place=("store", "options", "max_duration"), junk=float("inf"))
@settings(fuzz, max_examples=60)
def test_junk_in_sealed_metadata_is_refused_or_a_store(
    tiny_store: Path, tmp_path: Path, place: int | tuple[str, ...], junk: Any
) -> None:
    """Nothing but the content itself can tell: a rebuilt manifest must hold, or not be written."""
    copied = Path(shutil.copytree(tiny_store, tmp_path / "store", dirs_exist_ok=True))
    manifest = read_manifest(copied)
    path = copied / manifest.shards[0].name
    file = ShardFile(path, manifest.shards[0], 12)
    metadata = copy.deepcopy({name: value for name, value in file.metadata.items() if name != "sha256"})
    ways = places(metadata)
    put(metadata, place if isinstance(place, tuple) else ways[place % len(ways)], junk)
    try:
        write_shard(path, file.arrays(), metadata)
    except (ValueError, TypeError):
        # Half a surrogate pair, which no file can hold.
        return
    (copied / NAME).unlink()
    try:
        rebuild(copied)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert not (copied / NAME).exists()
    else:
        assert len(Store.open(copied)) == 8
    finally:
        shutil.rmtree(copied)


def test_bytes_that_belong_to_no_array_are_refused(shard: tuple[Shard, bytes]) -> None:
    header, body = split(shard[1])
    for name in DTYPES:
        move(name, 8, 8)(header)
    with pytest.raises(InputError, match="does not follow the array before it"):
        opened(joined(header, bytes(8) + body), shard[0])
