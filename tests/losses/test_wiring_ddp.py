"""``DistributedDataParallel`` over two processes gives the gradients of one process with the whole batch."""

from __future__ import annotations

import multiprocessing
import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from cpp_checks import MISSING, WHY_MISSING
from functional_cases import BACKEND
from interpreter import INTERPRETED
from loss_checks import assert_close
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from wired_loss import FRAMES, LENGTHS, Model, call, data, make

from ttsfast.terms.counts import Counts

pytestmark = [
    pytest.mark.skipif(MISSING and not INTERPRETED, reason=WHY_MISSING),
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch is built without gloo"),
]
RANKS = 2
# Of unequal size, and of unequal lengths.
PARTS = (slice(0, 1), slice(1, 4))


def _rank(rank: int, folder: str) -> None:
    """Gradients with the counts of all ranks, and with this rank's own."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=100),
    )
    rows = PARTS[rank]
    model = DistributedDataParallel(Model())
    gradients = {}
    for name in ("counts", "own"):
        loss = make(BACKEND, weighting="fixed", mel_label_smoothing=0.0)
        everywhere = torch.tensor([float(n) for n in loss.counts(LENGTHS[rows], steps=FRAMES)])
        dist.all_reduce(everywhere)
        normalizer = Counts(*everywhere.unbind()) if name == "counts" else None
        out = call(loss, model, *data(), rows, normalizer=normalizer, grad_scale=float(RANKS))
        # DDP averages over ranks, where the parts of a loss add up.
        (out.total * RANKS).backward()
        gradients[name] = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
    if rank == 0:
        torch.save(gradients, f"{folder}/gradients.pt")
    dist.barrier()
    # Now and then torch's own threads abort a process that ends in the usual way after DDP on gloo.
    os._exit(0)


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(rank, str(tmp_path))) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    both: dict[str, list[Tensor]] = torch.load(tmp_path / "gradients.pt")
    model = Model()
    call(make("torch", weighting="fixed", mel_label_smoothing=0.0), model, *data()).total.backward()
    whole = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(both["counts"], whole, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-6 * float(b.abs().max()))
    # The mean of the ranks' own means is another number: the counts are what makes them equal.
    own = both["own"][0] / RANKS
    assert (own - whole[0]).abs().max() > 0.01 * whole[0].abs().max()
