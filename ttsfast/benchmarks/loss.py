"""How fast the composite loss is: plain torch, compiled torch and every backend, in one interleaved run.

A variant whose values or gradients are wrong is reported as wrong and gets no figures. All figures are of
forward and backward through autograd from Python, gradients freed after every call, unless they say
otherwise. ``cold`` rotates through sets of tensors that together fit no cache.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ttsfast.benchmarks import machine, roofline
from ttsfast.benchmarks.loss_cases import (
    CASES,
    TAIL,
    TINY,
    Case,
    Inputs,
    Variant,
    backend_variant,
    floor,
    layers,
    leaves,
    make_inputs,
    variants,
)
from ttsfast.devices import torch_threads

TOLERANCE = 1e-4
"""Of a gradient, relative to its largest element: far above rounding, far below any mistake."""

CALLS, SETTLING = 24, 12
"""Calls of a variant in a row, and how many of them come before the figures: the first ones find caches and
threads as the variant before left them, and the first of all is reported apart. It takes ten calls until a
cache of 32 MiB that holds a batch and its gradients has forgotten the variant before."""


def run_loss_bench(
    cases: Sequence[Case] = CASES,
    *,
    device: str | torch.device = "cpu",
    threads: int | None = None,
    rounds: int = 20,
    compiled: Sequence[str] = ("default",),
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure every variant on every case.

    Args:
        cases: workloads.
        device: ``"cpu"`` or a CUDA device.
        threads: of torch and of the C++ backend; torch's own setting when None.
        rounds: turns of each variant on each case, with a large copy after it.
        compiled: modes of ``torch.compile``; empty for none.
        progress: told what is being done.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.
    """
    device = torch.device(device)
    with torch_threads(threads):
        results = []
        for case in cases:
            progress(f"{case.name}: {case.batch} x {case.frames} x {case.bins}")
            # Compiled anew: after several shapes the compiler would give up and run the last ones eagerly.
            torch.compiler.reset()
            results.append(_measure_case(case, variants(device, compiled), device, rounds))
        progress("host overhead")
        torch.compiler.reset()
        chosen = variants(device, compiled)
        return {
            "machine": machine.describe(device),
            "rounds": rounds,
            "cases": results,
            "host_us": _overhead(chosen, device, rounds),
        }


def _measure_case(
    case: Case, chosen: dict[str, Variant], device: torch.device, rounds: int
) -> dict[str, Any]:
    sets = [make_inputs(case, device, seed) for seed in range(case.sets)]
    errors = {name: error_of(variant, sets[0]) for name, variant in chosen.items()}
    timed = {name: variant for name, variant in chosen.items() if errors[name] <= TOLERANCE}
    rows: dict[str, Any] = {name: {"error": errors[name], "correct": name in timed} for name in chosen}
    for name, variant in timed.items():
        rows[name] |= _profile(variant, sets[0], device)
    times = _time({**timed, "floor": floor}, sets, device, rounds)
    lengths = [inputs["mel_lengths"].tolist() for inputs in sets]
    moves = median(map(fused_bytes, sets))
    bandwidth = median(times.copies)
    for name in timed:
        speed = moves / median(times.both[name])
        rows[name] |= times.of(name) | {"gb_per_s": speed / 1e9, "of_copy": speed / bandwidth}
    return {
        "case": asdict(case),
        "valid": sum(map(sum, lengths)) / (case.sets * case.batch * case.frames),
        "bytes": moves,
        "gradient_bytes": sum(x.numel() * x.element_size() for x in sets[0].values() if x.requires_grad),
        "copy_gb_per_s": bandwidth / 1e9,
        "best_copy_gb_per_s": max(times.copies) / 1e9,
        "floor": times.of("floor"),
        "variants": rows,
    }


def both_passes(variant: Variant, inputs: Inputs) -> tuple[Tensor, ...]:
    """The total and the gradients of what a model would have produced."""
    total = variant(inputs)
    return (total, *torch.autograd.grad(total, leaves(inputs)))


