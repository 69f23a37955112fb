"""What the doctor says of clean corpora, listening included: no error, and at most two warnings.

    python bench/clean_corpora.py KATHLEEN LJSPEECH --output bench/results/clean-corpora.json

The corpora that are named, and those of the demo, English and Persian, which espeak-ng speaks. All were at
hand, in whole or part, when thresholds were set: false alarms are counted, on no half that was kept apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.demo.corpus import write_demo_corpus
from ttsfast.doctor.dataset import DatasetOptions, examine_dataset
from ttsfast.progress import console

MOST_WARNINGS = 2


def looked_at(corpus: Path, language: str) -> dict[str, Any]:
    """Findings, in a line each, and whether somebody listened."""
    options = DatasetOptions(language=language, jobs=1)
    diagnosis = examine_dataset(corpus, options).diagnosis
    found = [
        {
            "severity": f.severity,
            "check": f.check,
            "what": f.what,
            "worst": [f"{e.id}: {e.what}" for e in f.evidence[:3]],
        }
        for f in diagnosis.findings
    ]
    return {
        "looked_at": diagnosis.looked_at,
        "verdict": diagnosis.verdict,
        "counts": diagnosis.counts,
        "listened": not any("nobody listened" in one["what"] for one in found),
        "findings": found,
        "checks_that_found_nothing": len(diagnosis.passed),
        "not_at_hand": list(diagnosis.not_run),
        "seconds": round(diagnosis.seconds, 1),
    }


def main() -> None:
    """Look at all, print and write the record; exit code 1 where one has an error or more warnings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", type=Path, nargs="+", help="English ones")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console.quiet = True
    record: dict[str, Any] = {
        "machine": describe(torch.device("cpu")),
        "corpora": {},
    }
    with tempfile.TemporaryDirectory() as work:
        spoken = {f"espeak {language}": language for language in ("en", "fa")}
        places = {corpus.name: (corpus, "en") for corpus in arguments.corpora}
        for name, language in spoken.items():
            places[name] = (write_demo_corpus(Path(work) / language, language).folder, language)
        for name, (corpus, language) in places.items():
            record["corpora"][name] = looked_at(corpus, language)
            print(name, record["corpora"][name]["verdict"], file=sys.stderr)
    print(json.dumps(record, indent=1, ensure_ascii=False))
    write_record(arguments.output, record)
    counts = [one["counts"] for one in record["corpora"].values()]
    sys.exit(any(one["error"] or one["warning"] > MOST_WARNINGS for one in counts))


if __name__ == "__main__":
    main()
