"""What the store promises, tried at length: python bench/faults.py --output bench/results/store-faults.json

Kills: ``prepare``, ``append`` and ``prepare --shard i/n`` with ``finalize``, each killed (SIGKILL) at random
moments of its run. Every time the folder must hold no store, the old one or the new one, each sound; and a
second run must end in the bytes of an undisturbed one.

Damage: every byte of the manifest and of every header with each of its bits flipped and one other change,
sampled bytes of the arrays, and truncations, of a small store. Every one must be found by ``verify``, and be
an error on reading.

Full disk: a preparation and an append into a file system of every size from nothing to enough (needs the
right to mount one; left out and said otherwise).

The tests do the same in short. Exit code 1 if anything is not as promised.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.data.prepare import extraction, writer
from ttsfast.data.prepare.append import append
from ttsfast.data.prepare.partitions import Partition
from ttsfast.data.prepare.prepare import finalize, prepare, prepare_partition
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError
from ttsfast.progress import console

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from small_corpus import contents, options, write_corpus

OLD, NEW = 100, 200
"""Utterances before and after an append."""


def small_pieces() -> None:
    """Many chunks and several shards, so that there are many moments to be killed at."""
    extraction.CHUNK, writer.SHARD_FRAMES = 16, 1500


def run_prepare(corpus: Path, folder: Path) -> None:
    """One process."""
    prepare(corpus, folder, options())


def run_append(corpus: Path, folder: Path) -> None:
    """To the old store."""
    append(corpus, folder, jobs=1)


def run_partitions(corpus: Path, folder: Path) -> None:
    """Three workers one after the other, then the end; over a finished store nothing."""
    if not (folder / NAME).exists():
        for index in range(1, 4):
            prepare_partition(corpus, folder, options(), Partition(index, 3))
    finalize(folder)


def in_child(run: Callable[[Path, Path], None], corpus: Path, folder: Path, ready: Any) -> None:
    """Runs in a child: tell that it begins, and begin."""
    small_pieces()
    console.quiet = True
    ready.set()
    run(corpus, folder)


def kills(
    run: Callable[[Path, Path], None], corpus: Path, old: Path | None, work: Path, count: int, seed: int
) -> dict[str, Any]:
    """Kill ``run`` at ``count`` moments, spread evenly at random over its duration."""
    # What is asked for last must be imported already in the server, or most moments are spent on imports.
    context = multiprocessing.get_context("forkserver")
    imports = ("joblib", "safetensors.numpy", "soundfile", "soxr")
    context.set_forkserver_preload(["ttsfast.data.prepare.append", *imports])
    chance = random.Random(seed)

    def fresh(name: str) -> Path:
        folder = work / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder if old is None else Path(shutil.copytree(old, folder))

    def start(folder: Path) -> Any:
        ready = context.Event()
        child = context.Process(target=in_child, args=(run, corpus, folder, ready))
        child.start()
        ready.wait()
        return child

    durations = []
    for number in range(3):
        child = start(folder := fresh(f"whole{number}"))
        began = time.perf_counter()
        child.join()
        durations.append(time.perf_counter() - began)
    expected = contents(folder)
    before = {} if old is None else contents(old)
    duration = sorted(durations)[1]
    found: Counter[str] = Counter()
    wrong = []
    killed = tries = 0
    while killed < count:
        folder = fresh("store")
        moment = chance.random() * duration
        tries += 1
        child = start(folder)
        child.join(moment)
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        # One that was done before the moment came is looked at, too, but is no kill.
        ended = child.exitcode != -signal.SIGKILL
        killed += not ended
        state = state_of(folder, before, expected)
        found[state + (" (had ended)" if ended else "")] += 1
        if state.startswith("WRONG"):
            wrong.append(f"try {tries} at {moment:.3f} s: {state}")
            continue
        run(corpus, folder)
        if contents(folder) != expected:
            wrong.append(f"try {tries} at {moment:.3f} s: other bytes after the second run")
    return {
        "kills": killed,
        "seed": seed,
        "undisturbed_seconds": round(duration, 3),
        "found": dict(found),
        "same_bytes_after_second_run": tries - len(wrong),
        "wrong": wrong,
    }


def state_of(folder: Path, before: dict[str, bytes], expected: dict[str, bytes]) -> str:
    """What a killed run has left."""
    if not (folder / NAME).exists():
        return "absent" if not before else "WRONG: the old store is gone"
    problems = verify(folder).problems
    if problems:
        return f"WRONG: {problems[0]}"
    manifest = (folder / NAME).read_bytes()
    if manifest == expected[NAME]:
        return "complete"
    if manifest == before.get(NAME) and before.items() <= contents(folder).items():
        return "old"
    return "WRONG: neither the old store nor the new one"


def damage(corpus: Path, work: Path, samples: int, seed: int) -> dict[str, Any]:
    """Every change of one byte in headers and manifest, sampled ones in the arrays; and truncations."""
    extraction.CHUNK, writer.SHARD_FRAMES = 4, 150
    folder = work / "damage"
    prepare(corpus, folder, options())
    small_pieces()
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    wrong = []
    for path in sorted(folder.iterdir()):
        pristine = path.read_bytes()
        kind = "manifest" if path.name == NAME else "shard"
        head = len(pristine) if kind == "manifest" else 8 + int.from_bytes(pristine[:8], "little")
        rest = range(head, len(pristine))
        with open(path, "r+b") as handle:
            bits = [1 << bit for bit in range(8)]
            places = [(at, bit) for at in range(head) for bit in [*bits, chance.randrange(1, 256)]]
            places += [
                (place, chance.randrange(1, 256)) for place in chance.sample(rest, min(samples, len(rest)))
            ]
            for place, change in places:
                os.pwrite(handle.fileno(), bytes([pristine[place] ^ change]), place)
                # The header and the manifest are compared whole on opening: a quick look must do.
                area = f"{kind}: {'header' if place < head else 'arrays'}"
                if not caught(folder, quick=place < head, read=place >= head or change == 1):
                    wrong.append(f"{path.name}: byte {place} xor {change}")
                os.pwrite(handle.fileno(), pristine[place : place + 1], place)
                counts[f"{area}: changed bytes"] += 1
            step = max(1, len(pristine) // samples)
            sizes = [*range(min(head, 400)), *range(0, len(pristine), step)]
        for size in sizes:
            path.write_bytes(pristine[:size])
            if not caught(folder, quick=True, read=True):
                wrong.append(f"{path.name}: cut to {size}")
            counts[f"{kind}: truncations"] += 1
        path.write_bytes(pristine)
    if not verify(folder).ok:
        wrong.append("the store itself was not restored")
    return {"store_bytes": sum(map(len, contents(folder).values())), **counts, "wrong": wrong}


def caught(folder: Path, *, quick: bool, read: bool) -> bool:
    """Whether ``verify`` finds damage, and reading everything raises."""
    if verify(folder, quick=quick).ok:
        return False
    if not read:
        return True
    try:
        store = Store.open(folder)
        for index in range(len(store)):
            store[index]
    except InputError as error:
        return "\n" not in str(error)
    return False


def full_disk(corpus: Path, grown: Path, work: Path, expected: dict[str, int]) -> dict[str, Any]:
    """Into file systems too small for it, then into one that is enlarged."""
    mount = work / "disk"
    mount.mkdir()
    found: Counter[str] = Counter()
    wrong = []
    for kibibytes in range(16, 900, 32):
        command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(mount)]
        if subprocess.run(command, capture_output=True).returncode:
            return {"left_out": "no right to mount a file system here"}
        try:
            folder = mount / "store"
            outcome = tried(run_prepare, corpus, folder)
            if outcome != "fits":
                if (folder / NAME).exists() or outcome != "one line":
                    wrong.append(f"{kibibytes} KiB: prepare: {outcome}")
                subprocess.run(["mount", "-o", "remount,size=8m", str(mount)], check=True)
                outcome = f"prepare: {outcome}, then {tried(run_prepare, corpus, folder)}"
            else:
                before = contents(folder)
                outcome = tried(run_append, grown, folder)
                kept = before.items() <= contents(folder).items()
                if outcome != "fits" and (not kept or outcome != "one line"):
                    wrong.append(f"{kibibytes} KiB: append: {outcome}")
                subprocess.run(["mount", "-o", "remount,size=8m", str(mount)], check=True)
                outcome = f"append: {outcome}, then {tried(run_append, grown, folder)}"
            found[outcome] += 1
            if not verify(folder).ok or len(Store.open(folder)) not in expected.values():
                wrong.append(f"{kibibytes} KiB: not sound at the end")
        finally:
            subprocess.run(["umount", str(mount)], check=True)
    return {"file_systems": sum(found.values()), "found": dict(found), "wrong": wrong}


def tried(run: Callable[[Path, Path], None], corpus: Path, folder: Path) -> str:
    """ "fits", "one line" for an error as it should be, or the error that should not be."""
    try:
        run(corpus, folder)
    except InputError as error:
        return "one line" if "make room" in str(error) and "\n" not in str(error) else repr(error)
    except OSError as error:
        return repr(error)
    return "fits"


def main() -> None:
    """Try everything, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="of each command")
    parser.add_argument("--samples", type=int, default=300, help="bytes of each shard's arrays")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console.quiet = True
    small_pieces()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        corpus, grown = write_corpus(work / "corpus", OLD), write_corpus(work / "grown", NEW)
        tiny = write_corpus(work / "tiny", 6)
        run_prepare(corpus, work / "old")
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "prepare": lambda: kills(run_prepare, corpus, None, work, arguments.kills, arguments.seed),
            "append": lambda: kills(
                run_append, grown, work / "old", work, arguments.kills, arguments.seed + 1
            ),
            "shards_and_finalize": lambda: kills(
                run_partitions, corpus, None, work, arguments.kills, arguments.seed + 2
            ),
            "damage": lambda: damage(tiny, work, arguments.samples, arguments.seed),
            "full_disk": lambda: full_disk(corpus, grown, work, {"old": OLD, "new": NEW}),
        }
        result = {"machine": describe(torch.device("cpu"))}
        for part, run in parts.items():
            started = time.perf_counter()
            result[part] = run()
            print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    result["seconds"] = round(time.perf_counter() - began, 1)
    write_record(arguments.output, result)
    print(json.dumps(result, indent=1))
    sys.exit(any(part.get("wrong") for part in result.values() if isinstance(part, dict)))


if __name__ == "__main__":
    main()
