"""The trainer on a CPU that others use too: its own choice of threads beside fixed numbers of them, other
ways to wait, and a plain PyTorch loop.

How threads wait for each other is set before torch is loaded, so each has a process of its own, which sleeps
while another has its turn.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch

from ttsfast.benchmarks import machine
from ttsfast.benchmarks.data_corpus import like_speech, make_store
from ttsfast.benchmarks.training import config_of, plain_loops
from ttsfast.devices import available_cores
from ttsfast.training.setup import forever
from ttsfast.training.trainer import Trainer

ADAPTIVE, PLAIN = "trainer, its own choice", "plain PyTorch loop"
LEAST, LEAST_ALONE = 0.75, 0.97
"""Of the best fixed number of threads."""
SETTLING, RETURNING = 30.0, 120.0
"""Seconds that the trainer has to find its number before it is timed, and at most to come back to all."""
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""How threads wait; only a variant sets it."""
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@dataclass(frozen=True)
class Variant:
    """What takes turns."""

    threads: int
    waiting: Mapping[str, str] = field(default_factory=dict)
    """Environment that says how threads wait for each other."""


def variants_of(cores: int) -> dict[str, Variant]:
    """By the name in the table: powers of two up to all cores, and what there is beside them."""
    counts = sorted({2**i for i in range(cores.bit_length()) if 2**i <= cores} | {cores})
    return {
        ADAPTIVE: Variant(cores),
        **{fixed(count): Variant(count) for count in counts},
        f"{fixed(cores)}, GOMP_SPINCOUNT=1000": Variant(cores, {"GOMP_SPINCOUNT": "1000"}),
        f"{fixed(cores)}, GOMP_SPINCOUNT=10000": Variant(cores, {"GOMP_SPINCOUNT": "10000"}),
        f"{fixed(cores)}, passive": Variant(cores, {"OMP_WAIT_POLICY": "passive"}),
        PLAIN: Variant(cores),
    }


def fixed(threads: int) -> str:
    """The name of a fixed number under the usual way to wait."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


@dataclass(frozen=True)
class Turn:
    """What a process did in its turn."""

    frames: int
    seconds: float
    threads: int
    """At its end."""


def run(
    neighbours: Sequence[int] = (0, 1, 2, 4),
    *,
    utterances: int = 320,
    batch_size: int = 16,
    seconds: float = 8.0,
    rounds: int = 5,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure beside each number of busy neighbours, in turns of ``seconds`` or one step.

    A turn that is not counted comes first; then the rounds, in each of which every variant has a turn. Then
    the neighbours leave, and the trainer is watched until it has taken all threads again.

    Args:
        neighbours: how many busy processes, one number after the other.
        utterances: of the corpus.
        batch_size: utterances per update.
        seconds: of a turn; a step that was begun is ended.
        rounds: turns of each.
        threads: as many as there are cores when None.
        progress: told what is being done.

    Returns:
        A dictionary that ``json`` can write; :func:`table` shows it.
    """
    cores = min(threads or available_cores(), available_cores())
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        progress(f"{utterances} utterances")
        make_store(folder, like_speech(utterances))
        workers: dict[str, Callable[[float], Turn]] = {}
        for number, (variant, how) in enumerate(variants_of(cores).items()):
            progress(f"{variant}: starting")
            own = folder / f"process-{number}"
            workers[variant] = stack.enter_context(_process(variant, how, own, folder, batch_size))
        for count in neighbours:
            with busy(count):
                _settle(workers, seconds, cores)
                turns: dict[str, list[Turn]] = {variant: [] for variant in workers}
                for i in range(rounds):
                    progress(f"{count} neighbours, round {i + 1} of {rounds}")
                    for variant, turn in workers.items():
                        turns[variant].append(turn(seconds))
            row = summary(turns)
            if count:
                row["seconds_until_all_threads_again"] = _come_back(workers[ADAPTIVE], cores)
            rows[str(count)] = row
    return {
        "machine": {**machine.describe(torch.device("cpu")), "threads": cores},
        "batch_size": batch_size,
        "seconds": seconds,
        "rounds": rounds,
        "neighbours": rows,
    }


