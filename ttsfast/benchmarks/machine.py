"""What a measurement was made on, and how fast that machine copies memory."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttsfast import native
from ttsfast.devices import available_cores, multiplies_in_bf16

COPY_BYTES = 256 << 20
"""Read and written by one copy; many times what caches hold."""


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, threads, load, versions and commit: what a figure means nothing without."""
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": _processor(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        # What torch's own kernels use; ATEN_CPU_CAPABILITY sets less.
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bf16_tiles": multiplies_in_bf16(),
        "triton": _version("triton"),
        "ttsfast": _version("ttsfast"),
        "commit": _commit(),
        # Where it lies says nothing about speed, and much about whoever measured.
        "extension": {key: value for key, value in native.describe().items() if key != "file"},
        "device": str(device),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda or torch.version.hip
    return found


def summary(machine: dict[str, Any]) -> str:
    """What :func:`describe` found, in the line that ends a table."""
    return (
        f"{machine.get('gpu') or machine['processor']}, {machine['threads']} threads of {machine['cores']} "
        f"cores, load {machine['load'][0]}, torch {machine['torch']}, "
        f"commit {(machine['commit'] or 'none')[:12]}, {machine['date']}"
    )


class Copy:
    """A copy too large for the caches, to be timed among what is compared with it."""

    def __init__(self, device: torch.device) -> None:
        self.source = torch.ones(COPY_BYTES // 8, device=device)
        self.target = torch.empty_like(self.source)
        self.bytes = 2 * self.source.numel() * self.source.element_size()
        self()

    def __call__(self) -> Tensor:
        return self.target.copy_(self.source)


def synchronize(device: torch.device) -> None:
    """Wait for the device; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the working tree, with a plus where it is changed; None outside one."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "csrc", "kernels", "ttsfast")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
