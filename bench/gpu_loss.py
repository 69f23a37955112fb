"""The composite loss on a GPU: eager dispatch and CUDA graphs, against plain and compiled torch.

Writes gpu-loss.json and gpu-loss.txt, a table, after every case. ``triton`` gets no figures where
its gradients are wrong; the others' errors stand beside theirs. Every set of tensors is used in turn, so that
none is found in the caches, and variants take turns within each round. ``--dry-run`` exercises the same code
on the CPU, with small shapes, and measures nothing worth keeping.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ttsfast.benchmarks import loss as bench
from ttsfast.benchmarks import loss_cases as cases
from ttsfast.benchmarks import machine
from ttsfast.benchmarks.gpu import (
    Call,
    captured,
    eager_us,
    host_us,
    launches,
    memory,
    no_synchronisation,
    replay_us,
)
from ttsfast.benchmarks.records import write_record
from ttsfast.losses import backend as backends

CASES = (
    cases.Case("tts", 32, 800, sets=6),
    cases.Case("short", 16, 200, sets=16),
    cases.Case("large", 512, 1600, ragged=False, sets=2),
    cases.Case("attention", 32, 800, sets=3, heads=(4, 4)),
    cases.Case("tts-bf16", 48, 800, sets=6, dtype="bfloat16"),
    cases.Case("attention-bf16", 32, 800, sets=3, heads=(4, 4), dtype="bfloat16"),
    cases.Case("tts-full", 48, 800, ragged=False, sets=4),
    cases.Case("tts-100", 64, 1600, bins=100, sets=3),
    cases.Case("short-100", 16, 400, bins=100, sets=8),
    cases.Case("large-bf16", 512, 1600, ragged=False, sets=2, dtype="bfloat16"),
)
"""The most wanted first: what time does not allow is left out."""
TUNED = ("tts", "large")
"""Cases for ``max-autotune`` too, which takes long to compile."""
DRY = (
    cases.Case("tiny", 2, 16, sets=2),
    cases.Case("guided", 2, 16, sets=2, heads=(2, 1), symbols=8),
    cases.Case("guided-bf16", 2, 16, sets=2, heads=(2,), symbols=8, dtype="bfloat16"),
)
KERNELS = ["loss_backward", "loss_forward"]


def both(variant: cases.Variant, inputs: cases.Inputs, one: Tensor) -> tuple[Tensor, ...]:
    """Gradients of what a model would have produced; without ``one``, autograd would fill it each time."""
    return torch.autograd.grad(variant(inputs), cases.leaves(inputs), one)


def alone(variant: cases.Variant, inputs: cases.Inputs) -> Tensor:
    """The forward pass, gradients still wanted: a fused backend writes them in it."""
    return variant(inputs).detach()


def first_line(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"[:200]


def variants(case: cases.Case, device: torch.device) -> dict[str, cases.Variant]:
    """What is compared; compiled afresh for each case, for its shapes alone."""
    found: dict[str, cases.Variant] = {"eager": cases.eager}
    if device.type == "cuda":
        found["compile"] = torch.compile(cases.eager, dynamic=False)
        if case.name in TUNED:
            found["compile-max"] = torch.compile(
                cases.eager, dynamic=False, mode="max-autotune-no-cudagraphs"
            )
    name = "triton" if device.type == "cuda" else "cpp"
    if backends.unavailable(name) is None:
        found[name] = cases.backend_variant(name, device)
    return found


def prepare(
    name: str, variant: cases.Variant, case: cases.Case, sets: list[cases.Inputs], device: torch.device
) -> tuple[dict[str, Any], list[Call], list[Call]]:
    """What one look at a variant tells, and its calls: both passes, and the first alone."""
    one = torch.ones((), device=device)
    error = bench.error_of(variant, sets[0])
    row: dict[str, Any] = {"error": error}
    if name == "triton" and not error <= (bench.TOLERANCE if case.dtype == "float32" else 2**-8):
        raise ValueError(f"wrong: error {error:.2g}")
    calls = [partial(both, variant, inputs, one) for inputs in sets]
    for call in calls:
        call()
    if device.type == "cuda":
        names = launches(calls[0])
        row |= {"launches": len(names), **memory(calls[0])}
        if name == "triton":
            row["kernels"] = names
            with no_synchronisation():
                calls[0]()
            row["synchronisations"] = 0
    return row, calls, [partial(alone, variant, inputs) for inputs in sets]


def measure(case: cases.Case, device: torch.device, rounds: int) -> dict[str, Any]:
    sets = [cases.make_inputs(case, device, seed) for seed in range(case.sets)]
    size = sum(map(bench.fused_bytes, sets))
    rows: dict[str, Any] = {}
    ready: dict[str, tuple[list[Call], list[Call], Any]] = {}
    for name, variant in variants(case, device).items():
        graph = None
        try:
            rows[name], calls, forward = prepare(name, variant, case, sets, device)
            if device.type == "cuda":
                try:
                    graph = captured(calls)
                except RuntimeError as problem:
                    rows[name]["no_graph"] = first_line(problem)
            ready[name] = calls, forward, graph
        except Exception as problem:
            # Nobody's failure must cost the others' figures.
            rows[name] = {**rows.get(name, {}), "failed": first_line(problem)}
    copy = machine.Copy(device)
    times: dict[str, dict[str, list[float]]] = {name: {} for name in ready}
    copies = []
    for turn in range(-2, rounds):
        for name, (calls, forward, graph) in ready.items():
            found = {"eager_us": eager_us(calls, device), "forward_us": eager_us(forward, device)}
            if turn % 4 == 0:
                found["host_us"] = host_us(calls, device)
            if graph is not None:
                found["graph_us"] = replay_us(graph, len(calls))
            if turn >= 0:
                for key, value in found.items():
                    times[name].setdefault(key, []).append(value)
        copies.append(copy.bytes / eager_us([copy] * 4, device) * 1e6)
    bandwidth = median(copies)
    for name, found in times.items():
        row = rows[name]
        row |= {key: median(values) for key, values in found.items()}
        row |= {f"least_{key}": min(values) for key, values in found.items()}
        fastest = min(row.get("graph_us", row["eager_us"]), row["eager_us"])
        row["GB_per_s"] = size / case.sets / fastest / 1e3
        row["of_copy"] = row["GB_per_s"] * 1e9 / bandwidth
    return {
        "case": asdict(case),
        "fused_bytes": size / case.sets,
        "copy_GB_per_s": bandwidth / 1e9,
        "variants": rows,
    }


def verdicts(result: dict[str, Any], device: torch.device) -> list[str]:
    """What was aimed at and missed."""
    missed = []
    for found in result["cases"]:
        name, rows = found["case"]["name"], found["variants"]
        for other, row in rows.items():
            if "failed" in row:
                missed.append(f"{name}: {other} {row['failed']}")
        ours = rows.get("triton")
        if device.type != "cuda" or ours is None or "failed" in ours:
            continue
        if ours["kernels"] != KERNELS:
            missed.append(f"{name}: launches {ours['kernels']} in place of {KERNELS}")
        if ours["host_us"] > 100:
            missed.append(f"{name}: host {ours['host_us']:.0f} us, more than 100")
        if name.startswith("large") and ours["of_copy"] < 0.85:
            missed.append(f"{name}: {ours['of_copy']:.0%} of the copy bandwidth, less than 85%")
        for other, least in (("eager", 8.0), ("compile", 2.5), ("compile-max", 2.5)):
            for key in ("eager_us", "graph_us"):
                ratio = rows.get(other, {}).get(key, 0) / ours.get(key, float("inf"))
                wanted = 1.0 if name.startswith("large") else least
                if 0 < ratio < wanted:
                    missed.append(f"{name}: {ratio:.2f}x {other} by {key}, less than {wanted:g}")
    return missed


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{'case':11} {'variant':12} {'eager us':>9} {'graph us':>9} {'fwd us':>8} {'host us':>8} "
        f"{'launch':>6} {'alloc':>5} {'peak MB':>8} {'GB/s':>6} {'copy':>5} {'error':>8}"
    ]
    for found in result["cases"]:
        for name, row in found["variants"].items():
            start = f"{found['case']['name']:11} {name:12} "
            if "eager_us" not in row:
                lines.append(start + row.get("failed", "not measured"))
                continue
            lines.append(
                start + f"{row['eager_us']:9.1f} {row.get('graph_us', float('nan')):9.1f} "
                f"{row['forward_us']:8.1f} {row.get('host_us', float('nan')):8.1f} "
                f"{row.get('launches', 0):6} {row.get('allocations', 0):5} "
                f"{row.get('peak_bytes', 0) / 1e6:8.1f} {row['GB_per_s']:6.0f} "
                f"{row['of_copy']:5.0%} {row['error']:8.1e}"
            )
    copies = [found["copy_GB_per_s"] for found in result["cases"]]
    if copies:
        lines.append(f"copy {min(copies):.0f} to {max(copies):.0f} GB/s")
    lines += [f"left out for time: {', '.join(result['left_out'])}"] if result["left_out"] else []
    lines += (
        ["missed:", *(f"  {line}" for line in result["missed"])] if result["missed"] else ["nothing missed"]
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder of gpu-loss.json")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no case after that")
    parser.add_argument("--dry-run", action="store_true")
    chosen = parser.parse_args()
    began = time.monotonic()
    device = torch.device("cpu" if chosen.dry_run else "cuda")
    result: dict[str, Any] = {
        "machine": machine.describe(device),
        "cases": [],
        "left_out": [],
        "missed": [],
    }
    chosen.output.mkdir(parents=True, exist_ok=True)
    longest = 0.0
    for case in DRY if chosen.dry_run else CASES:
        start = time.monotonic()
        if start - began + longest > chosen.seconds:
            result["left_out"].append(case.name)
            continue
        try:
            result["cases"].append(measure(case, device, 2 if chosen.dry_run else chosen.rounds))
        except Exception as problem:
            result["missed"].append(f"{case.name}: {first_line(problem)}")
        longest = max(longest, time.monotonic() - start)
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        # After every case, so that a run cut short leaves what it has.
        write(chosen.output, {**result, "missed": result["missed"] + verdicts(result, device)})
        print(f"{case.name}: {time.monotonic() - start:.0f} s", flush=True)
    result["missed"] += verdicts(result, device)
    write(chosen.output, result)
    print(table(result))


def write(folder: Path, result: dict[str, Any]) -> None:
    """The record and its table."""
    write_record(folder / "gpu-loss.json", result)
    (folder / "gpu-loss.txt").write_text(table(result) + "\n")


if __name__ == "__main__":
    main()
