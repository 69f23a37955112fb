"""How fast the composite loss is: plain torch, compiled torch and every backend, in one interleaved run.

A variant whose values or gradients are wrong is reported as wrong and gets no figures. All figures are of
forward and backward through autograd from Python, gradients freed after every call, unless they say
otherwise. ``cold`` rotates through sets of tensors that together fit no cache.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ttsfast import native
from ttsfast.benchmarks import machine, roofline
from ttsfast.losses import backend as backends
from ttsfast.losses.module import TTSLoss

MEL_WEIGHT, KL_WEIGHT, STOP_WEIGHT = 22.0, 1.8, 1.5
DELTA, SMOOTHING, STOP_SMOOTHING, POS_WEIGHT, TAIL = 0.6, 0.025, 0.06, 4.0, 8
TOLERANCE = 1e-4
"""Of a gradient, relative to its largest element: far above rounding, far below any mistake."""

CALLS = 4
"""Of a variant in a row."""

Inputs = dict[str, Tensor]
Variant = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class Case:
    """One workload: mel, KL of per-frame latents and stop."""

    name: str
    batch: int
    frames: int
    bins: int = 80
    latents: int = 64
    ragged: bool = True
    """Lengths uniform from 34% to 100% of ``frames``: 67% valid; otherwise all full."""
    sets: int = 1
    """Sets of tensors rotated through."""
    dtype: str = "float32"


CASES = (
    Case("cache", 16, 400),
    Case("cold", 48, 800, sets=6),
)
"""The two that targets are stated for."""

MORE_CASES = (
    Case("short", 16, 200),
    Case("full", 16, 400, ragged=False),
    Case("cold-full", 48, 800, ragged=False, sets=4),
    Case("bins-100", 32, 800, bins=100, sets=4),
    Case("long", 64, 1600, sets=2),
    Case("cache-bf16", 16, 400, dtype="bfloat16"),
    Case("cold-bf16", 48, 800, sets=6, dtype="bfloat16"),
)

TINY = Case("tiny", 2, 4)
"""So little arithmetic that what remains is the cost of calling."""


def make_inputs(case: Case, device: torch.device, seed: int = 0) -> Inputs:
    """Random tensors of one call; the leaves that models would produce require gradients."""
    draw = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, case.dtype)
    shortest = max(1, case.frames * 34 // 100) if case.ragged else case.frames
    lengths = torch.randint(shortest, case.frames + 1, (case.batch,), generator=draw)
    lengths[0] = case.frames

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=draw) * scale).to(device, dtype)

    rows = (case.batch, case.frames)
    return {
        "mel_pred": normal(*rows, case.bins).requires_grad_(),
        "mel_target": normal(*rows, case.bins),
        "mel_lengths": lengths.to(device),
        "stop_logits": normal(*rows).requires_grad_(),
        "mu": normal(*rows, case.latents).requires_grad_(),
        "logvar": normal(*rows, case.latents, scale=0.5).requires_grad_(),
    }


def eager(inputs: Inputs) -> Tensor:
    """What a careful user of plain torch writes: element losses from ``torch.nn.functional``, one mask each,
    sums over counts, nothing computed twice. It trusts padding to be finite, which saves it a pass."""
    prediction, lengths = inputs["mel_pred"], inputs["mel_lengths"]
    frames, bins = prediction.shape[1:]
    t = torch.arange(frames, device=prediction.device)
    valid = (t < lengths.unsqueeze(1)).unsqueeze(2)
    count = lengths.sum() * bins
    target = (1 - SMOOTHING) * inputs["mel_target"]
    mel = (F.huber_loss(prediction, target, reduction="none", delta=DELTA) * valid).sum() / count
    mu, logvar = inputs["mu"], inputs["logvar"]
    kl = (0.5 * (logvar.exp() + mu.square() - 1 - logvar) * valid).sum() / count
    included = t < (lengths + TAIL).clamp(max=frames).unsqueeze(1)
    positive = included & (t >= lengths.unsqueeze(1) - 1)
    labels = positive.to(prediction.dtype) * (1 - STOP_SMOOTHING) + STOP_SMOOTHING / 2
    weight = torch.full((), POS_WEIGHT, device=prediction.device, dtype=prediction.dtype)
    elements = F.binary_cross_entropy_with_logits(
        inputs["stop_logits"], labels, pos_weight=weight, reduction="none"
    )
    stop = (elements * included).sum() / included.sum()
    return MEL_WEIGHT * mel + KL_WEIGHT * kl + STOP_WEIGHT * stop


def backend_variant(name: str, device: torch.device) -> Variant:
    """``TTSLoss`` itself, module call and checks included."""
    loss = TTSLoss(
        mel_weight=MEL_WEIGHT,
        kl_weight=KL_WEIGHT,
        stop_weight=STOP_WEIGHT,
        attention_weight=0.0,
        huber_delta=DELTA,
        mel_label_smoothing=SMOOTHING,
        stop_label_smoothing=STOP_SMOOTHING,
        stop_pos_weight=POS_WEIGHT,
        stop_tail_frames=TAIL,
        weighting="fixed",
        backend=name,
    ).to(device)

    def call(inputs: Inputs) -> Tensor:
        return loss(
            inputs["mel_pred"],
            inputs["mel_target"],
            inputs["mel_lengths"],
            stop_logits=inputs["stop_logits"],
            posterior=(inputs["mu"], inputs["logvar"]),
        ).total

    return call


def variants(device: torch.device, compiled: Sequence[str] = ("default",)) -> dict[str, Variant]:
    """Everything that runs here, by name; ``compiled`` lists modes of ``torch.compile``."""
    found: dict[str, Variant] = {"eager": eager}
    for mode in compiled:
        name = "compile" if mode == "default" else f"compile-{mode}"
        found[name] = torch.compile(eager, mode=None if mode == "default" else mode, dynamic=False)
    for name in ("torch", "cpp", "triton"):
        fits = name != ("cpp" if device.type == "cuda" else "triton")
        if fits and backends.unavailable(name) is None:
            found[name] = backend_variant(name, device)
    return found


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
        rounds: turns of each variant on each case, three timed calls each, with a large copy after it.
        compiled: modes of ``torch.compile``; empty for none.
        progress: told what is being done.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.
    """
    device = torch.device(device)
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        chosen = variants(device, compiled)
        results = []
        for case in cases:
            progress(f"{case.name}: {case.batch} x {case.frames} x {case.bins}")
            results.append(_measure_case(case, chosen, device, rounds))
        progress("host overhead")
        return {
            "machine": machine.describe(device),
            "rounds": rounds,
            "cases": results,
            "host_us": _overhead(chosen, device, rounds),
        }
    finally:
        torch.set_num_threads(before)


