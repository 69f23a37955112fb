"""The whole comparison: every recipe from every seed, measured, put side by side, and kept in a record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ttsfast.benchmarks import machine
from ttsfast.benchmarks.convergence.ablation import GOALS
from ttsfast.benchmarks.convergence.boundaries import of_a_diagonal
from ttsfast.benchmarks.convergence.comparison import comparisons
from ttsfast.benchmarks.convergence.figures import HeldOut, measure_run
from ttsfast.benchmarks.convergence.headlines import (
    ALIGNED,
    HELD,
    MARGIN,
    headlines,
    word_goals,
)
from ttsfast.benchmarks.convergence.recipes import PLUS, Recipe
from ttsfast.benchmarks.convergence.runs import Run, train
from ttsfast.benchmarks.convergence.samples import write_samples
from ttsfast.benchmarks.records import write_record
from ttsfast.config import Config
from ttsfast.data.store.store import Store
from ttsfast.devices import this_machine, torch_threads
from ttsfast.evaluation.speech_recognition import Recogniser
from ttsfast.files import output_folder
from ttsfast.options import Values, overlaid
from ttsfast.training.auto import Speech

RECORD = "record.json"
TRAINED_ON = ("date", "processor", "threads", "instructions", "bf16_tiles", "load", "commit")
"""Of a run's machine, which need not be the one that it was measured on, nor with the same to do."""


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    store: Store
    folder: Path
    """Of the runs, the record and the page."""
    recipes: Sequence[Recipe]
    seeds: int
    minutes: float
    """Of training, for each run."""
    settings: Values
    """Laid over every recipe."""
    utterances: int = 32
    split: str | None = None
    asr: str | None = None

    def config(self, recipe: Recipe, seed: int) -> Config:
        """Of one run; raises InputError as :meth:`Recipe.config` does."""
        own: Values = {"training": {"seed": seed, "run_folder": str(self._run_folder(recipe, seed))}}
        device = self.settings.get("training", {}).get("device", "auto")
        return recipe.config(self.store, this_machine(device), overlaid(self.settings, own))

    def runs(self) -> list[tuple[Recipe, Config, Run]]:
        """All, one seed after the other, as they are in the folder: sides stay even where time runs out.

        Raises:
            InputError: the folder holds other runs, or a recipe does not fit; nothing has been trained then.
        """
        found = []
        for seed in range(self.seeds):
            for recipe in self.recipes:
                config = self.config(recipe, seed)
                run = Run.open(self._run_folder(recipe, seed), recipe, config, self.store)
                found.append((recipe, config, run))
        return found

    @property
    def of_changes(self) -> bool:
        """It is of single changes to recipes."""
        return any(PLUS in recipe.name for recipe in self.recipes)

    def word_goals(self, copies: float) -> dict[str, float]:
        """That are listened for; of single changes, which are many, those alone that are shown.

        Args:
            copies: word error of copy synthesis.
        """
        goals = word_goals(copies)
        return {name: most for name, most in goals.items() if name in GOALS} if self.of_changes else goals

    def _run_folder(self, recipe: Recipe, seed: int) -> Path:
        return self.folder / recipe.name / f"seed-{seed}"


def measure(
    plan: Plan, *, threads: int | None = None, train_only: bool = False, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Train what is not trained yet, measure what is not measured yet; the record.

    Args:
        plan: what is asked for; what is in its folder is not made again.
        threads: of torch, as many as it has when None.
        train_only: leave the measuring, which may be as long, to another call.
        progress: told a line now and then.

    Raises:
        InputError: something does not fit.
    """
    with torch_threads(threads):
        return _measure(plan, train_only=train_only, progress=progress)


def _measure(plan: Plan, *, train_only: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    recogniser = None if plan.asr is None else Recogniser(plan.asr, plan.store.frontend.language)
    held_out = HeldOut.of(plan.store, plan.utterances, recogniser, plan.split)
    runs, budget = plan.runs(), 60 * plan.minutes
    output_folder(plan.folder)
    copies: float | None = None
    done: list[dict[str, Any]] = []
    for number, (recipe, config, run) in enumerate(runs, start=1):
        name = f"{recipe.name}, seed {run.body['seed']} (run {number} of {len(runs)})"

        def say(what: str, name: str = name) -> None:
            progress(f"{name}: {what}")

        def trained(seconds: float, run: Run = run, say: Callable[[str], None] = say) -> None:
            left = sum(budget - other.seconds for *_, other in runs if not other.finished(budget))
            step = int(run.snapshots[-1]["step"])
            say(f"step {step}, {_time(seconds)} of {_time(budget)}; at most {_time(left)} of training left")

        if not run.finished(budget):
            # The trainer may leave torch with fewer.
            with torch_threads(None):
                train(run, recipe, config, budget, trained, [other for *_, other in runs])
            say(f"ended by {run.body['ended']} after {_time(run.seconds)}")
        if train_only:
            continue
        if recogniser is not None and copies is None:
            progress("copies: heard")
            copies = held_out.copies()
        goals = {} if copies is None else plan.word_goals(copies)
        rows = measure_run(run, config, held_out, tuple(goals.values()), say)
        done.append(_of_run(run, rows, goals))
        write_record(plan.folder / RECORD, _record(plan, held_out, copies, runs, done))
    record = _record(plan, held_out, copies, runs, done)
    if not train_only and not plan.of_changes:
        progress("one sentence on the way: spoken")
        first = [(run, config) for _, config, run in runs[: len(plan.recipes)]]
        record["samples"] = write_samples(plan.folder, first, held_out)
        write_record(plan.folder / RECORD, record)
    return record


def _of_run(run: Run, rows: dict[int, dict[str, float]], words: Mapping[str, float]) -> dict[str, Any]:
    table = [{**snapshot, **rows[int(snapshot["step"])]} for snapshot in run.snapshots]
    times = headlines(table, words)
    return {
        "recipe": run.body["recipe"],
        "model": run.body["config"]["model"],
        "seed": run.body["seed"],
        "trained_on": {key: run.body["machine"][key] for key in TRAINED_ON if key in run.body["machine"]},
        "precision": run.body.get("precision"),
        "ended": run.body["ended"],
        **({"reason": run.body["reason"]} if "reason" in run.body else {}),
        "rows": table,
        "times": {goal: {"at": dict(time.at), "cut_off": time.cut_off} for goal, time in times.items()},
    }


def _record(
    plan: Plan,
    held_out: HeldOut,
    copies: float | None,
    runs: Iterable[tuple[Recipe, Config, Run]],
    done: list[dict[str, Any]],
) -> dict[str, Any]:
    store = plan.store
    settings = {recipe.name: (recipe, run.body["config"]) for recipe, _, run in runs if run.snapshots}
    return {
        "machine": machine.describe(torch.device("cpu")),
        "corpus": {
            "name": Path(store.manifest.corpus).name,
            "minutes": 60 * Speech.of_store(store).hours,
            "language": store.frontend.language,
            "phonemes": store.frontend.phonemes,
            "fingerprint": store.fingerprint,
        },
        "minutes": plan.minutes,
        "seeds": plan.seeds,
        "held_out": held_out.describe(),
        "copies_word_error": copies,
        "alignment": {**ALIGNED, "held": HELD, "margin": MARGIN},
        "boundary_error_of_a_diagonal": of_a_diagonal(store, held_out.indices, held_out.starts),
        "recipes": {
            name: {"loop": recipe.loop, "preset": recipe.preset, "settings": config}
            for name, (recipe, config) in settings.items()
        },
        "runs": done,
        "comparisons": comparisons(done),
    }


def _time(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.1f} min"
