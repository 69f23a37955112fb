"""``ttsfast env``: what this machine offers, what is missing and what that costs."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch

from ttsfast import __version__, native
from ttsfast.config import Config
from ttsfast.devices import choose_precision
from ttsfast.losses.backend import NAMES, unavailable

_PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "safetensors",
    "librosa",
    "soundfile",
    "espeakng-loader",
    "faster-whisper",
    "tensorboard",
)


def environment() -> dict[str, Any]:
    """Versions, devices, the C++ extension and the loss backends, as plain values."""
    precision = choose_precision(Config())
    return {
        "ttsfast": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "cpu": {"threads": torch.get_num_threads(), "capability": torch.backends.cpu.get_cpu_capability()},
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "training": {
            "device": precision.device.type,
            "precision": str(precision.dtype).removeprefix("torch."),
            "why": precision.reason,
        },
        "extension": native.describe(),
        "loss_backends": {name: unavailable(name) or "available" for name in NAMES if name != "auto"},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
