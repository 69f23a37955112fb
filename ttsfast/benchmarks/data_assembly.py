"""Padding a batch in memory: the C++ extension beside a plain copy and the ways of known trainers.

Ours write into memory that is used over and over, as the loader does; theirs into the allocator's, as there.
From the store come whole batches: mels, texts, lengths, frame masks and stop targets.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from ttsfast import native
from ttsfast.data.loading.batch import padded_length
from ttsfast.devices import torch_threads
from ttsfast.errors import InputError

BATCH, BINS, SYMBOLS = 48, 80, 100
MIXES = {"lengths alike": (520, 580), "lengths mixed": (200, 900)}
"""Shortest and longest, in frames; 550 on average. Alike as in the loader's buckets, or drawn at random."""
SILENCE = -4.0
"""What ours pads with: not 0, which some processors write twice as fast. The others pad with 0 as ever."""
ONLY_WRITTEN = "silence alone"
"""What writing takes where nothing is read: no way can be faster."""
SETS = 4
"""Batches in turn, larger together than most caches."""


@dataclass
class Source:
    """One batch before assembly."""

    floats: list[np.ndarray]
    """(T_b, C) float32"""
    halves: list[np.ndarray]
    """(T_b, C) float16"""
    columns: list[Tensor]
    """(C, T_b) float32, as the trainers that keep time last hold it"""
    texts: list[Tensor]
    """(N_b,) int32"""
    lengths: list[int]
    frames: int
    """T of the padded batch"""


def run(*, rounds: int = 15) -> dict[str, Any]:
    """Time each way on the same batches, in turn, on one thread; both mixes of lengths.

    Raises:
        InputError: the C++ extension is missing, or a way gives another result.
    """
    if native.core is None:
        raise InputError(f"nothing to measure: {native.why_missing}")
    with torch_threads(1):
        return {"batch": BATCH, "mixes": {name: _measured(mix, rounds) for name, mix in MIXES.items()}}


def _measured(mix: tuple[int, int], rounds: int) -> dict[str, Any]:
    sources = [_source(seed, mix) for seed in range(SETS)]
    with _ways(sources) as ways:
        _check(ways, sources)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(-2, rounds):
            for name, way in ways.items():
                for number in range(SETS):
                    begin = time.perf_counter()
                    kept = way(number)
                    passed = time.perf_counter() - begin
                    del kept
                    if turn >= 0:
                        seconds[name].append(passed)
    return _figures(sources, seconds)


def _figures(sources: Sequence[Source], seconds: dict[str, list[float]]) -> dict[str, Any]:
    ms = {name: 1e3 * median(values) for name, values in seconds.items()}
    best = {name: 1e3 * min(values) for name, values in seconds.items()}
    written = sum(_padded(source).nbytes for source in sources) / len(sources)
    read = sum(sum(mel.nbytes for mel in source.floats) for source in sources) / len(sources)
    # A mask byte and a stop target for each padded frame.
    targets = written / (4 * BINS) * 5
    bandwidth = 2 * written / ms["memcpy"]
    floats, store = ms["fp32 to fp32"], ms["store, fp16 to fp32"]
    return {
        "mean_frames": sum(sum(source.lengths) for source in sources) / (BATCH * len(sources)),
        "written_bytes": written,
        "read_bytes": read,
        "ms": ms,
        "best_ms": best,
        "fp32_share_of_memcpy_bandwidth": (read + written + targets) / floats / bandwidth,
        "fp16_to_fp32_of_fp32": store / floats,
        "fp16_to_fp32_of_memcpy": store / ms["memcpy"],
        "fp16_to_fp16_of_fp32": ms["store, fp16 to fp16"] / floats,
        # What the bytes that must be moved would give, were nothing else to be waited for.
        "fp16_to_fp32_of_fp32_by_bytes": (read / 2 + written) / (read + written),
        "times_faster_from_floats": {name: ms[name] / floats for name in BASELINES},
        "times_faster_from_store": {name: ms[name] / store for name in BASELINES},
    }


