"""How fast the search and the forward-sum loss are beside what people use today, in one interleaved run.

Every way is first held against the reference: durations must be the same, loss and gradient to 1e-4. One that
is wrong is reported as wrong and gets no figures. Scores lie dense in memory; the loss is timed forward and
backward, from Python through autograd. Beside them, what alignment adds to a training step of each model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ttsfast.alignment import reference
from ttsfast.benchmarks import alignment_step, machine
from ttsfast.benchmarks.alignment_cases import (
    CASES,
    Batch,
    Case,
    fused,
    looped_ctc,
    losses,
    make_batch,
    searches,
)
from ttsfast.devices import torch_threads

TOLERANCE = 1e-4
"""Of our loss and gradient, relative to the largest element."""
CTC_TOLERANCE = 2e-2
"""Of torch's, whose float32 sums lose more the longer the utterance is: they are its users' to accept."""


def run(
    cases: Sequence[Case] = CASES,
    *,
    device: str | torch.device = "cpu",
    threads: int | None = None,
    rounds: int = 10,
    steps_of: Sequence[str] = tuple(alignment_step.ARCHITECTURES),
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure every way on every case, and what alignment takes of a training step.

    Args:
        cases: sizes of batches.
        device: ``"cpu"`` or a CUDA device.
        threads: of torch, the C++ backend and numba; torch's own setting when None.
        rounds: turns of each way on each case.
        steps_of: architectures whose training step is measured.
        progress: told what is being done.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.
    """
    device = torch.device(device)
    with torch_threads(threads):
        results = []
        for case in cases:
            progress(f"{case.batch} x {case.frames} x {case.symbols}")
            batch = make_batch(case, device)
            results.append(
                {
                    "case": asdict(case),
                    "search": _measure(_checked_searches(batch), batch, rounds),
                    "loss": _measure(_checked_losses(batch), batch, rounds),
                }
            )
        steps = {}
        for architecture in steps_of:
            progress(f"a training step of {architecture}")
            steps[architecture] = alignment_step.share(architecture, device, rounds)
        return {
            "machine": machine.describe(device),
            "fused": fused(device),
            "rounds": rounds,
            "cases": results,
            "steps": steps,
        }


Checked = dict[str, tuple[Callable[[Batch], Any], float]]
"""What to time, and its error."""


def _checked_searches(batch: Batch) -> Checked:
    expected = reference.search(*batch.given())
    return {
        name: (search, float((search(batch) != expected).sum()))
        for name, search in searches(batch.scores.device).items()
    }


def _checked_losses(batch: Batch) -> Checked:
    truth = both_passes(looped_ctc, replace(batch, scores=batch.scores.double()))
    checked: Checked = {}
    for name, loss in losses(batch.scores.device).items():
        found = both_passes(loss, batch)
        errors = torch.stack([(a - b).abs().max() / b.abs().max() for a, b in zip(found, truth, strict=True)])
        # The largest, and NaN where one is.
        checked[name] = (partial(both_passes, loss), float(errors.max()))
    return checked


def both_passes(loss: Callable[[Batch], Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss and the gradient of the scores."""
    leaf = batch.scores.detach().requires_grad_()
    value = loss(replace(batch, scores=leaf))
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def _measure(ways: Checked, batch: Batch, rounds: int) -> dict[str, dict[str, Any]]:
    device = batch.scores.device
    rows: dict[str, dict[str, Any]] = {
        name: {"error": error, "correct": error <= (CTC_TOLERANCE if name.startswith("ctc") else TOLERANCE)}
        for name, (_, error) in ways.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in rows if rows[name]["correct"]}
    for _ in range(rounds):
        for name, taken in seconds.items():
            machine.synchronize(device)
            begin = time.perf_counter()
            ways[name][0](batch)
            machine.synchronize(device)
            taken.append(time.perf_counter() - begin)
    for name, taken in seconds.items():
        rows[name] |= {"ms": median(taken) * 1e3, "best_ms": min(taken) * 1e3}
    return rows


def table(result: dict[str, Any]) -> str:
    """The figures in columns, and how many times ours each takes."""
    ours = result["fused"]
    lines = []
    for entry in result["cases"]:
        case = entry["case"]
        lines.append(f"B={case['batch']} T<={case['frames']} N<={case['symbols']}")
        for what in ("search", "loss"):
            rows = entry[what]
            for name, row in rows.items():
                if not row["correct"]:
                    lines.append(f"  {what:<8}{name:<28}wrong: error {row['error']:.2g}, no figures")
                    continue
                ratio = f"{row['ms'] / rows[ours]['ms']:.1f}" if rows[ours]["correct"] else "-"
                lines.append(
                    f"  {what:<8}{name:<28}{row['ms']:>10.2f} ms{row['best_ms']:>10.2f} best{ratio:>8} x ours"
                )
    for architecture, step in result["steps"].items():
        parts = ", ".join(f"{name} {ms:.2f}" for name, ms in step["parts_ms"].items())
        lines.append(
            f"{architecture} {step['size']}, B={step['batch']} T={step['frames']} N={step['symbols']}: "
            f"a step without alignment {step['without_ms']:.1f} ms, with it {step['with_ms']:.1f} ({parts}), "
            f"{100 * step['share']:.2f}% of it"
        )
    lines.append(machine.summary(result["machine"]))
    return "\n".join(lines)