def summary(turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    """Medians by variant, and what the trainer reaches of the best fixed number of threads."""
    speeds = {name: median(turn.frames / turn.seconds for turn in taken) for name, taken in turns.items()}
    usual = [variant for variant in speeds if variant not in (ADAPTIVE, PLAIN) and "," not in variant]
    best = max(usual, key=speeds.__getitem__)
    return {
        "frames_per_second": speeds,
        "threads_chosen": [turn.threads for turn in turns[ADAPTIVE]],
        "best_fixed": best,
        "over_best_fixed": speeds[ADAPTIVE] / speeds[best],
        "over_plain_loop": speeds[ADAPTIVE] / speeds[PLAIN],
    }


@contextmanager
def busy(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes that compute without a pause, until the block ends or this process does."""
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            processes.append(stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY])))
            stack.callback(processes[-1].kill)
        yield processes


@contextmanager
def _process(
    variant: str, how: Variant, own: Path, corpus: Path, batch_size: int
) -> Iterator[Callable[[float], Turn]]:
    """A function that lets the process take one turn of so many seconds."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, variant, own, corpus, batch_size))
    inherited = {name: value for name, value in os.environ.items() if name not in WAITING}
    environment = {**inherited, **how.waiting, "OMP_NUM_THREADS": str(how.threads)}
    with mock.patch.dict(os.environ, environment, clear=True):
        process.start()
    theirs.close()

    def turn(seconds: float) -> Turn:
        ours.send(seconds)
        return Turn(*ours.recv())

    try:
        ours.recv()
        yield turn
    finally:
        # It ends when it is told nothing more.
        ours.close()
        process.join()


def _serve(pipe: Connection, variant: str, own: Path, corpus: Path, batch_size: int) -> None:
    """In a process of its own: take turns of as many seconds as are asked for, until nobody asks any more."""
    own.mkdir()
    (own / "store").symlink_to(corpus / "store")
    with Trainer(config_of(own, batch_size, max_steps=1_000_000)) as trainer:
        trainer.model.train()
        batches = forever(trainer.loader)
        adapts = variant == ADAPTIVE
        plain = plain_loops(trainer, own / "npy", workers=(1,))[0][1] if variant == PLAIN else None

        def step() -> int:
            if plain is not None:
                return plain.step()
            batch = next(batches)
            if adapts:
                trainer.threads.begin()
            trainer.train_step([batch])
            if adapts:
                trainer.threads.end(batch.frames)
            return batch.frames

        step()
        pipe.send(None)
        while True:
            try:
                seconds = pipe.recv()
            except EOFError:
                return
            began, frames = time.perf_counter(), 0
            while (passed := time.perf_counter() - began) < seconds:
                frames += step()
            # As a log point does, outside of what is measured.
            trainer.monitor.read()
            trainer.monitor.take()
            pipe.send((frames, passed, trainer.threads.figures()["threads"]))


def _settle(workers: Mapping[str, Callable[[float], Turn]], seconds: float, cores: int) -> None:
    for variant, turn in workers.items():
        turn(SETTLING if variant == ADAPTIVE and cores > 1 else seconds)


def _come_back(turn: Callable[[float], Turn], cores: int) -> float | None:
    """Seconds until it has taken all threads; None where that takes longer than :data:`RETURNING`."""
    passed = 0.0
    while passed < RETURNING:
        taken = turn(1.0)
        if taken.threads == cores:
            return passed
        passed += taken.seconds
    return None


def table(result: dict[str, Any]) -> str:
    """The figures in columns, one for each number of neighbours."""
    rows = result["neighbours"]
    variants = next(iter(rows.values()))["frames_per_second"]
    lines = [
        f"ConvTTS nano, batches of {result['batch_size']}, frames/s beside busy processes",
        f"  {'neighbours':<34}" + "".join(f"{count:>10}" for count in rows),
    ]
    lines += [
        f"  {variant:<34}" + "".join(f"{row['frames_per_second'][variant]:>10,.0f}" for row in rows.values())
        for variant in variants
    ]
    lines.append(
        f"  {'of the best fixed number':<34}"
        + "".join(f"{row['over_best_fixed']:>10.2f}" for row in rows.values())
    )
    lines += [
        f"{count} neighbours: threads {', '.join(str(n) for n in row['threads_chosen'])}"
        + (f"; all again {back:.0f} s after they left" if back is not None else "; not all again")
        for count, row in rows.items()
        if (back := row.get("seconds_until_all_threads_again", -1)) != -1
    ]
    lines.append(f"targets: {LEAST_ALONE} of the best fixed number alone, {LEAST} beside neighbours")
    lines.append(machine.summary(result["machine"]))
    return "\n".join(lines)
