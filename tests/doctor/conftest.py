"""What the doctor is asked about."""

from __future__ import annotations

from pathlib import Path

import pytest
from spoken import clean, write


@pytest.fixture(scope="session")
def spoken_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean corpus on disk, of eight clips: to be read only."""
    return write(clean("en"), tmp_path_factory.mktemp("spoken") / "corpus", 8)
