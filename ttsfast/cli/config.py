"""The commands that say what there is: the configuration, and this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from ttsfast.cli.options import AsJson, Overrides, Preset, print_json


def config(
    overrides: Overrides = None,
    preset: Preset = "fast_convergence",
    list_presets: Annotated[bool, typer.Option("--list", help="List the presets.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a commented configuration file.

    Example: ttsfast config --preset fast_convergence data.store=data/store > config.yaml
    """
    from ttsfast.config import load_config, preset_names, render

    if list_presets:
        print_json(preset_names()) if as_json else print("\n".join(preset_names()))
        return
    chosen = load_config(overrides=overrides or [], preset=preset)
    if as_json:
        print_json(chosen.to_dict())
    else:
        print(render(chosen, title=f"ttsfast configuration, from the preset {preset}"), end="")


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
