"""Lengths on a GPU, where nobody waits for their values: those outside their axes are clamped and counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_checks import make_batch, make_loss


def to_device(value: Any, device: str) -> Any:
    if isinstance(value, tuple):
        return tuple(to_device(part, device) for part in value)
    return value.to(device)


def test_none_are_counted_where_they_are_checked() -> None:
    assert make_loss(backend="torch")(**make_batch([7, 3], [4, 2])).clamped is None


def test_they_are_counted_without_a_look_at_them() -> None:
    batch = {name: to_device(value, "meta") for name, value in make_batch([7, 3], [4, 2]).items()}
    clamped = make_loss().to("meta")(**batch).clamped
    assert clamped is not None
    assert clamped.shape == ()
    assert clamped.dtype == torch.int64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_every_backend_counts_the_same(backend: str) -> None:
    batch = make_batch([7, 3, 2], [4, 2, 1], dtype=torch.float32, heads=1)
    batch = {name: to_device(value, "cuda") for name, value in batch.items()}
    loss = make_loss(backend=backend).to("cuda")
    assert int(loss(**batch).clamped) == 0
    batch["text_lengths"] = torch.tensor([4, -1, 99], device="cuda")
    assert int(loss(**batch).clamped) == 2
    # Without lengths of their own, decoder steps are counted as frames are.
    batch["mel_lengths"] = torch.tensor([7, 999, 2], device="cuda")
    assert int(loss(**batch).clamped) == 4