def _measure_case(
    case: Case, chosen: dict[str, Variant], device: torch.device, rounds: int
) -> dict[str, Any]:
    sets = [make_inputs(case, device, seed) for seed in range(case.sets)]
    errors = {name: error_of(variant, sets[0]) for name, variant in chosen.items()}
    good = {name: variant for name, variant in chosen.items() if errors[name] <= TOLERANCE}
    memory = {name: _peak_memory(variant, sets[0], device) for name, variant in good.items()}
    both, forward, copy = _time(good, sets, device, rounds)
    lengths = [inputs["mel_lengths"].tolist() for inputs in sets]
    shape = roofline.Shape(case.batch, case.frames, case.bins, case.latents)
    item = sets[0]["mel_pred"].element_size()
    moves = [roofline.total_bytes(roofline.ledger(shape, length, item=item, tail=TAIL)) for length in lengths]
    bandwidth = median(copy)
    rows = {}
    for name in chosen:
        row: dict[str, Any] = {"error": errors[name], "correct": name in good}
        if name in good:
            seconds = median(both[name])
            speed = median(moves) / seconds
            row |= {
                "ms": seconds * 1e3,
                "best_ms": min(both[name]) * 1e3,
                "forward_ms": median(forward[name]) * 1e3,
                "gb_per_s": speed / 1e9,
                "of_copy": speed / bandwidth,
                "peak_bytes": memory[name],
            }
        rows[name] = row
    return {
        "case": asdict(case),
        "valid": sum(map(sum, lengths)) / (case.sets * case.batch * case.frames),
        "bytes": median(moves),
        "gradient_bytes": sum(x.numel() * x.element_size() for x in sets[0].values() if x.requires_grad),
        "copy_gb_per_s": bandwidth / 1e9,
        "best_copy_gb_per_s": max(copy) / 1e9,
        "variants": rows,
    }


