"""The random streams of a run: seeded, kept, put back."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and Python: a model may draw from any of them."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def seed_rank(seed: int, rank: int, step: int) -> None:
    """Give a rank after the first dropout of its own; the first keeps the streams of a run of one."""
    if rank:
        words = np.random.SeedSequence([seed, rank, step]).generate_state(1)
        seed_everything(int(words[0]))


def random_streams(device: torch.device) -> dict[str, Tensor]:
    """torch's random streams, which dropout draws from."""
    streams = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        streams["cuda"] = torch.cuda.get_rng_state(device)
    return streams


def set_random_streams(streams: dict[str, Tensor], device: torch.device) -> None:
    """Put :func:`random_streams` back."""
    torch.set_rng_state(streams["cpu"])
    if "cuda" in streams and device.type == "cuda":
        torch.cuda.set_rng_state(streams["cuda"], device)


def all_streams(device: torch.device) -> dict[str, Tensor]:
    """torch's, Python's and numpy's random streams as tensors."""
    _, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        **random_streams(device),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_place": torch.tensor([position, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor(cached, dtype=torch.float64),
    }


def set_all_streams(streams: dict[str, Tensor], device: torch.device) -> None:
    """Put :func:`all_streams` back; checkpoints of format 1 hold torch's alone."""
    set_random_streams(streams, device)
    if "python" not in streams:
        return
    gauss = streams["python_gauss"].tolist()
    random.setstate((3, tuple(streams["python"].tolist()), gauss[0] if gauss else None))
    position, has_gauss = streams["numpy_place"].tolist()
    keys = streams["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, float(streams["numpy_gauss"])))
