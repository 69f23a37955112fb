"""Damaged listings, at length: python bench/fuzz_corpora.py --output bench/results/fuzz-corpora.json

A small corpus of each layout, its listing changed at random places (separators, quotes, controls, paths that
lead out, other encodings, lines cut and joined), is read, and every few cases prepared. Every case must end
in one line that says what is wrong, with no store written; or in a corpus whose recordings lie in its folder
and whose texts are there, and a store that ``verify`` finds sound and that has each of them.

The tests do the same in short. Exit code 1, with the case, if anything is not as promised.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from hypothesis import HealthCheck, Phase, given, settings

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.data.corpus.listings import read_corpus
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError
from ttsfast.progress import console

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from listed_corpora import check_reading, check_refusal, damaged_corpora, write_listed
from small_corpus import RATE, prepare_small

PREPARED_EVERY = 5


def run(cases: int) -> Counter[str]:
    """How many cases ended in what; raises what is not as promised."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wave = 0.3 * np.sin(np.arange(RATE // 4) * np.linspace(0.1, 1.0, RATE // 4))
        soundfile.write(folder / "tone.wav", wave, RATE)

        @settings(
            max_examples=cases,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(damaged_corpora())
        def each(case: tuple[str, dict[str, bytes]]) -> None:
            prepared = outcomes.total() % PREPARED_EVERY == 0
            outcomes[_case(folder, case, prepared=prepared)] += 1

        each()
    return outcomes


def _case(folder: Path, case: tuple[str, dict[str, bytes]], *, prepared: bool) -> str:
    corpus, store = folder / "corpus", folder / "store"
    for path in (corpus, store):
        shutil.rmtree(path, ignore_errors=True)
    write_listed(corpus, case[0], folder / "tone.wav")
    for path, content in case[1].items():
        (corpus / path).write_bytes(content)
    try:
        read = read_corpus(corpus)
    except InputError as error:
        check_refusal(error)
        return "refused"
    check_reading(read)
    if not prepared:
        return "read with faults" if read.exclusions else "read"
    try:
        prepare_small(corpus, store, exclude_bad=True, validation_fraction=0.0)
    except InputError as error:
        check_refusal(error)
        if (store / "manifest.json").exists():
            raise AssertionError(f"{case}: refused, and a store was written") from error
        return "refused by prepare"
    assert not verify(store).problems
    entries = Store.open(store).entries
    stored, left_out = {entry.id for entry in entries}, {e.id for e in Store.open(store).manifest.exclusions}
    assert stored <= {item.id for item in read.items} <= stored | left_out
    return "prepared"


def record_cases(run: Callable[[int], Counter[str]], description: str) -> int:
    """The command line of a fuzzer: run it, write the record, say what came of it."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    console.quiet = True
    start = time.time()
    outcomes = run(arguments.cases)
    record = {
        "machine": describe(torch.device("cpu")),
        "cases": outcomes.total(),
        "outcomes": dict(outcomes.most_common()),
        "seconds": round(time.time() - start),
    }
    write_record(arguments.output, record)
    print(json.dumps(record["outcomes"]))
    return 0


if __name__ == "__main__":
    sys.exit(record_cases(run, __doc__ or ""))
