"""What several commands share: options, and what is printed."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from ttsfast.errors import InputError

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Import the module that makes the voice's model, where that is not built in."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        help="A store (a folder or an address), a YAML file, section.key=value ...", show_default=False
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Where values come from that nothing else sets; see `ttsfast config --list`.",
        show_default="the file's, else auto",
    ),
]


def print_json(values: Any) -> None:
    # Escapes of JSON's own, where the terminal lacks a letter.
    escaped = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(values, indent=1, ensure_ascii=escaped))


def show(report: Any, as_json: bool) -> None:
    """Print a report that has ``to_dict`` and a text."""
    print_json(report.to_dict()) if as_json else print(report)


def refuse_several(command: str) -> None:
    """Raise InputError in each of several processes, which would all write the same files."""
    if (size := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise InputError(
            f"ttsfast {command} is for one process, this is one of {size}: start it without torchrun"
        )
