"""Runs of several ranks, as tests start them and see them end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import forks
import rank_worker
import torch
from torch import Tensor
from torch.distributed import TCPStore

from ttsfast.config import Config

WORKER = Path(__file__).with_name("rank_worker.py")
STORES: list[TCPStore] = []
"""They serve as long as they are referred to."""


class RankProcess:
    """One rank, forked from a server that has imported torch, which takes seconds of a processor."""

    def __init__(self, path: Path, environment: dict[str, str]) -> None:
        self._stderr = path.with_name(f"stderr-{environment['RANK']}")
        self._process = forks.start(_be_rank, path, environment, self._stderr)

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """At once."""
        self._process.kill()
        self._process.join()

    def communicate(self, timeout: float | None = None) -> str:
        """Wait for its end and return what it wrote to stderr; raise TimeoutExpired where it does not end."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("rank", timeout or 0)
        return self._stderr.read_text(encoding="utf-8")


def _be_rank(path: Path, environment: dict[str, str], stderr: Path) -> None:
    os.environ.update(environment)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = [str(WORKER), str(path)]
    rank_worker.main()


def start(jobs: list[dict[str, Any]], folder: Path, size: int = 2) -> list[RankProcess]:
    """The ranks of a run as ``torchrun`` would start them, without its own process."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs), encoding="utf-8")
    # Kept here, as torchrun keeps it: a port that is only looked up may be another's when the first rank, at
    # last, listens on it, and a rank that meets a stranger there waits for minutes.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    STORES.append(store)
    address = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(size),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    return [
        RankProcess(path, {**address, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(size)
    ]


def ended(ranks: list[RankProcess], seconds: float = 280) -> list[tuple[int | None, str]]:
    """Exit code and stderr of every rank."""
    try:
        texts = [rank.communicate(timeout=seconds) for rank in ranks]
        return [(rank.returncode, text) for rank, text in zip(ranks, texts, strict=True)]
    finally:
        for rank in ranks:
            if rank.returncode is None:
                rank.kill()


def errors_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("ttsfast: ")]


def job(name: str, config: Config, **more: Any) -> dict[str, Any]:
    return {"name": name, "config": config.to_dict(), **more}


def weights(folder: Path, name: str, rank: int) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(folder / f"{name}-{rank}.pt")
    return loaded


def torchrun(*arguments: str | Path, seconds: float = 280) -> subprocess.CompletedProcess[str]:
    """Two ranks under ``torchrun`` itself, to their end."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *map(str, arguments),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
