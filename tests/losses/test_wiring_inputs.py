"""Tensors that no backend serves: one clear line, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from loss_checks import make_batch, make_loss
from torch import Tensor

from ttsfast.functional import mel_huber_loss, stop_bce_loss

distributed = pytest.importorskip("torch.distributed.tensor", reason="torch has no DTensor")
ARGUMENTS = ("mel_pred", "mel_target", "mel_lengths", "stop_logits", "attention", "text_lengths", "truncated")
named = pytest.mark.parametrize("name", ARGUMENTS)
backends = pytest.mark.parametrize("backend", ["auto", "torch"])


def batch() -> dict[str, Any]:
    given = make_batch([7, 3], [4, 2], dtype=torch.float32)
    return {**given, "truncated": torch.tensor([False, True])}


@pytest.fixture(scope="module")
def distribute() -> Iterator[Callable[[Tensor], Tensor]]:
    # A group of one that talks to nobody, and so starts no threads.
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    torch.distributed.init_process_group("fake", store=fake.FakeStore(), rank=0, world_size=1)
    mesh = distributed.init_device_mesh("cpu", (1,))
    yield lambda tensor: distributed.distribute_tensor(tensor.detach(), mesh, [distributed.Replicate()])
    torch.distributed.destroy_process_group()


@named
@backends
def test_sparse_tensors(name: str, backend: str) -> None:
    given = batch()
    given[name] = given[name].detach().to_sparse()
    with pytest.raises(TypeError, match=rf"^{name} must be a dense tensor, got layout torch.sparse_coo"):
        make_loss(backend=backend)(**given)


@named
@backends
def test_distributed_tensors(name: str, backend: str, distribute: Callable[[Tensor], Tensor]) -> None:
    given = batch()
    given[name] = distribute(given[name])
    with pytest.raises(
        TypeError, match=rf"^{name} must be a local tensor, got a DTensor: call .to_local\(\)"
    ):
        make_loss(backend=backend)(**given)


def test_distributed_latents(distribute: Callable[[Tensor], Tensor]) -> None:
    given = batch()
    mu, logvar = given["posterior"]
    given["posterior"] = mu, distribute(logvar)
    with pytest.raises(TypeError, match=r"^posterior logvar must be a local tensor"):
        make_loss()(**given)


def test_functionals_refuse_them_too(distribute: Callable[[Tensor], Tensor]) -> None:
    x, n = torch.zeros(2, 5, 3), torch.tensor([5, 2])
    for reduction in ("none", "mean"):
        with pytest.raises(TypeError, match=r"^input must be a local tensor, got a DTensor"):
            mel_huber_loss(distribute(x), x, n, reduction=reduction)
        with pytest.raises(TypeError, match=r"^lengths must be a local tensor, got a DTensor"):
            stop_bce_loss(x[..., 0], distribute(n), reduction=reduction)
        with pytest.raises(TypeError, match=r"^target must be a dense tensor"):
            mel_huber_loss(x, x.to_sparse(), n, reduction=reduction)
