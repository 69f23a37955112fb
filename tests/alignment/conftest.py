"""An element of a result that nobody writes is seen."""

from __future__ import annotations

import pytest
from poison import poison_memory


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_memory(monkeypatch)