def _source(seed: int, mix: tuple[int, int]) -> Source:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(mix[0], mix[1] + 1, BATCH).tolist()
    halves = [generator.standard_normal((n, BINS), np.float32).astype(np.float16) for n in lengths]
    floats = [mel.astype(np.float32) for mel in halves]
    columns = [torch.from_numpy(mel.T.copy()) for mel in floats]
    texts = [torch.ones(SYMBOLS, dtype=torch.int32) for _ in lengths]
    return Source(floats, halves, columns, texts, lengths, int(padded_length(max(lengths), 8, 8)))


def _padded(source: Source) -> np.ndarray:
    out = np.zeros((BATCH, source.frames, BINS), np.float32)
    for row, mel in zip(out, source.floats, strict=True):
        row[: len(mel)] = mel
    return out


@contextmanager
def _ways(sources: Sequence[Source]) -> Iterator[dict[str, Callable[[int], Any]]]:
    """By name: takes the number of a source, makes its batch."""
    most = max(source.frames for source in sources)
    slots = [np.zeros((BATCH, most, BINS), np.float32) for _ in range(2)]
    masks, stops = np.zeros((BATCH, most), bool), np.zeros((BATCH, most), np.float32)
    plain = [_padded(source) for source in sources]
    pad, truncated = np.full(BINS, SILENCE, np.float32), [False] * BATCH

    def slot(array: np.ndarray, frames: int, *rest: int) -> np.ndarray:
        return array.reshape(-1)[: BATCH * frames * int(np.prod(rest, dtype=int))].reshape(
            BATCH, frames, *rest
        )

    def memcpy(number: int) -> np.ndarray:
        out = slot(slots[number % 2], sources[number].frames, BINS)
        np.copyto(out, plain[number])
        return out

    def gathered(mels: Sequence[np.ndarray], number: int) -> np.ndarray:
        frames = sources[number].frames
        out = slot(slots[number % 2], frames, BINS)
        assert native.core is not None
        native.core.gather_frames(mels, out, pad, slot(masks, frames), slot(stops, frames), truncated)
        return out

    nothing = [np.empty((0, BINS), np.float32)] * BATCH
    ways: dict[str, Callable[[int], Any]] = {
        "memcpy": memcpy,
        ONLY_WRITTEN: partial(gathered, nothing),
        "fp32 to fp32": lambda number: gathered(sources[number].floats, number),
    }
    with tempfile.TemporaryFile() as file:
        content = _shard(sources)
        file.write(content)
        file.flush()
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            short = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
            ways[f"store, fp16 to {short}"] = _from_store(sources, content, dtype)
        ways["store in a file"] = _from_store(sources, file.fileno(), torch.float32)
        for name, baseline in BASELINES.items():
            ways[name] = partial(_of_source, baseline, sources)
        yield ways


def _of_source(baseline: Callable[[Source], Tensor], sources: Sequence[Source], number: int) -> Tensor:
    return baseline(sources[number])


def _shard(sources: Sequence[Source]) -> bytes:
    mel = np.concatenate([part for source in sources for part in source.halves])
    text = torch.cat([text for source in sources for text in source.texts])
    return mel.tobytes() + text.numpy().tobytes()


def _from_store(
    sources: Sequence[Source], content: bytes | int, dtype: torch.dtype
) -> Callable[[int], Tensor]:
    """Through the batcher, from a shard in memory or in an open file."""
    lengths = np.array([n for source in sources for n in source.lengths])
    count, rows = len(lengths), int(lengths.sum())
    zeros = np.zeros(count, np.int64)
    assert native.core is not None
    core = native.core.Batcher(
        shards=[(content, 0, rows, rows * BINS * 2, count * SYMBOLS)],
        columns={
            "shard": zeros,
            "offset": np.cumsum(lengths) - lengths,
            "frames": lengths,
            "text_offset": np.arange(count) * SYMBOLS,
            "symbols": zeros + SYMBOLS,
            "speaker": zeros,
            "crc32c": zeros,
            "truncated": zeros,
        },
        bins=BINS,
        alphabet=2,
        verify=False,
        dtype=str(dtype).removeprefix("torch."),
        silence=[SILENCE] * BINS,
        tail_frames=8,
        frame_multiple=8,
        text_multiple=8,
        targets=True,
        threads=0,
        slots=2,
    )

    def make(number: int) -> Tensor:
        core.push(np.arange(number * BATCH, (number + 1) * BATCH))
        _, layout, slot, _ = core.take()
        size = BATCH * layout["frames"] * BINS * dtype.itemsize
        memory = torch.utils.dlpack.from_dlpack(slot)[layout["mel"] : layout["mel"] + size]
        return memory.view(dtype).view(BATCH, layout["frames"], BINS)

    return make


