"""From what a person types to a configuration: a store, a YAML file and keys, over a preset or a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ttsfast.config import (
    AUTO,
    NONE,
    SECTIONS,
    Config,
    check_preset,
    config_of,
    preset_values,
    read_settings,
    render,
)
from ttsfast.data.store.manifest import NAME as MANIFEST
from ttsfast.data.store.store import Store, not_there
from ttsfast.devices import this_machine
from ttsfast.errors import InputError
from ttsfast.files import atomic_write, from_home, is_address, is_folder, naming
from ttsfast.options import Values, checked_values, overlaid
from ttsfast.training.auto import Speech, choose
from ttsfast.training.start import language_of, model_of

RUN_CONFIG = "config.yaml"
"""In a run folder: what the run was last started with."""
_OVERRIDE = re.compile(r"[A-Za-z_]+\.[A-Za-z_0-9]+=", re.ASCII)


@dataclass(frozen=True)
class Configured:
    """A configuration, where it comes from, and what there is to say of it."""

    config: Config
    preset: str
    said: tuple[str, ...] = ()
    """One line for each choice."""


def configure(
    arguments: Sequence[str],
    preset: str | None = None,
    *,
    resume: bool = False,
    start: str | None = None,
    trust_code: bool = False,
) -> Configured:
    """The configuration of a run.

    Args:
        arguments: a store (a folder with a manifest, or an address), a YAML file, both or neither, and any
            number of ``section.key=value``, in any order. The later of two settings counts, and those of the
            file come first.
        preset: what they leave out comes from it; the one that the file names when None, else ``auto``.
        resume: with ``auto``, from what the run was started with, where there is that, and not from a choice.
        start: ``training.start_from``: what is not said of the model is as that voice has it.
        trust_code: let that voice name a module to import, which makes its model.

    Raises:
        InputError: an argument is none of these, a setting does not fit, or ``auto`` knows of no store; or
            there is no voice to start from, or its model is not built in and not trusted.
    """
    path, overrides = _sorted_out(arguments)
    given, named = read_settings(path, overrides)
    if start is not None:
        given = overlaid(given, checked_values({"training": {"start_from": start}}, SECTIONS, "--from"))
    preset = check_preset(preset or named or AUTO, "--preset")
    if preset != AUTO:
        given = _like_its_start(given, trust_code=trust_code)
        return Configured(config_of(overlaid(preset_values(preset), given)), preset)
    run_folder = _run_folder(given)
    if resume and (run_folder / RUN_CONFIG).is_file():
        before, _ = read_settings(run_folder / RUN_CONFIG, ())
        # The folder may lie elsewhere now.
        config = config_of(overlaid(before, {"training": {"run_folder": str(run_folder)}}, given))
        _check_moved(config.data.store, run_folder)
        return Configured(config, preset, (f"settings are those of {run_folder / RUN_CONFIG}",))
    return _chosen(_like_its_start(given, trust_code=trust_code), run_folder)


def store_and_settings(arguments: Sequence[str], own: Sequence[str] = ()) -> tuple[Store, Values]:
    """A store, and what is set beside it by keys and a YAML file, for whoever makes their own configurations.

    Args:
        arguments: as :func:`configure` takes them.
        own: keys that are not to be set, as the caller sets them.

    Raises:
        InputError: as :func:`configure` does; or one of ``own`` is set.
    """
    path, overrides = _sorted_out(arguments)
    given, _ = read_settings(path, overrides)
    for name in own:
        section, _, key = name.partition(".")
        if key in given.get(section, {}):
            raise InputError(f"{name} is set here for each run: leave it out")
    place: str | None = given.get("data", {}).get("store")
    if place is None:
        raise InputError("name the store: the folder that `ttsfast prepare` wrote, or its address")
    return Store.open(place), given


def _check_moved(store: str, run_folder: Path) -> None:
    """Raise InputError, in words for a run that was moved, where the store of a run is gone."""
    if (place := not_there(store)) is not None:
        raise InputError(
            f"{run_folder / RUN_CONFIG}: its data.store={place} is not there; if the run or the store was "
            f"moved, name the store: `ttsfast train STORE training.run_folder={run_folder} --resume`"
        )


def _like_its_start(given: Values, *, trust_code: bool) -> Values:
    """What is given, and of the model what the voice to start from has."""
    place = given.get("training", {}).get("start_from", NONE)
    if place == NONE:
        return given
    return overlaid(model_of(Path(place), given, trust_code=trust_code), given)


def write_run_config(config: Config, run_folder: Path) -> None:
    """Keep what a run is started with, for people and for ``--resume``; raises OSError where it cannot be."""
    path = run_folder / RUN_CONFIG
    text = render(config, title="What this run was last started with; --resume goes on from it.")
    with naming(path, "make room, or let it be written to"), atomic_write(path) as handle:
        handle.write(text.encode())


def _chosen(given: Values, run_folder: Path) -> Configured:
    store = Store.open(_store(given))
    speech = Speech.of_store(store)
    machine = this_machine(given.get("training", {}).get("device", "auto"))
    start = given.get("training", {}).get("start_from", NONE)
    foreign = start != NONE and language_of(Path(start)) != store.frontend.language
    choices = choose(machine, speech, given, foreign=foreign)
    values: Values = {"training": {"run_folder": str(run_folder)}}
    for choice in choices:
        for name, value in choice.values.items():
            section, _, key = name.partition(".")
            values.setdefault(section, {})[key] = value
    said = (
        f"preset {AUTO} chose for {machine} and {speech} (more by `ttsfast config --explain KEY`):",
        *(f"  {choice}" for choice in choices),
        f"  into {run_folder}; how long it will take is said at the tenth step",
    )
    return Configured(config_of(overlaid(values, given)), AUTO, said)


def _store(given: Values) -> str:
    place: str | None = given.get("data", {}).get("store")
    if place is None:
        raise InputError(
            f"the preset {AUTO} chooses for a store, and none is given: name the folder that `ttsfast "
            "prepare` wrote (or its address), or another preset with --preset"
        )
    return place


def _run_folder(given: Values) -> Path:
    """The one that is given, or one that is named after the store."""
    folder = given.get("training", {}).get("run_folder")
    if folder is not None:
        return Path(folder)
    place = _store(given)
    if is_address(place):
        return Path("runs") / re.sub(r"[^\w.-]", "-", place.rstrip("/").rpartition("/")[2])
    return Path("runs") / Path(place).resolve().name


def _sorted_out(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The YAML file, and what else is set."""
    overrides = [argument for argument in arguments if _OVERRIDE.match(argument)]
    places = [from_home(argument) for argument in arguments if not _OVERRIDE.match(argument)]
    stores = [place for place in places if is_address(place) or is_folder(Path(place))]
    files = [place for place in places if place not in stores]
    for store in stores:
        _check_store(store)
    for file in files:
        _check_file(file)
    for what, found in (("stores", stores), ("YAML files", files)):
        if len(found) > 1:
            raise InputError(f"two {what}, {found[0]} and {found[1]}: give one")
    if stores and any(override.startswith("data.store=") for override in overrides):
        raise InputError(f"two stores, {stores[0]} and in data.store=: give one")
    return (Path(files[0]) if files else None), [*(f"data.store={store}" for store in stores), *overrides]


