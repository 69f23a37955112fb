"""Single changes to a recipe, and what each does to time and quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from typing import Any

import torch

from ttsfast.benchmarks.convergence import boundaries
from ttsfast.benchmarks.convergence.comparison import Middle, times_of
from ttsfast.benchmarks.convergence.headlines import ALIGNMENT, BOUNDARIES
from ttsfast.benchmarks.convergence.recipes import PLUS, Recipe
from ttsfast.config import SECTIONS
from ttsfast.data.store.store import Store
from ttsfast.devices import Machine
from ttsfast.errors import InputError
from ttsfast.options import Values, checked_values, overlaid, parse, shown_value

WHERE = "ablation.yaml"
FIGURES = ("mel_l1", "mcd_dtw_sl", "duration_error", boundaries.FIGURE, "word_error")
"""Of the last evaluation; the lower the better."""


ANY = "any"
"""Of :data:`WHERE`: the changes that every model knows; the others are by ``model.architecture``."""


def changes(architecture: str) -> dict[str, Values]:
    """The package's for a model, by their names."""
    text = (resources.files("ttsfast.benchmarks.convergence") / WHERE).read_text(encoding="utf-8")
    of_models = parse(text, WHERE)
    found: dict[str, Values] = {}
    for line in (*of_models[ANY], *of_models.get(architecture, ())):
        sections: dict[str, dict[str, Any]] = {}
        for name, value in line.items():
            section, _, key = name.partition(".")
            sections.setdefault(section, {})[key] = value
        name = ", ".join(f"{key.partition('.')[2]}={shown_value(value)}" for key, value in line.items())
        found[name] = checked_values(sections, SECTIONS, WHERE)
    return found


def variants(base: Recipe, store: Store, machine: Machine, settings: Values) -> list[Recipe]:
    """``base`` and its changes, but for those that it has already.

    Args:
        base: a recipe of the trainer.
        store, machine, settings: by which its configuration is made, as :meth:`Recipe.config` takes them.

    Raises:
        InputError: as :meth:`Recipe.config` does.
    """
    as_it_is = base.config(store, machine, settings)
    # What was chosen is written down: a change of a key must not have others chosen anew.
    fixed = base.changed(base.name, as_it_is.to_dict())
    made = [fixed]
    for name, values in changes(as_it_is.model.architecture).items():
        variant = fixed.changed(f"{base.name}{PLUS}{name}", overlaid(values))
        if variant.config(store, machine, settings) != as_it_is:
            made.append(variant)
    return made


def check_optimizers() -> None:
    """Raise InputError where one that is tried is not installed: before hours of runs, not in their midst."""
    if not hasattr(torch.optim, "Muon"):
        raise InputError(f"--ablation tries Muon, which torch {torch.__version__} lacks: upgrade it to 2.9")
    if find_spec("schedulefree") is None:
        raise InputError("--ablation tries schedule_free: pip install 'ttsfast[schedulefree]'")


@dataclass(frozen=True)
class Effect:
    """What one change does to one recipe."""

    base: str
    change: str
    alignment: float | None
    """Seconds to alignment, or to boundaries where the model has no alignment to come to, over the recipe's
    own; None where the recipe was cut off before it."""
    at_least: bool
    """The change was cut off before it."""
    figures: Mapping[str, tuple[float, float]]
    """Of the last evaluation, by name: the recipe's own, and with the change; means over seeds."""


def effects(runs: Sequence[Mapping[str, Any]]) -> list[Effect]:
    """Of a record's runs, recipe by recipe, in the order of the runs; over seeds that both have."""
    names = list(dict.fromkeys(run["recipe"] for run in runs))
    found = []
    for name in names:
        base, plus, change = name.partition(PLUS)
        if not plus or base not in names:
            continue
        seeds = {r["seed"] for r in runs if r["recipe"] == name} & {
            r["seed"] for r in runs if r["recipe"] == base
        }
        both = [run for run in runs if run["recipe"] in (name, base) and run["seed"] in seeds]
        if not both:
            continue
        own, changed = (_middle(both, recipe) for recipe in (base, name))
        ratio = None
        if own is not None and changed is not None and not own.lower_bound:
            ratio = changed.value / own.value
        last = {recipe: _last(both, recipe) for recipe in (base, name)}
        figures = {f: (last[base][f], last[name][f]) for f in last[base].keys() & last[name].keys()}
        at_least = ratio is not None and changed is not None and changed.lower_bound
        found.append(Effect(base, change, ratio, at_least, {f: figures[f] for f in FIGURES if f in figures}))
    return found


def _middle(runs: Sequence[Mapping[str, Any]], recipe: str) -> Middle | None:
    goal = ALIGNMENT if any(ALIGNMENT in run["times"] for run in runs) else BOUNDARIES
    times = times_of(runs, recipe, goal, "seconds")
    return Middle.of(times) if times else None


def _last(runs: Sequence[Mapping[str, Any]], recipe: str) -> dict[str, float]:
    rows = [run["rows"][-1] for run in runs if run["recipe"] == recipe]
    return {name: sum(row[name] for row in rows) / len(rows) for name in FIGURES if name in rows[0]}
