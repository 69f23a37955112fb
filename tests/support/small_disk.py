"""A disk with as much room as a test says."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest


def leave(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every disk, so many bytes are free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
