"""The commands that say what there is: the configuration, and this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from ttsfast.cli.options import AsJson, Preset, Settings, print_json


def config(
    settings: Settings = None,
    preset: Preset = None,
    list_presets: Annotated[bool, typer.Option("--list", help="List the presets.")] = False,
    explain: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Say what section.key does, when to change it, and its presets."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a commented configuration file: of a preset, or as `ttsfast train` would choose it for a store.

    Example: ttsfast config data/ljspeech > config.yaml

    Example: ttsfast config --explain training.learning_rate
    """
    from ttsfast.config import preset_names, render

    if list_presets:
        print_json(preset_names()) if as_json else print("\n".join(preset_names()))
        return
    if explain is not None:
        from ttsfast.configs.explain import explained
        from ttsfast.training.auto import chosen_keys

        found = explained(explain, chosen_keys())
        print_json(found) if as_json else print("\n".join(f"{name}: {text}" for name, text in found.items()))
        return
    from ttsfast.training.configure import configure

    configured = configure(settings or [], preset)
    if as_json:
        print_json(configured.config.to_dict())
    else:
        title = [f"ttsfast configuration, from the preset {configured.preset}", *configured.said]
        print(render(configured.config, title="\n".join(title), preset=configured.preset), end="")


def env(as_json: AsJson = False) -> None:
    """Show versions, devices, the C++ extension and the loss backends, with what is missing and its cost.

    Example: ttsfast env
    """
    from ttsfast.evaluation.environment import environment

    values = environment()
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, entry in value.items():
                print(f"  {key}: {entry}")
        else:
            print(f"{name}: {value}")