def _check_store(place: str) -> None:
    """Raise InputError for a folder that is none, in the words for what it is."""
    folder = Path(place)
    if is_address(place) or (folder / MANIFEST).is_file():
        return
    if (folder / "checkpoints").is_dir():
        raise InputError(
            f"{place}: is a run, and no store; to continue it, "
            f"`ttsfast train training.run_folder={place} --resume`"
        )
    if any(folder.glob("*.jsonl")) or any(folder.glob("metadata*.csv")):
        raise InputError(f"{place}: is a corpus, and no store yet; first `ttsfast prepare {place} STORE`")
    raise InputError(f"{place}: no {MANIFEST} there, so no complete store; run `ttsfast prepare` (again)")


def _check_file(place: str) -> None:
    """Raise InputError for an argument that is nothing a run can be made from."""
    section, _, key = place.partition(".")
    if "=" in place:
        raise InputError(f"{place}: write section.key=value, the section one of {', '.join(SECTIONS)}")
    if section in SECTIONS and key:
        raise InputError(f"{place}: to set a key write {place}=VALUE")
    try:
        there = Path(place).exists()
    except (OSError, ValueError):
        there = False
    if not there:
        raise InputError(
            f"{place}: there is no such store (a folder with a {MANIFEST}, or an address) and no such YAML "
            "file; a key is set by section.key=value"
        )
