"""The loss benchmark for pytest: `pytest bench --benchmark-only`. Figures to quote come from
`python bench/loss.py`, which runs all variants interleaved."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ttsfast.benchmarks import loss as bench
from ttsfast.benchmarks import loss_cases as cases

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("name", ["eager", "compile", "torch", "cpp", "triton"])
def test_both_passes(benchmark: Any, name: str, case: cases.Case, device: str) -> None:
    where = torch.device(device)
    chosen = bench.variants(where, compiled=("default",) if name == "compile" else ())
    if name not in chosen:
        pytest.skip(f"{name} does not run on {device} here")
    sets = [cases.make_inputs(case, where, seed) for seed in range(case.sets)]
    error = bench.error_of(chosen[name], sets[0])
    assert error <= bench.TOLERANCE, f"{name} is wrong by {error:.2g}: no speed is reported"
    turn = iter(range(1 << 30))

    def both() -> None:
        bench.both_passes(chosen[name], sets[next(turn) % len(sets)])
        if device == "cuda":
            torch.cuda.synchronize()

    both()
    benchmark(both)
