"""What was measured, as JSON: written at once or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttsfast.files import atomic_write


def write_record(path: Path | None, record: Mapping[str, Any]) -> None:
    """Nothing is written where nobody named a ``path``."""
    if path is not None:
        with atomic_write(path) as handle:
            handle.write(json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
