"""Runs of several ranks, as tests start them and see them end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import TCPStore

from ttsfast.config import Config

WORKER = Path(__file__).with_name("rank_worker.py")
STORES: list[TCPStore] = []
"""They serve as long as they are referred to."""


def start(jobs: list[dict[str, Any]], folder: Path, size: int = 2) -> list[subprocess.Popen[str]]:
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
        subprocess.Popen(
            [sys.executable, str(WORKER), str(path)],
            env={**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def ended(ranks: list[subprocess.Popen[str]], seconds: float = 280) -> list[tuple[int, str]]:
    """Exit code and stderr of every rank."""
    try:
        texts = [rank.communicate(timeout=seconds)[1] for rank in ranks]
        return [(rank.returncode, text) for rank, text in zip(ranks, texts, strict=True)]
    finally:
        for rank in ranks:
            if rank.poll() is None:
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
