"""Which backend can run here, and why not."""

from __future__ import annotations

import pytest
import torch

from ttsfast.losses.triton import TritonBackend


def test_an_old_triton_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(triton, "__version__", "3.2.0")
    assert TritonBackend().missing() == (
        "Triton 3.2.0 is too old: upgrade torch and with it Triton to 3.6 or newer"
    )
    monkeypatch.setattr(triton, "__version__", "3.10.0+git")
    assert TritonBackend().missing() is None
