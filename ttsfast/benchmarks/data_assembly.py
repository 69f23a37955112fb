"""Padding a batch in memory: the C++ extension beside a plain copy and the ways of known trainers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
from ttsfast.data.batch import padded_length
from ttsfast.errors import InputError

BATCH, BINS, SYMBOLS = 48, 80, 100
SHORTEST, LONGEST = 200, 900
"""Frames; 550 on average."""
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
    lengths: list[int]
    frames: int
    """T of the padded batch"""


def run(*, rounds: int = 15) -> dict[str, Any]:
    """Time each way on the same batches, in turn, on one thread.

    Raises:
        InputError: the C++ extension is missing, or a way gives another result.
    """
    if native.core is None:
        raise InputError(f"nothing to measure: {native.why_missing}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sources = [_source(seed) for seed in range(SETS)]
        ways = _ways(sources)
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
    finally:
        torch.set_num_threads(threads)
    return _figures(sources, seconds)


def _figures(sources: Sequence[Source], seconds: dict[str, list[float]]) -> dict[str, Any]:
    ms = {name: 1e3 * median(values) for name, values in seconds.items()}
    best = {name: 1e3 * min(values) for name, values in seconds.items()}
    written = sum(_padded(source).nbytes for source in sources) / len(sources)
    read = sum(sum(mel.nbytes for mel in source.floats) for source in sources) / len(sources)
    # A mask byte and a stop target for each padded frame.
    targets = written / (4 * BINS) * 5
    bandwidth = 2 * written / ms["memcpy"]
    return {
        "batch": BATCH,
        "mean_frames": sum(sum(source.lengths) for source in sources) / (BATCH * len(sources)),
        "written_bytes": written,
        "ms": ms,
        "best_ms": best,
        "fp32_share_of_memcpy_bandwidth": (read + written + targets) / ms["fp32 to fp32"] / bandwidth,
        "fp16_to_fp32_of_fp32": ms["fp16 to fp32"] / ms["fp32 to fp32"],
        "fp16_to_fp16_of_fp32": ms["fp16 to fp16"] / ms["fp32 to fp32"],
        "times_faster": {name: value / ms["fp32 to fp32"] for name, value in ms.items() if name in BASELINES},
    }


def _source(seed: int) -> Source:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(SHORTEST, LONGEST + 1, BATCH).tolist()
    halves = [generator.standard_normal((n, BINS), np.float32).astype(np.float16) for n in lengths]
    floats = [mel.astype(np.float32) for mel in halves]
    columns = [torch.from_numpy(mel.T.copy()) for mel in floats]
    return Source(floats, halves, columns, lengths, int(padded_length(max(lengths), 8, 8)))


def _padded(source: Source) -> np.ndarray:
    out = np.zeros((BATCH, source.frames, BINS), np.float32)
    for row, mel in zip(out, source.floats, strict=True):
        row[: len(mel)] = mel
    return out


def _ways(sources: Sequence[Source]) -> dict[str, Callable[[int], Any]]:
    """By name: takes the number of a source, makes its batch."""
    most = max(source.frames for source in sources)
    slots = [np.zeros((BATCH, most, BINS), np.float32) for _ in range(2)]
    masks, stops = np.zeros((BATCH, most), bool), np.zeros((BATCH, most), np.float32)
    plain = [_padded(source) for source in sources]
    pad, truncated = np.zeros(BINS, np.float32), [False] * BATCH

    def slot(array: np.ndarray, frames: int, *rest: int) -> np.ndarray:
        return array.reshape(-1)[: BATCH * frames * int(np.prod(rest, dtype=int))].reshape(
            BATCH, frames, *rest
        )

    def memcpy(number: int) -> np.ndarray:
        out = slot(slots[number % 2], sources[number].frames, BINS)
        np.copyto(out, plain[number])
        return out

    def floats(number: int) -> np.ndarray:
        source = sources[number]
        out = slot(slots[number % 2], source.frames, BINS)
        targets = slot(masks, source.frames), slot(stops, source.frames)
        assert native.core is not None
        native.core.gather_frames(source.floats, out, pad, *targets, truncated)
        return out

    ways: dict[str, Callable[[int], Any]] = {"memcpy": memcpy, "fp32 to fp32": floats}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        short = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
        ways[f"fp16 to {short}"] = _from_store(sources, dtype)
    for name, baseline in BASELINES.items():
        ways[name] = partial(_of_source, baseline, sources)
    return ways


def _of_source(baseline: Callable[[Source], Tensor], sources: Sequence[Source], number: int) -> Tensor:
    return baseline(sources[number])


def _from_store(sources: Sequence[Source], dtype: torch.dtype) -> Callable[[int], Tensor]:
    """Through the batcher, from a shard in memory, with text, lengths, mask and stop targets."""
    mel = np.concatenate([part for source in sources for part in source.halves])
    lengths = np.array([n for source in sources for n in source.lengths])
    count = len(lengths)
    text = np.ones(count * SYMBOLS, np.int32)
    content = mel.tobytes() + text.tobytes()
    zeros = np.zeros(count, np.int64)
    assert native.core is not None
    core = native.core.Batcher(
        shards=[(content, 0, len(mel), mel.nbytes, len(text))],
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
        silence=[0.0] * BINS,
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
    "pad_sequence": _pad_sequence,
    "coqui-style": _coqui,
    "NeMo-style": _nemo,
}
"""What other trainers do, told again here; each into fresh memory, as there."""


def _check(ways: dict[str, Callable[[int], Any]], sources: Sequence[Source]) -> None:
    for number, source in enumerate(sources):
        truth = torch.from_numpy(_padded(source))
        for name, way in ways.items():
            found = torch.as_tensor(way(number)).float()
            expected = truth.bfloat16().float() if name == "fp16 to bf16" else truth
            if not torch.equal(found, expected[:, : found.shape[1]]) or found.shape[1] < max(source.lengths):
                raise InputError(f"{name} gives another batch: nothing is measured")


def table(result: dict[str, Any]) -> str:
    """The figures in columns."""
    lines = [
        f"assembly of {result['batch']} x {result['mean_frames']:.0f} frames, one thread, "
        f"{result['written_bytes'] / 1e6:.1f} MB of padded fp32",
        f"  {'way':<18}{'ms':>9}{'best':>9}{'of fp32 to fp32':>18}",
    ]
    for name, value in result["ms"].items():
        ratio = value / result["ms"]["fp32 to fp32"]
        lines.append(f"  {name:<18}{value:>9.3f}{result['best_ms'][name]:>9.3f}{ratio:>17.2f}x")
    share = result["fp32_share_of_memcpy_bandwidth"]
    lines.append(f"  fp32 with mask and stop targets: {share:.0%} of memcpy's bandwidth")
    return "\n".join(lines)