def error_of(variant: Variant, inputs: Inputs) -> float:
    """The largest error of value and gradients against float64, each relative to its largest element."""

    def wide(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return tensor.detach().double().requires_grad_(tensor.requires_grad)

    exact = backend_variant("torch", inputs["mel_pred"].device)
    truth = [part.detach() for part in both_passes(exact, {name: wide(x) for name, x in inputs.items()})]
    found = [part.detach() for part in both_passes(variant, inputs)]
    # Plain torch computes in the inputs' own precision: what that rounds away is the format's, not a mistake.
    unit = torch.finfo(inputs["mel_pred"].dtype).eps
    rounding = 4 * unit if unit > TOLERANCE else 0.0
    errors = [float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(found, truth, strict=True)]
    return max(0.0, max(errors) - rounding)


def fused_bytes(inputs: Inputs) -> int:
    """What one fused pass must move."""
    batch, frames, bins = inputs["mel_pred"].shape
    attention = layers(inputs)
    shape = roofline.Shape(
        batch,
        frames,
        bins,
        inputs["mu"].shape[2],
        symbols=attention[0].shape[3] if attention else 0,
        heads=sum(layer.shape[1] for layer in attention),
    )
    texts = inputs["text_lengths"].tolist() if attention else None
    lengths, item = inputs["mel_lengths"].tolist(), inputs["mel_pred"].element_size()
    return roofline.total_bytes(roofline.ledger(shape, lengths, texts, item=item, tail=TAIL))


class _Times:
    """Seconds of each call, and bytes/s of the copies among them."""

    def __init__(self, names: Iterable[str]) -> None:
        self.first: dict[str, list[float]] = {name: [] for name in names}
        """Of both passes, in the first call of a turn: nothing of it is in a cache."""
        self.both: dict[str, list[float]] = {name: [] for name in self.first}
        self.forward: dict[str, list[float]] = {name: [] for name in self.first}
        self.copies: list[float] = []

    def of(self, name: str) -> dict[str, float]:
        """Milliseconds for the record."""
        return {
            "ms": median(self.both[name]) * 1e3,
            "best_ms": min(self.both[name]) * 1e3,
            "first_ms": median(self.first[name]) * 1e3,
            "forward_ms": median(self.forward[name]) * 1e3,
        }


def _time(chosen: dict[str, Variant], sets: Sequence[Inputs], device: torch.device, rounds: int) -> _Times:
    """In each round every variant has its turn, and after it the copy, which clears the caches."""
    times = _Times(chosen)
    copy = machine.Copy(device)
    turn = itertools.cycle(sets)

    def timed(call: Callable[[], Any]) -> float:
        machine.synchronize(device)
        begin = time.perf_counter()
        kept = call()
        machine.synchronize(device)
        seconds = time.perf_counter() - begin
        del kept
        return seconds

    def take(variant: Callable[[Inputs], Any]) -> list[float]:
        return [timed(lambda: variant(next(turn))) for _ in range(CALLS)]

    for i in range(-2, rounds):
        for name, variant in chosen.items():
            seconds = take(partial(both_passes, variant))
            with torch.no_grad():
                alone = take(variant)
            copy_seconds = timed(copy)
            if i >= 0:
                times.first[name].append(seconds[0])
                times.both[name] += seconds[SETTLING:]
                times.forward[name] += alone[SETTLING:]
                times.copies.append(copy.bytes / copy_seconds)
    return times


def _overhead(chosen: dict[str, Variant], device: torch.device, rounds: int) -> dict[str, float]:
    """Microseconds of both passes where there is next to nothing to compute."""
    times = _time({**chosen, "floor": floor}, [make_inputs(TINY, device)], device, rounds)
    return {name: median(seconds) * 1e6 for name, seconds in times.both.items()}


def _profile(variant: Variant, inputs: Inputs, device: torch.device) -> dict[str, int]:
    """Bytes that one call needs at its highest, gradients included; its allocations; its launches, which
    are kernels on a GPU and torch operators on a CPU."""
    both_passes(variant, inputs)
    if device.type == "cuda":
        machine.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        both_passes(variant, inputs)
        machine.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) - before
    # Before its first use the profiler can be told not to announce itself.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds, profile_memory=True) as seen:
        kept = both_passes(variant, inputs)
        machine.synchronize(device)
    del kept
    events = seen.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    if device.type == "cuda":
        launches = sum(str(event.device_type()).endswith("CUDA") for event in events)
    else:
        peak = max(itertools.accumulate(changes), default=0)
        launches = sum(event.name().startswith("aten::") for event in events)
    return {
        "peak_bytes": peak,
        "allocations": sum(change > 0 for change in changes),
        "launches": launches,
    }


def table(result: dict[str, Any]) -> str:
    """The figures in columns, speed-ups against eager and against compiled torch beside them."""
    lines = []
    for entry in result["cases"]:
        case, rows = entry["case"], entry["variants"]
        lines.append(
            f"{case['name']}: B={case['batch']} T<={case['frames']} C={case['bins']} Z={case['latents']} "
            f"{case['dtype']}, {entry['valid']:.0%} valid, {case['sets']} set(s), "
            f"{entry['bytes'] / 1e6:.1f} MB to move, copy {entry['copy_gb_per_s']:.1f} GB/s"
        )
        lines.append(
            f"  {'variant':<16}{'ms':>9}{'best':>9}{'first':>9}{'forward':>9}{'GB/s':>7}{'of copy':>9}"
            f"{'x eager':>9}{'x compile':>11}{'peak MB':>9}{'allocs':>8}{'launches':>10}{'error':>9}"
        )
        for name, row in rows.items():
            if not row["correct"]:
                lines.append(f"  {name:<16}wrong: error {row['error']:.2g}, no figures")
                continue
            ratios = [
                f"{rows[other]['ms'] / row['ms']:.2f}" if rows.get(other, {}).get("correct") else "-"
                for other in ("eager", "compile")
            ]
            peak = f"{row['peak_bytes'] / 1e6:.1f}"
            lines.append(
                f"  {name:<16}{_times(row)}{row['gb_per_s']:>7.1f}{row['of_copy']:>9.0%}{ratios[0]:>9}"
                f"{ratios[1]:>11}{peak:>9}{row['allocations']:>8}{row['launches']:>10}{row['error']:>9.0e}"
            )
        lines.append(f"  {'(copies alone)':<16}{_times(entry['floor'])}")
    host = ", ".join(f"{name} {value:.0f}" for name, value in result["host_us"].items())
    lines.append(f"host overhead of both passes, microseconds: {host}")
    lines.append(machine.summary(result["machine"]))
    return "\n".join(lines)


def _times(row: dict[str, float]) -> str:
    return "".join(f"{row[key]:>9.3f}" for key in ("ms", "best_ms", "first_ms", "forward_ms"))
