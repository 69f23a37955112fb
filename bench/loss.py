"""Measure the composite loss and write bench/results/loss-<device>.json; see --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ttsfast.benchmarks import loss
from ttsfast.benchmarks import loss_cases as cases
from ttsfast.benchmarks.records import write_record

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None, help="torch's own setting when left out")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--all", action="store_true", help="more shapes than the two with targets")
    parser.add_argument(
        "--compiled", nargs="*", default=["default"], help="modes of torch.compile; none to skip it"
    )
    parser.add_argument("--output", type=Path, default=None)
    chosen = parser.parse_args()
    result = loss.run_loss_bench(
        cases.CASES + cases.MORE_CASES if chosen.all else cases.CASES,
        device=chosen.device,
        threads=chosen.threads,
        rounds=chosen.rounds,
        compiled=chosen.compiled,
        progress=lambda line: print(line, file=sys.stderr),
    )
    output = chosen.output or RESULTS / f"loss-{chosen.device.replace(':', '')}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    write_record(output, result)
    print(loss.table(result))
    print(f"written to {output}")


if __name__ == "__main__":
    main()
