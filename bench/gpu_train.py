"""The trainer with each of its features on and off, on the GPU; writes train-features.json and .txt.

--dry-run takes the same steps on the CPU, with what does not need a GPU, a small model and few turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ttsfast.benchmarks import training_features as features
from ttsfast.benchmarks.records import write_record


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, small")
    parser.add_argument("--seconds", type=float, default=90.0, help="begin no feature later than this")
    parser.add_argument("--size", default="base", help="of ConvTTS")
    options = parser.parse_args()
    if options.dry_run:
        small = {"size": "nano", "utterances": 64, "batch_size": 4, "steps": 1, "rounds": 1}
        result = features.run(
            ["loss", "cuda_graphs"],
            device=torch.device("cpu"),
            seconds=options.seconds,
            progress=print,
            **small,
        )
    else:
        result = features.run(
            features.NAMES,
            device=torch.device("cuda"),
            size=options.size,
            utterances=480,
            batch_size=48,
            steps=20,
            rounds=3,
            seconds=options.seconds,
            progress=print,
        )
    table = features.table(result)
    write_record(options.folder / "train-features.json", result)
    (options.folder / "train-features.txt").write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