def _tacotron2(source: Source) -> Tensor:
    """Zeros, then each utterance's columns, and a gate."""
    mel = torch.zeros(BATCH, BINS, source.frames)
    gate = torch.zeros(BATCH, source.frames)
    lengths = torch.zeros(BATCH, dtype=torch.int64)
    for row, columns in enumerate(source.columns):
        mel[row, :, : columns.shape[1]] = columns
        gate[row, columns.shape[1] - 1 :] = 1
        lengths[row] = columns.shape[1]
    return mel.transpose(1, 2)


def _tacotron2_with_texts(source: Source) -> Tensor:
    """The same, and the texts, which ours from the store has, too."""
    text = torch.zeros(BATCH, max(len(one) for one in source.texts), dtype=torch.int64)
    lengths = torch.zeros(BATCH, dtype=torch.int64)
    for row, one in enumerate(source.texts):
        text[row, : len(one)] = one
        lengths[row] = len(one)
    return _tacotron2(source)


def _pad_sequence(source: Source) -> Tensor:
    return pad_sequence([torch.from_numpy(mel) for mel in source.floats], batch_first=True)


def _coqui(source: Source) -> Tensor:
    """Every utterance padded in numpy, then stacked."""
    padded = [np.pad(mel, ((0, source.frames - len(mel)), (0, 0))) for mel in source.floats]
    return torch.from_numpy(np.stack(padded))


def _nemo(source: Source) -> Tensor:
    """Every utterance padded in torch, then stacked."""
    padded = [functional.pad(columns, (0, source.frames - columns.shape[1])) for columns in source.columns]
    return torch.stack(padded).transpose(1, 2)


BASELINES: dict[str, Callable[[Source], Tensor]] = {
    "Tacotron2-style": _tacotron2,
    "Tacotron2-style, with texts": _tacotron2_with_texts,
    "pad_sequence": _pad_sequence,
    "coqui-style": _coqui,
    "NeMo-style": _nemo,
}
"""What other trainers do, told again here; each into fresh memory, as there."""


def _check(ways: dict[str, Callable[[int], Any]], sources: Sequence[Source]) -> None:
    for number, source in enumerate(sources):
        for name, way in ways.items():
            found = torch.as_tensor(way(number)).float()
            truth = _expected(name, source)
            if not torch.equal(found, truth[:, : found.shape[1]]) or found.shape[1] < max(source.lengths):
                raise InputError(f"{name} gives another batch: nothing is measured")


def _expected(name: str, source: Source) -> Tensor:
    truth = torch.from_numpy(_padded(source))
    if name == ONLY_WRITTEN:
        return torch.full_like(truth, SILENCE)
    if name != "memcpy" and name not in BASELINES:
        for row, length in zip(truth, source.lengths, strict=True):
            row[length:] = SILENCE
    return truth.bfloat16().float() if name.endswith("bf16") else truth


def table(result: dict[str, Any]) -> str:
    """The figures in columns."""
    lines = []
    for name, mix in result["mixes"].items():
        lines += [
            f"assembly of {result['batch']} x {mix['mean_frames']:.0f} frames, {name}, one thread, "
            f"{mix['written_bytes'] / 1e6:.1f} MB of padded fp32",
            f"  {'way':<28}{'ms':>9}{'best':>9}{'of fp32 to fp32':>18}{'of the store':>15}",
        ]
        ms = mix["ms"]
        for way, value in ms.items():
            ratios = [value / ms[other] for other in ("fp32 to fp32", "store, fp16 to fp32")]
            lines.append(
                f"  {way:<28}{value:>9.3f}{mix['best_ms'][way]:>9.3f}{ratios[0]:>17.2f}x{ratios[1]:>14.2f}x"
            )
        lines.append(
            f"  fp32 with mask and stop targets: {mix['fp32_share_of_memcpy_bandwidth']:.0%} of memcpy's "
            f"bandwidth; fp16 to fp32 moves {mix['fp16_to_fp32_of_fp32_by_bytes']:.2f} of its bytes"
        )
    return "\n".join(lines)
