"""From computed log-mels to the shards of a store: statistics, normalisation, checksums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.features.statistics import STD_FLOOR, combine_moments, normalise
from ttsfast.data.prepare import extraction
from ttsfast.data.prepare.extraction import Chunk, Tracks
from ttsfast.data.prepare.survey import SurveyedUtterance
from ttsfast.data.store.folder import remove_leftovers
from ttsfast.data.store.manifest import Manifest, plain_exclusions
from ttsfast.data.store.shard import Shard, ShardArrays, offsets, shard_name, tracks_crc, utterance_crc
from ttsfast.data.store.shard_file import write_shard
from ttsfast.data.store.utterance_table import Entry, UtteranceTable
from ttsfast.errors import InputError
from ttsfast.progress import track

# 32 MB at 80 bins, of which writing holds a few copies in memory.
SHARD_FRAMES = 200_000


def statistics(
    utterances: Sequence[SurveyedUtterance], chunks: Sequence[Chunk]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (C,) float32 in log units, summed in float64 over the training split only: what is
    held out must not shape what it is measured by. Deviations are at least ``STD_FLOOR``.
    """
    chosen = np.array([utterance.split == "train" for utterance in utterances])
    mean, std = combine_moments(extraction.read_moments(chunks), chosen)
    return mean.astype(np.float32), np.maximum(std, STD_FLOOR).astype(np.float32)


