"""The random streams of a run: seeded, kept, put back."""

from __future__ import annotations

import random
import zlib

import numpy as np
import torch
from torch import Tensor

from ttsfast.training.distributed.process_group import ProcessGroup


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and Python: a model may draw from any of them."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def seed_rank(seed: int, rank: int, salt: int = 0) -> None:
    """Give a rank after the first dropout of its own; the first keeps the streams of a run of one."""
    if rank:
        words = np.random.SeedSequence([seed, rank, salt]).generate_state(1)
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


class RandomStreams:
    """All that a model may draw from, torch's, Python's and numpy's streams, on every rank.

    A rank that a checkpoint does not know begins a stream of its own.
    """

    def __init__(self, seed: int, device: torch.device, ranks: ProcessGroup) -> None:
        self._seed, self._device, self._ranks = seed, device, ranks

    def state_dict(self) -> dict[str, Tensor]:
        """``rankN.STREAM`` of every rank."""
        gathered = self._ranks.all_gather_object(self._own())
        return {
            f"rank{rank}.{name}": value for rank, own in enumerate(gathered) for name, value in own.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state_dict`."""
        rank = self._ranks.rank
        prefix = f"rank{rank}."
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if own:
            self._set(own)
        else:
            # Where the first rank's stream stands, which is another place at every step.
            seed_rank(self._seed, rank, zlib.crc32(state["rank0.cpu"].numpy().tobytes()))

    def _own(self) -> dict[str, Tensor]:
        _, words, gauss = random.getstate()
        _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        return {
            **random_streams(self._device),
            "python": torch.tensor(words, dtype=torch.int64),
            "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
            "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "numpy_place": torch.tensor([position, has_gauss], dtype=torch.int64),
            "numpy_gauss": torch.tensor(cached, dtype=torch.float64),
        }

    def _set(self, streams: dict[str, Tensor]) -> None:
        set_random_streams(streams, self._device)
        gauss = streams["python_gauss"].tolist()
        random.setstate((3, tuple(streams["python"].tolist()), gauss[0] if gauss else None))
        position, has_gauss = streams["numpy_place"].tolist()
        keys = streams["numpy"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", keys, position, has_gauss, float(streams["numpy_gauss"])))
