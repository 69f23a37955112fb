"""The composite loss on a GPU: eager dispatch and CUDA graphs, against plain and compiled torch.

Writes gpu-loss.json and prints a table. A variant whose gradients are wrong gets no figures. Every set of
tensors is used in turn, so that none is found in the caches. ``--dry-run`` exercises the same code on the
CPU, with small shapes, and measures nothing worth keeping.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ttsfast.benchmarks import loss as bench
from ttsfast.benchmarks import machine, roofline

CASES = (
    bench.Case("short", 16, 200, sets=16),
    bench.Case("tts", 32, 800, sets=8),
    bench.Case("tts-full", 48, 800, ragged=False, sets=6),
    bench.Case("tts-100", 64, 1600, bins=100, sets=3),
    bench.Case("tts-bf16", 48, 800, sets=8, dtype="bfloat16"),
    bench.Case("large", 512, 1600, bins=80, ragged=False, sets=2),
)
DRY = (bench.Case("tiny", 2, 16, sets=2),)


def eager_us(calls: Sequence[Callable[[], Any]], device: torch.device, rounds: int) -> float:
    """Microseconds a call in eager dispatch, device and host overlapping as in training."""
    turns = []
    for _ in range(rounds):
        machine.synchronize(device)
        began = time.perf_counter()
        for call in calls:
            call()
        machine.synchronize(device)
        turns.append((time.perf_counter() - began) / len(calls))
    return 1e6 * median(turns)


def host_us(calls: Sequence[Callable[[], Any]], device: torch.device, rounds: int) -> float:
    """Microseconds until a call returns, the device left behind."""
    turns = []
    for _ in range(rounds):
        for call in calls:
            machine.synchronize(device)
            began = time.perf_counter()
            call()
            turns.append(time.perf_counter() - began)
    machine.synchronize(device)
    return 1e6 * median(turns)


def graph_us(calls: Sequence[Callable[[], Any]], rounds: int) -> float:
    """Microseconds of device time a call, all of them replayed from one graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    turns = []
    for _ in range(rounds + 3):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        graph.replay()
        ended.record()
        ended.synchronize()
        turns.append(began.elapsed_time(ended) / len(calls))
    return 1e3 * median(turns[3:])


def launches(call: Callable[[], Any]) -> int:
    """Kernels, copies and fills of one call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type.name == "CUDA" for event in profile.events())


def memory_bytes(call: Callable[[], Any]) -> int:
    """Peak memory beyond the inputs."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure(case: bench.Case, variants: dict[str, Any], device: torch.device, rounds: int) -> dict[str, Any]:
    sets = [bench.make_inputs(case, device, seed) for seed in range(case.sets)]
    shape = roofline.Shape(case.batch, case.frames, case.bins, case.latents)
    item = sets[0]["mel_pred"].element_size()
    ledgers = [
        roofline.ledger(shape, inputs["mel_lengths"].tolist(), item=item, tail=bench.TAIL) for inputs in sets
    ]
    size = sum(roofline.total_bytes(ledger) for ledger in ledgers) / len(sets)
    rows: dict[str, Any] = {}
    for name, variant in variants.items():
        error = bench.error_of(variant, sets[0])
        row = rows[name] = {"error": error}
        # Two roundings to bfloat16 against one.
        if not error <= (bench.TOLERANCE if case.dtype == "float32" else 2**-6):
            row["wrong"] = True
            continue
        calls = [partial(bench.both_passes, variant, inputs) for inputs in sets]
        for call in calls:
            call()
        row["eager_us"] = eager_us(calls, device, rounds)
        row["host_us"] = host_us(calls, device, max(rounds // 4, 1))
        if device.type == "cuda":
            row["launches"] = launches(calls[0])
            row["peak_bytes"] = memory_bytes(calls[0])
            try:
                row["graph_us"] = graph_us(calls, rounds)
            except RuntimeError as problem:
                row["no_graph"] = str(problem).splitlines()[0]
        fastest = min(row.get("graph_us", row["eager_us"]), row["eager_us"])
        row["GB_per_s"] = size / fastest / 1e3
    return {"case": vars(case), "fused_bytes": size, "variants": rows}


def copy_gb_per_s(device: torch.device, rounds: int) -> float:
    copy = machine.Copy(device)
    return copy.bytes / eager_us([copy] * 8, device, rounds) / 1e3


def table(result: dict[str, Any]) -> str:
    lines = [f"copy {result['copy_GB_per_s']:.0f} GB/s"]
    lines.append(
        f"{'case':10} {'variant':10} {'eager us':>9} {'graph us':>9} {'host us':>8} {'launches':>8} GB/s"
    )
    for found in result["cases"]:
        for name, row in found["variants"].items():
            if row.get("wrong"):
                lines.append(f"{found['case']['name']:10} {name:10} wrong by {row['error']:.1e}")
                continue
            lines.append(
                f"{found['case']['name']:10} {name:10} {row['eager_us']:9.1f} {row.get('graph_us', 0):9.1f} "
                f"{row['host_us']:8.1f} {row.get('launches', 0):8} {row['GB_per_s']:.0f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder of gpu-loss.json")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dry-run", action="store_true")
    chosen = parser.parse_args()
    device = torch.device("cpu" if chosen.dry_run else "cuda")
    variants = bench.variants(device, () if chosen.dry_run else ("default",))
    result: dict[str, Any] = {
        "machine": machine.describe(device),
        "copy_GB_per_s": copy_gb_per_s(device, 2 if chosen.dry_run else chosen.rounds),
        "cases": [],
    }
    chosen.output.mkdir(parents=True, exist_ok=True)
    for case in DRY if chosen.dry_run else CASES:
        result["cases"].append(measure(case, variants, device, 2 if chosen.dry_run else chosen.rounds))
        # After every case, so that a run cut short leaves what it has.
        (chosen.output / "gpu-loss.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
