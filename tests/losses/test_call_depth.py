"""How many calls of this package's own lie between ``TTSLoss()`` and what computes it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING
from interpreter import INTERPRETED
from loss_checks import make_batch
from torch import Tensor

import ttsfast
from ttsfast import TTSLoss

BATCH = make_batch([7, 3], [4, 2], dtype=torch.float32, heads=1)


def own_frames() -> list[str]:
    """Functions of the package that lead here, the innermost first."""
    home = Path(ttsfast.__file__).parent
    homes = [f"{folder}/" for folder in (home, home.parent / "kernels")]
    found: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(tuple(homes)):
            found.append(f"{code.co_name} in {code.co_filename}")
        frame = frame.f_back
    return found


@pytest.mark.skipif(MISSING, reason=WHY_MISSING)
def test_the_extension_is_three_calls_away_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    usual = torch.empty_like

    def allocate(tensor: Tensor) -> Tensor:
        seen.append(own_frames())
        return usual(tensor)

    loss = TTSLoss()
    loss(**BATCH)
    # Memory for the gradients is asked for within the extension.
    monkeypatch.setattr(torch, "empty_like", allocate)
    loss(**BATCH).total.backward()
    assert seen
    for frames in seen:
        assert 1 <= len(frames) <= 3, frames


@pytest.mark.skipif(INTERPRETED, reason="the interpreter launches nothing")
def test_the_launch_is_four_calls_away_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton", "3.6", reason="Triton is not installed")
    from kernel_compile import TARGETS, launching_for

    from ttsfast.kernels import launch
    from ttsfast.losses.triton import TritonBackend

    # The tensors are on the CPU, and the launches are noted, not made.
    monkeypatch.setattr(TritonBackend, "missing", lambda self: None)
    monkeypatch.setattr(TritonBackend, "declines", lambda *_: None)
    word = torch.zeros((), dtype=torch.int32)
    monkeypatch.setattr(launch, "counter", lambda device, compiled: word)
    seen: list[list[str]] = []

    def launcher(source: Any, metadata: Any) -> Any:
        return lambda *_: seen.append(own_frames())

    loss = TTSLoss(backend="triton")
    with launching_for(TARGETS["sm_90"]):
        triton.runtime.driver._active.launcher_cls = launcher
        # The first launch for a layout goes through Triton's compiler.
        for _ in range(2):
            loss(**BATCH)
    assert len(seen) == 2
    for frames in seen:
        assert 1 <= len(frames) <= 4, frames
