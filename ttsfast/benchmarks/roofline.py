"""The bytes that a fused pass over the losses must move, term by term: the bound that speed is held to.

Every input element that counts is read once; every element of a gradient is written once, zeros in padding
included. Padded inputs cost nothing. Lengths, weights and partial sums are too small to matter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from ttsfast.benchmarks import machine


@dataclass(frozen=True)
class Shape:
    """Sizes of one loss call; everything in elements."""

    batch: int
    frames: int
    bins: int = 80
    latents: int = 64
    symbols: int = 0
    """N of the attention; 0 for none."""
    heads: int = 1
    predictions: int = 1
    prior: bool = False


@dataclass(frozen=True)
class Move:
    """What one tensor costs."""

    term: str
    tensor: str
    read: int
    written: int
    """Bytes."""


def ledger(
    shape: Shape,
    lengths: Sequence[int],
    text_lengths: Sequence[int] | None = None,
    *,
    item: int = 4,
    tail: int = 8,
    gradients: bool = True,
) -> list[Move]:
    """Bytes read and written by term and tensor.

    Args:
        shape: sizes.
        lengths: valid frames of each utterance, (B,).
        text_lengths: its valid symbols; all of them when None.
        item: bytes of one element.
        tail: steps after the end that the stop term takes in.
        gradients: whether gradients are written.
    """
    valid = sum(lengths)
    padded = shape.batch * shape.frames if gradients else 0
    moves = [
        Move("mel", f"prediction {i}", valid * shape.bins * item, padded * shape.bins * item)
        for i in range(shape.predictions)
    ]
    moves.append(Move("mel", "target", valid * shape.bins * item, 0))
    gaussians = ("posterior", "prior") if shape.prior else ("posterior",)
    moves += [
        Move("kl", f"{name} {part}", valid * shape.latents * item, padded * shape.latents * item)
        for name in gaussians
        for part in ("mu", "logvar")
    ]
    steps = sum(min(length + tail, shape.frames) for length in lengths)
    moves.append(Move("stop", "logits", steps * item, padded * item))
    if shape.symbols:
        texts = [shape.symbols] * len(lengths) if text_lengths is None else text_lengths
        read = sum(length * text for length, text in zip(lengths, texts, strict=True))
        moves.append(
            Move(
                "attention",
                "weights",
                read * shape.heads * item,
                padded * shape.heads * shape.symbols * item,
            )
        )
    return moves


def total_bytes(moves: Sequence[Move]) -> int:
    """Read and written together."""
    return sum(move.read + move.written for move in moves)


def run_roofline(
    shape: Shape = Shape(48, 800, symbols=100), *, valid: float = 0.67, device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """The ledger of one shape with ``valid`` of its frames valid, and this machine's copy bandwidth.

    Returns:
        A dictionary that ``json`` can write; :func:`show` prints it.
    """
    device = torch.device(device)
    copy = machine.Copy(device)
    speeds = []
    for _ in range(7):
        machine.synchronize(device)
        begin = time.perf_counter()
        copy()
        machine.synchronize(device)
        speeds.append(copy.bytes / (time.perf_counter() - begin))
    moves = ledger(shape, [round(valid * shape.frames)] * shape.batch)
    return {
        "machine": machine.describe(device),
        "shape": asdict(shape),
        "valid": valid,
        "copy_gb_per_s": median(speeds) / 1e9,
        "bytes": total_bytes(moves),
        "moves": [asdict(move) for move in moves],
    }


def show(result: dict[str, Any]) -> str:
    """What :func:`run_roofline` found, in columns."""
    shape = Shape(**result["shape"])
    moves = [Move(**move) for move in result["moves"]]
    heading = (
        f"B={shape.batch} T={shape.frames} C={shape.bins} Z={shape.latents} N={shape.symbols}, "
        f"{result['valid']:.0%} valid, copy {result['copy_gb_per_s']:.1f} GB/s"
    )
    return heading + "\n" + table(moves, result["copy_gb_per_s"] * 1e9)


def table(moves: Sequence[Move], bandwidth: float | None = None) -> str:
    """The ledger in columns; with ``bandwidth`` (bytes/s), the time that each line costs at the least."""
    heading = f"{'term':<10} {'tensor':<18} {'read MB':>9} {'written MB':>11}"
    lines = [heading + (f" {'least us':>9}" if bandwidth else "")]
    everything = [*moves, Move("total", "", sum(m.read for m in moves), sum(m.written for m in moves))]
    for move in everything:
        line = f"{move.term:<10} {move.tensor:<18} {move.read / 1e6:>9.2f} {move.written / 1e6:>11.2f}"
        if bandwidth:
            line += f" {(move.read + move.written) / bandwidth * 1e6:>9.1f}"
        lines.append(line)
    return "\n".join(lines)
