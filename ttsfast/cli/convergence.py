"""``ttsfast bench convergence``: how soon a model aligns and speaks, recipe beside recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttsfast.cli.options import AsJson, Settings, print_json, refuse_several
from ttsfast.errors import InputError


def convergence(
    settings: Settings = None,
    recipes: Annotated[
        str, typer.Option(help="Names, or YAML files, comma-separated.")
    ] = "replaced,fast_convergence,strong,ttsfast_convtts,ttsfast",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each recipe.")] = 5,
    minutes: Annotated[float, typer.Option(min=0.1, help="Training of each run at most.")] = 20.0,
    folder: Annotated[
        Path, typer.Option(help="Where runs, record and page go; what is in it is not made again.")
    ] = Path("runs/convergence"),
    asr: Annotated[
        str | None,
        typer.Option(
            help="Hear the words with this Whisper model, as evaluate takes it.", show_default=False
        ),
    ] = None,
    utterances: Annotated[int, typer.Option(min=1, help="Held-out ones to measure on.")] = 32,
    split: Annotated[
        str | None,
        typer.Option(
            help="validation or test.", show_default="test where there is one; with --ablation never"
        ),
    ] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Instead, single changes to each recipe, one run each.")
    ] = False,
    changes: Annotated[
        Path | None,
        typer.Option(help="The changes of this YAML file, in place of the package's.", show_default=False),
    ] = None,
    train_only: Annotated[
        bool, typer.Option("--train-only", help="Measure nothing now; the same command does it later.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train by several recipes from several seeds; compare how soon each aligns, and is understood.

    Snapshots are kept on the way and measured after the training, so a run that was killed goes on.

    Example: ttsfast bench convergence data/store --minutes 20 --seeds 5 --asr models/tiny.en

    Single changes: ttsfast bench convergence data/store --ablation --recipes ttsfast --seeds 1 --minutes 2
    """
    refuse_several("bench convergence")
    from ttsfast.benchmarks.convergence.ablation import check_optimizers, read_changes, variants
    from ttsfast.benchmarks.convergence.bench import Plan, measure
    from ttsfast.benchmarks.convergence.page import write_page
    from ttsfast.benchmarks.convergence.recipes import OWN_KEYS, read_recipes
    from ttsfast.benchmarks.convergence.tables import table
    from ttsfast.data.corpus.split import VALIDATION
    from ttsfast.devices import this_machine
    from ttsfast.progress import console
    from ttsfast.training.configure import store_and_settings

    store, given = store_and_settings(settings or [], OWN_KEYS)
    chosen = read_recipes([name.strip() for name in recipes.split(",")])
    if ablation:
        if any(recipe.loop != "trainer" for recipe in chosen):
            raise InputError("--ablation changes recipes of the trainer: name such with --recipes ttsfast")
        tried = read_changes(changes)
        # What chooses among changes must not be what the chosen one is judged by.
        split = split or VALIDATION
        device = this_machine(given.get("training", {}).get("device", "auto"))
        bases = len(chosen)
        chosen = [variant for recipe in chosen for variant in variants(recipe, tried, store, device, given)]
        if len(chosen) == bases:
            raise InputError(f"--ablation: no change fits {recipes}, or it has them all already")
        check_optimizers(chosen)
    elif changes is not None:
        raise InputError("--changes is of --ablation: give both")
    plan = Plan(store, folder, chosen, seeds, minutes, given, utterances, split, asr)
    record = measure(
        plan,
        threads=threads,
        train_only=train_only,
        progress=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
    )
    if record["runs"]:
        page = write_page(folder, record)
        console.print(f"open {page}", markup=False, soft_wrap=True)
    print_json(record) if as_json else print(table(record))
