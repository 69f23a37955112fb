"""The code blocks of ``docs/drop-in.md``, run on a backend, and held against a recipe's own formula."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loss_checks import assert_close
from torch import Tensor

import ttsfast
from ttsfast import functional

PAGE = Path(__file__).parents[2] / "docs" / "drop-in.md"
DRAW = torch.Generator()


def real(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=DRAW.manual_seed(seed)).requires_grad_()


def blocks(heading: str) -> str:
    """All code under a heading, as one program."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    assert section, f"{PAGE.name} has no section {heading!r}"
    code = "".join(re.findall(r"```python\n(.*?)```", section[1], re.S))
    assert code, f"{PAGE.name} shows no code under {heading!r}"
    return code


def on_page(heading: str, backend: str, monkeypatch: pytest.MonkeyPatch, **names: Any) -> dict[str, Any]:
    """All that the page's code has named, computed on ``backend``."""
    monkeypatch.setattr(ttsfast, "TTSLoss", functools.partial(ttsfast.TTSLoss, backend=backend))
    for name in functional.__all__:
        call = getattr(functional, name)
        if "backend" in inspect.signature(call).parameters:
            monkeypatch.setattr(functional, name, functools.partial(call, backend=backend))
    space: dict[str, Any] = {"torch": torch, **names}
    exec(compile(blocks(heading), str(PAGE), "exec"), space)
    return space


def loss_on_page(heading: str, backend: str, monkeypatch: pytest.MonkeyPatch, **names: Any) -> Tensor:
    """What the page's code calls ``loss``."""
    loss = on_page(heading, backend, monkeypatch, **names)["loss"]
    assert isinstance(loss, Tensor)
    return loss


def same(loss: Tensor, formula: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Value and every gradient equal to 1e-5 of their size; ``formula`` gets the inputs in float64."""
    wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = formula(*wide)
    assert_close(loss.detach(), expected.detach(), rtol=1e-5)
    ours, theirs = torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, wide)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))
