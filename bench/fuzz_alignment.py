"""Align random ragged batches and compare with the reference; writes bench/results/fuzz-alignment.json.

``--backend triton`` runs the kernels in Triton's interpreter where there is no GPU: set TRITON_INTERPRET=1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from ttsfast.benchmarks import machine
from ttsfast.benchmarks.records import write_record

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "bench" / "results" / "fuzz-alignment.json"
SIZES = {"cpp": (24, 20), "triton": (6, 5)}
"""Most frames and symbols: the interpreter takes its time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=list(SIZES), default="cpp")
    parser.add_argument("--batches", type=int, default=10000)
    parser.add_argument("--first", type=int, default=0, help="number of the first batch")
    parser.add_argument("--output", type=Path, default=RECORD)
    chosen = parser.parse_args()
    # The cases are the tests' own.
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from alignment_fuzz import difference

    frames, symbols = SIZES[chosen.backend]
    began, found = time.monotonic(), []
    for seed in range(chosen.first, chosen.first + chosen.batches):
        line = difference(seed, chosen.backend, frames, symbols)
        if line is not None:
            found.append(line)
            print(line, file=sys.stderr, flush=True)
    record = json.loads(chosen.output.read_text()) if chosen.output.exists() else {}
    record[chosen.backend] = {
        "machine": machine.describe(torch.device("cpu")),
        "batches": chosen.batches,
        "first": chosen.first,
        "most_frames": frames,
        "most_symbols": symbols,
        "seconds": round(time.monotonic() - began, 1),
        "findings": found,
    }
    write_record(chosen.output, record)
    print(f"{chosen.batches} batches, {len(found)} findings, written to {chosen.output}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
