"""How long a plan takes for 100,000 utterances, and a seek in it; how large its state is."""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any

import numpy as np

from ttsfast.data.loading.plan import BatchPlan, Cursor

UTTERANCES = 100_000
VARIANTS: dict[str, dict[str, Any]] = {
    "batches of 48": {},
    "frame budget 30,000": {"frame_budget": 30_000},
    "balanced speakers": {"speaker_balance": 0.5},
}


def run(*, rounds: int = 7) -> dict[str, Any]:
    """Milliseconds to make a plan and to seek into an epoch that it has not seen, by variant.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.
    """
    draw, utterances = np.random.default_rng(0), UTTERANCES
    frames = np.clip(draw.normal(550, 190, utterances), 90, 800).astype(np.int64)
    options = {"batch_size": 48, "seed": 0, "speakers": draw.integers(0, 100, utterances)}
    rows: dict[str, Any] = {}
    for name, changes in VARIANTS.items():
        built, sought, cpu, size = [], [], [], 0
        for _ in range(rounds):
            begin = time.perf_counter()
            plan = BatchPlan(frames, np.arange(utterances), **{**options, **changes})
            built.append(time.perf_counter() - begin)
            cursor = Cursor(plan)
            begin, busy = time.perf_counter(), time.process_time()
            cursor.load_state_dict({"epoch": 3, "position": utterances // 100})
            cpu.append(time.process_time() - busy)
            sought.append(time.perf_counter() - begin)
            size = len(json.dumps(cursor.state_dict()))
        rows[name] = {
            "plan_ms": median(built) * 1e3,
            "seek_ms": median(sought) * 1e3,
            "seek_cpu_ms": median(cpu) * 1e3,
            "state_bytes": size,
            "batches": len(cursor.batches(3)),
        }
    return {"utterances": utterances, "variants": rows}


def table(result: dict[str, Any]) -> str:
    """The figures in columns."""
    lines = [
        f"planning: {result['utterances']:,} utterances",
        f"  {'variant':<22}{'plan ms':>9}{'seek ms':>9}{'of CPU':>9}{'state bytes':>13}{'batches':>9}",
    ]
    for name, row in result["variants"].items():
        lines.append(
            f"  {name:<22}{row['plan_ms']:>9.1f}{row['seek_ms']:>9.1f}{row['seek_cpu_ms']:>9.1f}"
            f"{row['state_bytes']:>13}{row['batches']:>9}"
        )
    return "\n".join(lines)
