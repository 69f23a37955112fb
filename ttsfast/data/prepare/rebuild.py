"""A manifest from the shards alone.

Every shard carries what the manifest says of its utterances and of the store as a whole, so all of it can be
had again, to the same bytes, as long as every shard is there and sound. Nothing is guessed: a shard that is
missing or damaged is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.prepare.report import PrepareReport, report
from ttsfast.data.store.folder import explained_disk_errors, folder_lock, remove_leftovers
from ttsfast.data.store.manifest import Manifest
from ttsfast.data.store.manifest_checks import manifest_from_dict
from ttsfast.data.store.shard import (
    SHARD_NAME,
    Shard,
    ShardArrays,
    describe_shard,
    shard_name,
    tracks_fit,
    utterance_crc,
)
from ttsfast.data.store.shard_file import ShardFile
from ttsfast.data.store.shard_header import check_seal, parse_header, parse_metadata
from ttsfast.data.store.store import Store, open_all
from ttsfast.errors import InputError
from ttsfast.files import is_folder
from ttsfast.progress import track

_REMEDY = "restore this file from a copy, or prepare the store again with `ttsfast prepare --force`"


@dataclass(frozen=True)
class _SoundShard:
    """A sound shard: what the manifest needs of it."""

    shard: Shard
    metadata: dict[str, Any]
    columns: dict[str, list[Any]]


def rebuild(store_folder: Path | str) -> PrepareReport:
    """Write the manifest of a store anew from its shards, after checking every byte of them.

    Raises InputError when there is no shard, when one is missing or damaged, when shards of several stores
    lie in the folder, and as :func:`ttsfast.data.prepare.prepare.prepare` does for the folder itself.
    """
    folder = Path(store_folder)
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder; give the one that holds the shards")
    with explained_disk_errors(folder), folder_lock(folder):
        names = sorted(path.name for path in folder.iterdir() if SHARD_NAME.fullmatch(path.name))
        if not names:
            raise InputError(f"{folder}: no shard is there to rebuild a manifest from; run `ttsfast prepare`")
        found = {name: _read(folder / name, name) for name in track(names, "reading shards", len(names))}
        manifest = _join(folder, found)
        # What is published can be opened.
        Store(folder, manifest, open_all(folder, manifest), verify=False)
        manifest.write(folder)
        remove_leftovers(folder, manifest)
        return report(folder, manifest)


def _read(path: Path, name: str) -> _SoundShard:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {_REMEDY}") from error
    try:
        head = 8 + int.from_bytes(content[:8], "little")
        places, about = parse_header(content[:head], len(content))
        metadata = parse_metadata(about)
        (frames, bins), (count,), (symbols,) = (places[key][0] for key in ("mel", "crc32c", "text"))
        if not frames or not count or not symbols:
            raise InputError("holds no utterance")
        shard = describe_shard(name, content, count, frames, symbols)
        arrays = ShardFile(path, shard, bins, content=content, remedy=_REMEDY).arrays()
        check_seal(metadata, arrays.named())
        return _SoundShard(shard, metadata, _columns(metadata, arrays))
    except InputError as error:
        text = str(error).removeprefix(f"{path}: ").removesuffix(f"; {_REMEDY}")
        raise InputError(f"{path}: {text}; {_REMEDY}") from error


def _columns(metadata: Mapping[str, Any], arrays: ShardArrays) -> dict[str, list[Any]]:
    """The manifest's columns of these utterances, after checking each one's bytes."""
    mel_offsets, text_offsets = arrays.mel_offsets, arrays.text_offsets
    for ends, total in ((mel_offsets, len(arrays.mel)), (text_offsets, len(arrays.text))):
        if ends[0] != 0 or ends[-1] != total or (np.diff(ends) < 1).any():
            raise InputError("its offsets do not cut its arrays into utterances")
    for index, expected in enumerate(arrays.crc32c.tolist()):
        mel = arrays.mel[mel_offsets[index] : mel_offsets[index + 1]]
        text = arrays.text[text_offsets[index] : text_offsets[index + 1]]
        if utterance_crc(mel, text) != expected:
            raise InputError(f"the bytes of utterance {index} do not fit their checksum")
        if not tracks_fit(arrays, index, slice(mel_offsets[index], mel_offsets[index + 1])):
            raise InputError(f"the tracks of utterance {index} do not fit their checksum")
    columns = metadata.get("entries")
    number = metadata.get("number")
    if type(columns) is not dict or type(number) is not int:
        raise InputError("its metadata is not that of a shard")
    return columns | {
        "speaker": arrays.speaker.tolist(),
        "frames": np.diff(mel_offsets).tolist(),
        "symbols": np.diff(text_offsets).tolist(),
        "shard": [number] * len(arrays.crc32c),
        "offset": mel_offsets[:-1].tolist(),
        "text_offset": text_offsets[:-1].tolist(),
        "crc32c": arrays.crc32c.tolist(),
    }


def _join(folder: Path, found: Mapping[str, _SoundShard]) -> Manifest:
    """The one manifest that the shards are of."""
    try:
        stores = {_store(one)["fingerprint"]: _store(one) for one in found.values()}
        newest = _newest(folder, stores)
        chain = [
            one
            for fingerprint in (*stores[newest]["history"], newest)
            for one in _generation(folder, found, fingerprint)
        ]
        first = next(one for one in chain if one.metadata["exclusions"] is not None and _of(one) == newest)
        columns: dict[str, list[Any]] = {}
        for one in chain:
            for name, values in one.columns.items():
                columns.setdefault(name, []).extend(values)
        return manifest_from_dict(
            stores[newest]
            | {
                "shards": [vars(one.shard) for one in chain],
                "entries": columns,
                "exclusions": first.metadata["exclusions"],
            }
        )
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: its shards' metadata is not a store's ({error!r}); {_REMEDY}") from error


def _store(one: _SoundShard) -> dict[str, Any]:
    return one.metadata["store"]


def _of(one: _SoundShard) -> str:
    return _store(one)["fingerprint"]


def _newest(folder: Path, stores: Mapping[str, Mapping[str, Any]]) -> str:
    """The fingerprint that is no other's history."""
    ends = [name for name in stores if not any(name in other["history"] for other in stores.values())]
    if len(ends) != 1:
        names = ", ".join(f"mel-{name[:12]}-*" for name in sorted(ends))
        raise InputError(
            f"{folder}: holds shards of {len(ends)} stores ({names}); remove those that are not wanted"
        )
    return ends[0]


def _generation(folder: Path, found: Mapping[str, _SoundShard], fingerprint: str) -> list[_SoundShard]:
    """The shards that were written together, in order."""
    mine = {one.metadata["number"]: one for one in found.values() if _of(one) == fingerprint}
    if not mine:
        raise InputError(f"{folder}: the shards mel-{fingerprint[:12]}-* are missing; {_REMEDY}")
    some = next(iter(mine.values())).metadata
    numbers = range(some["first"], some["first"] + some["shards"])
    for number in numbers:
        name = shard_name(fingerprint, number)
        if number not in mine:
            never = f"; or remove mel-{fingerprint[:12]}-* to go back to the store before that append"
            undo = never if number else ""
            raise InputError(f"{folder / name}: is missing; {_REMEDY}{undo}")
        if mine[number].shard.name != name:
            raise InputError(f"{folder / mine[number].shard.name}: is {name}; give it that name")
    return [mine[number] for number in numbers]
