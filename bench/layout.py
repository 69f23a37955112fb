"""What a gated convolution costs, by how its sequences lie in memory: python bench/layout.py --output FILE

Channels last is :class:`ttsfast.models.layers.SequenceConv`; channels first is what a convolution of
``torch.nn`` does with the same sequences. One layer of ``nano``, forward and backward, both in turns on one
thread; in bf16 where the CPU has tiles for it.
"""

from __future__ import annotations

import argparse
import itertools
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.devices import multiplies_in_bf16, torch_threads
from ttsfast.models.layers import ConvCache, GatedConv, SequenceConv

BATCH, STEPS, CHANNELS = 16, 200, 128
TOLERANCE = {"float32": 1e-4, "bf16": 0.1}
"""Largest difference of a gradient, above which no time is reported."""


class ChannelsFirst(SequenceConv):
    """The same convolution of transposed sequences."""

    def forward(self, x: Tensor, cache: ConvCache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D_out)"""
        x = F.pad(x.transpose(1, 2), (self.past + self.padding, self.padding))
        return F.conv1d(x, self.weight, self.bias, dilation=self.dilation).transpose(1, 2)


def passes(layer: GatedConv, x: Tensor, half: bool) -> tuple[float, Tensor]:
    """Milliseconds of processor time for both passes, and the gradient."""
    x = x.clone().requires_grad_()
    context = torch.autocast("cpu", torch.bfloat16) if half else nullcontext()
    began = time.process_time()
    with context:
        y = layer(x, torch.ones(*x.shape[:2], 1, dtype=torch.bool))
    y.backward(torch.ones_like(y))
    spent = time.process_time() - began
    assert x.grad is not None
    return 1e3 * spent, x.grad


def measure(dilation: int, half: bool, rounds: int) -> dict[str, float]:
    """Medians, by layout, and how many times as fast channels last is."""
    torch.manual_seed(0)
    last, first = (GatedConv(CHANNELS, 3, dilation, causal=False, dropout=0.0) for _ in range(2))
    first.conv = ChannelsFirst(CHANNELS, 2 * CHANNELS, 3, dilation, causal=False)
    first.load_state_dict(last.state_dict())
    x = torch.randn(BATCH, STEPS, CHANNELS)
    difference = float((passes(last, x, half)[1] - passes(first, x, half)[1]).abs().max())
    if difference > TOLERANCE["bf16" if half else "float32"]:
        raise SystemExit(
            f"dilation {dilation}: the gradients differ by {difference:.2g}; no time is reported"
        )
    times: dict[str, list[float]] = {"channels_last": [], "channels_first": []}
    sides = {"channels_last": last, "channels_first": first}
    for order in itertools.islice(itertools.cycle((tuple(sides), tuple(sides)[::-1])), rounds):
        for name in order:
            times[name].append(passes(sides[name], x, half)[0])
    found = {name: median(values) for name, values in times.items()}
    return {**found, "ratio": found["channels_first"] / found["channels_last"], "difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    precisions = {"float32": False, **({"bf16": True} if multiplies_in_bf16() else {})}
    with torch_threads(1):
        found = {
            name: {f"dilation {dilation}": measure(dilation, half, options.rounds) for dilation in (1, 4)}
            for name, half in precisions.items()
        }
        record = {"machine": describe(torch.device("cpu")), "rounds": options.rounds, "milliseconds": found}
    write_record(options.output, record)
    for name, rows in found.items():
        for dilation, row in rows.items():
            print(
                f"{name:<8} {dilation}: {row['channels_first']:.1f} ms channels first, "
                f"{row['channels_last']:.1f} last, {row['ratio']:.2f} times as fast"
            )


if __name__ == "__main__":
    main()
