"""The command line. Each command is a thin call into the package; its docstring is its help."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Optional

import typer

from ttsfast.errors import InputError, TrainingError

app = typer.Typer(
    help="A fast-converging trainer for text-to-speech acoustic models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Overrides = Annotated[Optional[list[str]], typer.Argument(help="section.key=value ...", show_default=False)]  # noqa: UP045
Preset = Annotated[str, typer.Option(help="Values to start from; see `ttsfast config --list`.")]


def main() -> None:
    """Run a command; bad input becomes one line on stderr and exit code 2, a failed run exit code 1."""
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except (TrainingError, OSError) as error:
        _fail(str(error), 1)


def _fail(message: str, code: int) -> None:
    print(f"ttsfast: {message}", file=sys.stderr)
    sys.exit(code)


def _print_json(values: Any) -> None:
    print(json.dumps(values, indent=1, ensure_ascii=False))


@app.command()
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
        _print_json(preset_names()) if as_json else print("\n".join(preset_names()))
        return
    chosen = load_config(overrides=overrides or [], preset=preset)
    if as_json:
        _print_json(chosen.to_dict())
    else:
        print(render(chosen, title=f"ttsfast configuration, from the preset {preset}"), end="")


@app.command()
def env(as_json: AsJson = False) -> None:
    """Show versions, devices, the C++ extension and the loss backends, with what is missing and its cost.

    Example: ttsfast env
    """
    from ttsfast.environment import environment

    values = environment()
    if as_json:
        _print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, entry in value.items():
                print(f"  {key}: {entry}")
        else:
            print(f"{name}: {value}")
