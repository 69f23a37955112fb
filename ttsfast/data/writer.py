"""From computed log-mels to the shards of a store: statistics, normalisation, checksums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttsfast.data import features
from ttsfast.data.corpora import CorpusItem
from ttsfast.data.features import Chunk, Recording
from ttsfast.data.manifest import Entry
from ttsfast.data.shard import Shard, ShardArrays, offsets, utterance_crc, write_shard
from ttsfast.data.store import STD_FLOOR, normalise
from ttsfast.data.text import Symbols
from ttsfast.errors import InputError
from ttsfast.progress import track

# 32 MB at 80 bins, of which writing holds a few copies in memory.
SHARD_FRAMES = 200_000


@dataclass(frozen=True)
class Item:
    """A usable utterance: what the corpus says of it, and what was found out since."""

    corpus: CorpusItem
    text: str
    """As the frontend left it."""
    audio: str
    """Relative to the corpus folder."""
    split: str
    recording: Recording


def statistics(items: Sequence[Item], chunks: Sequence[Chunk]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (C,) float32 in log units, summed in float64 over the training split only: what is
    held out must not shape what it is measured by. Deviations are at least ``STD_FLOOR``.
    """
    chosen = np.array([item.split == "train" for item in items])
    mean, std = features.combine(features.read_moments(chunks), chosen)
    return mean.astype(np.float32), np.maximum(std, STD_FLOOR).astype(np.float32)


def write_shards(
    folder: Path,
    fingerprint: str,
    items: Sequence[Item],
    chunks: Sequence[Chunk],
    mean: np.ndarray,
    std: np.ndarray,
    symbols: Symbols,
    speakers: Sequence[str],
) -> tuple[list[Entry], list[Shard]]:
    """Write all shards and return what the manifest says of them; items and chunks are in the same order.

    One chunk and one shard are in memory at a time.
    """
    entries: list[Entry] = []
    shards: list[Shard] = []
    remaining = iter(items)
    groups = _groups(chunks)
    for number, group in enumerate(track(groups, "writing shards", total=len(groups))):
        mels: list[np.ndarray] = []
        texts: list[np.ndarray] = []
        members: list[Entry] = []
        for log_mel in (log_mel for chunk in group for log_mel in features.read_chunk(chunk)):
            item = next(remaining)
            mel = normalise(log_mel, mean, std)
            if not np.isfinite(mel).all():
                raise InputError(f"{item.corpus.audio}: its features exceed float16; remove it")
            text = symbols.encode(item.text, f"utterance {item.corpus.id!r}").astype(np.int32)
            members.append(
                Entry(
                    id=item.corpus.id,
                    text=item.text,
                    speaker=speakers.index(item.corpus.speaker),
                    split=item.split,
                    frames=len(mel),
                    symbols=len(text),
                    shard=number,
                    offset=sum(map(len, mels)),
                    text_offset=sum(map(len, texts)),
                    crc32c=utterance_crc(mel, text),
                    truncated=item.corpus.truncated,
                    audio=item.audio,
                    audio_sha256=item.recording.sha256,
                )
            )
            mels.append(mel)
            texts.append(text)
        arrays = ShardArrays(
            mel=np.concatenate(mels),
            mel_offsets=offsets([len(mel) for mel in mels]),
            text=np.concatenate(texts),
            text_offsets=offsets([len(text) for text in texts]),
            speaker=np.array([entry.speaker for entry in members]),
            crc32c=np.array([entry.crc32c for entry in members]),
        )
        path = folder / f"mel-{fingerprint[:12]}-{number:05d}.safetensors"
        shards.append(write_shard(path, arrays, [entry.id for entry in members], fingerprint))
        entries += members
    return entries, shards


def _groups(chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """Chunks whose frames fill a shard."""
    groups: list[list[Chunk]] = [[]]
    for chunk in chunks:
        if groups[-1] and sum(c.frames for c in groups[-1]) + chunk.frames > SHARD_FRAMES:
            groups.append([])
        groups[-1].append(chunk)
    return groups