def track_statistics(
    utterances: Sequence[SurveyedUtterance], chunks: Sequence[Chunk], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The same of each track: mean and deviation (2,) float32, over the frames that count.

    Raises InputError when none does.
    """
    chosen = np.array([utterance.split == "train" for utterance in utterances])
    found = {}
    for name in names:
        try:
            mean, std = combine_moments(extraction.read_moments(chunks, name), chosen)
        except ValueError as error:
            raise InputError(
                f"no frame of the training split counts for its {name}; prepare without --{name}"
            ) from error
        found[name] = np.array([mean[0], max(std[0], STD_FLOOR)], dtype=np.float32)
    return found


def publish(
    folder: Path, draft: Manifest, utterances: Sequence[SurveyedUtterance], chunks: Sequence[Chunk]
) -> Manifest:
    """Write the shards of ``utterances`` after those that ``draft`` has, and the manifest of all of them.

    All but its shards and entries must be as it is to be published: every shard carries it. ``chunks`` hold
    the log-mels, in the same order. One chunk and one shard are in memory at a time.
    """
    entries, shards = _write_shards(folder, draft, utterances, chunks)
    manifest = replace(
        draft,
        shards=(*draft.shards, *shards),
        entries=UtteranceTable.join([draft.entries, *entries]),
    )
    manifest.write(folder)
    remove_leftovers(folder, manifest)
    return manifest


def _write_shards(
    folder: Path, manifest: Manifest, utterances: Sequence[SurveyedUtterance], chunks: Sequence[Chunk]
) -> tuple[list[UtteranceTable], list[Shard]]:
    entries: list[UtteranceTable] = []
    shards: list[Shard] = []
    sizes = _sizes([utterance.recording.frames for utterance in utterances])
    first = len(manifest.shards)
    ready = _normalised(utterances, chunks, manifest)
    read_from = chunks if manifest.tracks else []
    found = (one for chunk in read_from for one in extraction.read_tracks(chunk, list(manifest.tracks)))
    for number, size in enumerate(track(sizes, "writing shards", total=len(sizes)), start=first):
        beside = _joined(manifest, list(islice(found, size)))
        members, arrays = _gather(islice(ready, size), manifest, number, beside)
        metadata = _shard_metadata(manifest, members, number, first, len(sizes))
        shards.append(write_shard(folder / shard_name(manifest.fingerprint, number), arrays, metadata))
        entries.append(UtteranceTable.of(members))
        # Else it would still be there while the next one is gathered.
        del arrays
    return entries, shards


def _gather(
    ready: Iterable[tuple[SurveyedUtterance, np.ndarray]],
    manifest: Manifest,
    number: int,
    beside: Mapping[str, np.ndarray],
) -> tuple[list[Entry], ShardArrays]:
    """What goes into one shard: its utterances as the manifest has them, and its arrays, of which
    ``beside`` are those of the tracks.
    """
    mels: list[np.ndarray] = []
    texts: list[np.ndarray] = []
    members: list[Entry] = []
    for utterance, mel in ready:
        text = manifest.symbols.encode(utterance.text, f"utterance {utterance.item.id!r}")
        text = text.astype(np.int32)
        place = (number, sum(map(len, mels)), sum(map(len, texts)))
        members.append(_entry(utterance, mel, text, manifest, place))
        mels.append(mel)
        texts.append(text)
    arrays = ShardArrays(
        mel=np.concatenate(mels),
        mel_offsets=offsets([len(mel) for mel in mels]),
        text=np.concatenate(texts),
        text_offsets=offsets([len(text) for text in texts]),
        speaker=np.array([entry.speaker for entry in members]),
        crc32c=np.array([entry.crc32c for entry in members]),
        **beside,
    )
    return members, arrays


def _joined(manifest: Manifest, found: Sequence[Tracks]) -> dict[str, np.ndarray]:
    """The tracks of a shard's utterances, and their checksums, as arrays of the shard."""
    if not found:
        return {}
    arrays = {name: np.concatenate([one[name] for one in found]) for name in manifest.tracks}
    return arrays | {"tracks_crc32c": np.array([tracks_crc(one.values()) for one in found])}


def _sizes(frames: Sequence[int]) -> list[int]:
    """How many utterances go into each shard."""
    sizes, filled = [0], 0
    for count in frames:
        if sizes[-1] and filled + count > SHARD_FRAMES:
            sizes.append(0)
            filled = 0
        sizes[-1] += 1
        filled += count
    return sizes


def _normalised(
    utterances: Sequence[SurveyedUtterance], chunks: Sequence[Chunk], manifest: Manifest
) -> Iterator[tuple[SurveyedUtterance, np.ndarray]]:
    remaining = iter(utterances)
    for chunk in chunks:
        for log_mel in extraction.read_chunk(chunk):
            utterance = next(remaining)
            mel = normalise(log_mel, manifest.mel_mean, manifest.mel_std)
            if not np.isfinite(mel).all():
                raise InputError(f"{utterance.item.audio}: its features exceed float16; remove it")
            yield utterance, mel


def _entry(
    utterance: SurveyedUtterance,
    mel: np.ndarray,
    text: np.ndarray,
    manifest: Manifest,
    place: tuple[int, int, int],
) -> Entry:
    shard, offset, text_offset = place
    return Entry(
        id=utterance.item.id,
        text=utterance.text,
        speaker=manifest.speakers.index(utterance.item.speaker),
        split=utterance.split,
        frames=len(mel),
        symbols=len(text),
        shard=shard,
        offset=offset,
        text_offset=text_offset,
        crc32c=utterance_crc(mel, text),
        truncated=utterance.item.truncated,
        audio=utterance.audio,
        audio_sha256=utterance.recording.sha256,
    )


def _shard_metadata(
    manifest: Manifest, members: Sequence[Entry], number: int, first: int, shards: int
) -> dict[str, Any]:
    """A shard's metadata: with its arrays, all that the manifest says of its utterances and of the store."""
    names = ("id", "text", "split", "truncated", "audio", "audio_sha256")
    return {
        "number": number,
        "first": first,
        "shards": shards,
        "store": manifest.store_metadata(),
        # They may be many, and one shard of those written together suffices.
        "exclusions": plain_exclusions(manifest.exclusions) if number == first else None,
        "entries": {name: [getattr(entry, name) for entry in members] for name in names},
    }
