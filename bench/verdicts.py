"""How often the log's convergence is right, on made-up losses of which the truth is known.

    python bench/verdicts.py --seeds 100 --output bench/results/verdicts.json

Batches come from the trainer's own plan of an imagined corpus. A loss is a level that follows a story, times
what the batch's utterances make of it: long ones have a larger loss, each has a difficulty of its own, and
the rest is chance, which may remember the steps before. Beside the verdict stands the plain rule without
statistics: the mean of a window's newer half over that of its older half, and its standard deviation.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ttsfast.benchmarks.machine import describe
from ttsfast.benchmarks.records import write_record
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.training.convergence import Convergence

WINDOW, THRESHOLD, LOG_STEP = 200, 0.95, 50


class Story(NamedTuple):
    """A level over steps, and the noise of its batches, all relative to a loss of 1."""

    truth: str
    level: Callable[[int], float]
    utterances: int = 1500
    lengths: float = 0.35
    """How much larger the loss of an utterance e times as long is."""
    chance: float = 0.04
    memory: float = 0.0
    """Correlation of what is chance from one step to the next."""


def wave(size: float, period: int) -> Callable[[int], float]:
    """A sine of this amplitude."""
    return lambda step: 1 + size * math.sin(2 * math.pi * step / period)


STORIES = {
    "still": Story("plateau", lambda step: 1.0),
    "still, lengths matter twice as much": Story("plateau", lambda step: 1.0, lengths=0.7),
    "still, 150 utterances": Story("plateau", lambda step: 1.0, utterances=150),
    "still, chance remembers": Story("plateau", lambda step: 1.0, memory=0.5),
    "falls by 0.5% a window": Story("improving", lambda step: math.exp(-0.005 * step / WINDOW)),
    "falls by 1% a window": Story("improving", lambda step: math.exp(-0.01 * step / WINDOW)),
    "falls by 5% a window": Story("improving", lambda step: math.exp(-0.05 * step / WINDOW)),
    "falls like a real run": Story("improving", lambda step: 0.8 + 6 / (step + 30) ** 0.5),
    "swings by 10% every 12 steps": Story("oscillating", wave(0.1, 12)),
    "swings by 10% every 60 steps": Story("oscillating", wave(0.1, 60)),
    "wanders by 10%": Story("oscillating", lambda step: 1.0, chance=0.1, memory=0.9),
    "rises by 10% a window": Story("diverging", lambda step: math.exp(0.1 * step / WINDOW)),
    "rises by 2% a step from step 1,000": Story("diverging", lambda step: 1.02 ** max(0, step - 1000)),
}


def losses(story: Story, seed: int) -> Iterator[tuple[float, float]]:
    """Endless steps: a loss, and the mean frames of its utterances."""
    generator = np.random.default_rng(seed)
    frames = np.clip(generator.lognormal(math.log(250), 0.3, story.utterances), 60, 800).astype(int)
    difficulty = 1 + story.lengths * np.log(frames / 250) + 0.15 * generator.normal(size=story.utterances)
    plan = BatchPlan(frames, np.arange(story.utterances), batch_size=16, seed=seed)
    step = epoch = 0
    chance = 0.0
    while True:
        for batch in plan.epoch(epoch):
            new = generator.normal() * math.sqrt(1 - story.memory**2)
            chance = story.memory * chance + new
            of_batch = float(np.average(difficulty[batch], weights=frames[batch]))
            yield story.level(step) * of_batch * (1 + story.chance * chance), float(frames[batch].mean())
            step += 1
        epoch += 1


def verdicts(story: Story, seed: int, steps: int) -> list[tuple[int, str, str]]:
    """At each log point once a window is full: the step, the verdict, and what the plain rule says."""
    convergence, values, told = Convergence(WINDOW, THRESHOLD), [], []
    for step, (loss, length) in enumerate(islice(losses(story, seed), steps), start=1):
        convergence.add(loss, length, 1e-3)
        values.append(loss)
        if step >= WINDOW and step % LOG_STEP == 0:
            told.append((step, convergence.verdict(), plain_rule(np.array(values[-WINDOW:]))))
    return told


def plain_rule(values: np.ndarray) -> str:
    """By halves and standard deviation."""
    older, newer = values[: WINDOW // 2].mean(), values[WINDOW // 2 :].mean()
    if newer * THRESHOLD > older:
        return "diverging"
    if newer < THRESHOLD * older:
        return "improving"
    return "oscillating" if values.std() > (1 - THRESHOLD) * newer else "plateau"


def measure(seeds: int, steps: int) -> dict[str, Any]:
    """The share of each word among the log points of all seeds, by story and rule; of a story that begins in
    the middle, among those from a window after it on."""
    record: dict[str, Any] = {}
    for name, story in STORIES.items():
        begin = 1000 + WINDOW if "from step" in name else 0
        told = [row for seed in range(seeds) for row in verdicts(story, seed, steps) if row[0] >= begin]
        record[name] = {
            "truth": story.truth,
            "verdict": _shares([row[1] for row in told]),
            "plain_rule": _shares([row[2] for row in told]),
        }
        print(f"{name}: {record[name]}", flush=True)
    return record


def _shares(words: list[str]) -> dict[str, float]:
    return {word: round(count / len(words), 4) for word, count in Counter(words).most_common()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    record = {
        "stories": measure(options.seeds, options.steps),
        "seeds": options.seeds,
        "steps": options.steps,
        "window": WINDOW,
        "machine": describe(torch.device("cpu")),
    }
    write_record(options.output, record)


if __name__ == "__main__":
    main()
