"""Uninitialised memory that shows: an element nobody writes is NaN, or far from any count."""

from __future__ import annotations

import pytest
import torch


def poison_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ``torch.empty`` and ``torch.empty_like``, until the test ends."""
    empty, empty_like = torch.empty, torch.empty_like

    def poison(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.fill_(float("nan") if tensor.is_floating_point() else -(10**6))

    monkeypatch.setattr(torch, "empty", lambda *a, **k: poison(empty(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: poison(empty_like(*a, **k)))
