"""Reading a run's log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ttsfast.errors import InputError

LOG_NAME = "log.jsonl"


def read_log(run_folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's log, oldest first; a line cut by a kill is left out."""
    path = run_folder / LOG_NAME
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        rows = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a training log ({error}); move it away") from error
    if not all(isinstance(row, dict) and isinstance(row.get("step"), int) for row in rows):
        raise InputError(f"{path}: not a training log (a line without a step); move it away")
    return rows
