"""What the cheap checks of a dataset cost: python bench/doctor_cost.py KATHLEEN --output FILE

Time: 1,000 recordings of a reader. Memory: corpora of 1,000, 5,000 and 20,000 short recordings (links to a
few files, a text each), each in a process of its own, which tells its largest size.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.demo.corpus import demo_sentences
from ttsfast.doctor.dataset import DatasetOptions, examine_dataset
from ttsfast.progress import console

SIZES = (1000, 5000, 20_000)


def look(corpus: Path, jobs: int) -> None:
    """Look at it in this process, and print what it took."""
    console.quiet = True
    diagnosis = examine_dataset(corpus, DatasetOptions(jobs=jobs, listen=False)).diagnosis
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        "looked_at": diagnosis.looked_at,
        "seconds": round(diagnosis.seconds, 1),
        "peak_mib": round(peak),
    }
    print(json.dumps(found))


def apart(corpus: Path, jobs: int) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, str(corpus), "--look", "--jobs", str(jobs)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def of_a_reader(source: Path, folder: Path) -> Path:
    """A thousand of its recordings."""
    folder.mkdir()
    (folder / "wavs").symlink_to(source / "wavs")
    lines = (source / "metadata.csv").read_text().splitlines(keepends=True)
    (folder / "metadata.csv").write_text("".join(lines[:1000]))
    return folder


def of_links(source: Path, folder: Path, size: int) -> Path:
    """So many utterances of twenty short recordings, and words in any order."""
    (folder / "wavs").mkdir(parents=True)
    shortest = sorted((source / "wavs").iterdir(), key=lambda path: path.stat().st_size)[:20]
    words = sorted({word for text in demo_sentences("en", 200, 0, 0)[0] for word in text.split()})
    random, lines = Random(0), []
    for number in range(size):
        recording = folder / "wavs" / f"{number:05d}.flac"
        if number < len(shortest):
            shutil.copyfile(shortest[number], recording)
        else:
            recording.hardlink_to(folder / "wavs" / f"{number % len(shortest):05d}.flac")
        text = " ".join(random.choices(words, k=4))
        lines.append(f"{number:05d}|{text}|{text}\n")
    (folder / "metadata.csv").write_text("".join(lines))
    return folder


def main() -> None:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--look", action="store_true", help="at this corpus only, in this process")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.look:
        look(arguments.corpus, arguments.jobs)
        return
    record: dict[str, Any] = {"machine": describe(torch.device("cpu")), "jobs": arguments.jobs}
    source = arguments.corpus.absolute()
    with tempfile.TemporaryDirectory() as name:
        record["reader"] = apart(of_a_reader(source, Path(name) / "reader"), arguments.jobs)
        for size in SIZES:
            linked = of_links(source, Path(name) / str(size), size)
            record[f"{size} recordings"] = apart(linked, arguments.jobs)
    print(json.dumps(record, indent=1))
    write_record(arguments.output, record)


if __name__ == "__main__":
    main()
