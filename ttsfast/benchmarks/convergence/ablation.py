"""Single changes to a recipe, and what each does to time and quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ttsfast.benchmarks.convergence import boundaries
from ttsfast.benchmarks.convergence.comparison import Middle, times_of
from ttsfast.benchmarks.convergence.headlines import ALIGNMENT, BOUNDARIES
from ttsfast.benchmarks.convergence.recipes import OWN, OWN_KEYS, PLUS, Recipe
from ttsfast.config import SECTIONS
from ttsfast.data.store.store import Store
from ttsfast.devices import Machine
from ttsfast.errors import InputError
from ttsfast.models.build import BUILT_IN
from ttsfast.options import Values, checked_values, nearest, overlaid, parse, shown_value

WHERE = "ablation.yaml"
GOALS = (ALIGNMENT, BOUNDARIES, "words 20%", "copies + 15")
"""Whose times are shown, of those that a run has."""
FIGURES = ("mel_l1", "mcd_dtw_sl", "duration_error", boundaries.FIGURE, "word_error")
"""Of the last evaluation; the lower the better."""
ANY = "any"
"""Of :data:`WHERE`: the changes that every model knows; the others are by ``model.architecture``."""


def read_changes(path: Path | None = None) -> dict[str, dict[str, Values]]:
    """By architecture or :data:`ANY`, the changes and their names: the package's, or those of a file.

    Raises:
        InputError: the file is none of lists of ``section.key: value``; or it names an unknown key or model,
            a key that each run has of its own, or one change twice.
    """
    where = WHERE if path is None else str(path)
    if path is None:
        text = (resources.files("ttsfast.benchmarks.convergence") / WHERE).read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not readable ({error})") from error
    of_models = parse(text, where)
    if not isinstance(of_models, dict) or not all(isinstance(lines, list) for lines in of_models.values()):
        raise InputError(f"{where}: changes are lists under `{ANY}` or the name of an architecture")
    found: dict[str, dict[str, Values]] = {}
    for model, lines in of_models.items():
        if model not in (ANY, *BUILT_IN) and ":" not in str(model):
            raise InputError(f"{where}: no model {model!r}{nearest(str(model), (ANY, *BUILT_IN))}")
        own = found.setdefault(model, {})
        for line in lines:
            name, values = _change(line, f"{where}: {model}")
            if name in own:
                raise InputError(f"{where}: {model}: {name} stands twice")
            own[name] = values
    return found


def _change(line: Any, where: str) -> tuple[str, Values]:
    """Name and values of one."""
    if not isinstance(line, dict) or not line:
        raise InputError(f"{where}: {line!r} is no change; write {{training.learning_rate: 1.0e-3}}")
    sections: dict[str, dict[str, Any]] = {}
    for name, value in line.items():
        section, _, key = str(name).partition(".")
        if name in OWN_KEYS or key in OWN.get(section, {}):
            raise InputError(f"{where}: {name} is set here for each run: it cannot be a change")
        sections.setdefault(section, {})[key] = value
    shown = (f"{str(key).partition('.')[2]}={shown_value(value)}" for key, value in line.items())
    return ", ".join(shown), checked_values(sections, SECTIONS, where)


def variants(
    base: Recipe,
    changes: Mapping[str, Mapping[str, Values]],
    store: Store,
    machine: Machine,
    settings: Values,
) -> list[Recipe]:
    """``base`` and its changes, but for those that it has already.

    Args:
        base: a recipe of the trainer.
        changes: of :func:`read_changes`.
        store, machine, settings: by which its configuration is made, as :meth:`Recipe.config` takes them.

    Raises:
        InputError: as :meth:`Recipe.config` does; or ``settings``, which are laid over all of them, name a
            key that is to change.
    """
    as_it_is = base.config(store, machine, settings)
    # What was chosen is written down: a change of a key must not have others chosen anew.
    fixed = base.changed(base.name, as_it_is.to_dict())
    made = [fixed]
    own = {**changes.get(ANY, {}), **changes.get(as_it_is.model.architecture, {})}
    for name, values in own.items():
        for section, keys in values.items():
            if fixed_key := next((key for key in keys if key in settings.get(section, {})), None):
                raise InputError(
                    f"{section}.{fixed_key} is set for all runs and is a change, too ({name}): leave one out"
                )
        variant = fixed.changed(f"{base.name}{PLUS}{name}", overlaid(values))
        if variant.config(store, machine, settings) != as_it_is:
            made.append(variant)
    return made


def check_optimizers(recipes: Sequence[Recipe]) -> None:
    """Raise InputError where one that is tried is not installed: before hours of runs, not in their midst."""
    tried = {recipe.values.get("training", {}).get("optimizer") for recipe in recipes}
    if "muon" in tried and not hasattr(torch.optim, "Muon"):
        raise InputError(f"--ablation tries Muon, which torch {torch.__version__} lacks: upgrade it to 2.9")
    if "schedule_free" in tried and find_spec("schedulefree") is None:
        raise InputError("--ablation tries schedule_free: pip install 'ttsfast[schedulefree]'")


@dataclass(frozen=True)
class Effect:
    """What one change does to one recipe."""

    base: str
    change: str
    times: Mapping[str, tuple[Middle, Middle]]
    """Seconds to those of :data:`GOALS` that its model has: the recipe's own, and with the change."""
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
        own, changed = ([run for run in runs if run["recipe"] == recipe] for recipe in (base, name))
        seeds = {run["seed"] for run in own} & {run["seed"] for run in changed}
        if not seeds:
            continue
        sides = [[run for run in side if run["seed"] in seeds] for side in (own, changed)]
        found.append(Effect(base, change, _times(*sides), _last(*sides)))
    return found


def _times(own: Sequence[Any], changed: Sequence[Any]) -> dict[str, tuple[Middle, Middle]]:
    goals = [goal for goal in GOALS if all(goal in run["times"] for run in (*own, *changed))]
    return {goal: (_middle(own, goal), _middle(changed, goal)) for goal in goals}


def _middle(runs: Sequence[Any], goal: str) -> Middle:
    return Middle.of(times_of(runs, runs[0]["recipe"], goal, "seconds"))


def _last(own: Sequence[Any], changed: Sequence[Any]) -> dict[str, tuple[float, float]]:
    names = [name for name in FIGURES if all(name in run["rows"][-1] for run in (*own, *changed))]
    return {name: (_mean(own, name), _mean(changed, name)) for name in names}


def _mean(runs: Sequence[Any], name: str) -> float:
    return sum(run["rows"][-1][name] for run in runs) / len(runs)