def both_passes(variant: Variant, inputs: Inputs) -> tuple[Tensor, ...]:
    """The total and the gradients of what a model would have produced."""
    leaves = [inputs[name] for name in ("mel_pred", "mu", "logvar", "stop_logits")]
    total = variant(inputs)
    return (total, *torch.autograd.grad(total, leaves))


def error_of(variant: Variant, inputs: Inputs) -> float:
    """The largest error of value and gradients against float64, each relative to its largest element."""

    def wide(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return tensor.detach().double().requires_grad_(tensor.requires_grad)

    exact = backend_variant("torch", inputs["mel_pred"].device)
    truth = [part.detach() for part in both_passes(exact, {name: wide(x) for name, x in inputs.items()})]
    found = [part.detach() for part in both_passes(variant, inputs)]
    # Rounding to a half-precision gradient is the format's, not the variant's.
    unit = max(torch.finfo(inputs["mel_pred"].dtype).eps / 4 - TOLERANCE, 0)
    return max(
        float((a.double() - b).abs().max() / b.abs().max()) - unit for a, b in zip(found, truth, strict=True)
    )


def _time(
    chosen: dict[str, Variant], sets: Sequence[Inputs], device: torch.device, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], list[float]]:
    """Seconds of each call, both passes and the first alone, and bytes/s of the copies among them.

    In each round every variant has its turn, and after it the copy, which clears the caches. A turn is
    CALLS calls, the first untimed: it finds what the one before it left behind.
    """
    both: dict[str, list[float]] = {name: [] for name in chosen}
    forward: dict[str, list[float]] = {name: [] for name in chosen}
    copies: list[float] = []
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
        return [timed(lambda: variant(next(turn))) for _ in range(CALLS)][1:]

    for i in range(-2, rounds):
        for name, variant in chosen.items():
            seconds = take(partial(both_passes, variant))
            with torch.no_grad():
                alone = take(variant)
            copy_seconds = timed(copy)
            if i >= 0:
                both[name] += seconds
                forward[name] += alone
                copies.append(copy.bytes / copy_seconds)
    return both, forward, copies


def _overhead(chosen: dict[str, Variant], device: torch.device, rounds: int) -> dict[str, float]:
    """Microseconds of both passes where there is next to nothing to compute."""
    inputs = make_inputs(TINY, device)
    both, _, _ = _time(chosen, [inputs], device, rounds)
    return {name: median(seconds) * 1e6 for name, seconds in both.items()}


def _peak_memory(variant: Variant, inputs: Inputs, device: torch.device) -> int:
    """Bytes that one call needs at its highest, gradients included."""
    both_passes(variant, inputs)
    if device.type == "cuda":
        machine.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        both_passes(variant, inputs)
        machine.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # Before its first use the profiler can be told not to announce itself.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        kept = both_passes(variant, inputs)
    # Recycled memory does not pass through torch's allocator.
    recycled = native.core.recycled_bytes()[0] if native.core is not None else 0
    del kept
    now = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak + recycled


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
            f"  {'variant':<22}{'ms':>9}{'best':>9}{'fwd ms':>9}{'GB/s':>8}{'of copy':>9}"
            f"{'x eager':>9}{'x compile':>11}{'peak MB':>9}{'error':>10}"
        )
        for name, row in rows.items():
            if not row["correct"]:
                lines.append(f"  {name:<22}wrong: error {row['error']:.2g}, no figures")
                continue
            ratios = [
                f"{rows[other]['ms'] / row['ms']:.2f}" if rows.get(other, {}).get("correct") else "-"
                for other in ("eager", "compile")
            ]
            peak = f"{row['peak_bytes'] / 1e6:.1f}"
            lines.append(
                f"  {name:<22}{row['ms']:>9.3f}{row['best_ms']:>9.3f}{row['forward_ms']:>9.3f}"
                f"{row['gb_per_s']:>8.1f}{row['of_copy']:>9.0%}{ratios[0]:>9}{ratios[1]:>11}{peak:>9}"
                f"{row['error']:>10.1e}"
            )
    host = ", ".join(f"{name} {value:.0f}" for name, value in result["host_us"].items())
    lines.append(f"host overhead of both passes, microseconds: {host}")
    info = result["machine"]
    lines.append(
        f"{info['processor']}, {info['threads']} threads, load {info['load'][0]}, torch {info['torch']}, "
        f"commit {(info['commit'] or 'none')[:12]}, {info['date']}"
    )
    return "\n".join(lines)
