"""ttsfast: a fast-converging trainer for text-to-speech acoustic models.

Importing the package touches no driver, compiles nothing and imports neither librosa, typer nor
matplotlib: every public name below is resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Batch": "ttsfast.data.loading.batch",
    "DeviceLoader": "ttsfast.data.loading.device_loader",
    "InputError": "ttsfast.errors",
    "MelLoader": "ttsfast.data.loading.loader",
    "Store": "ttsfast.data.store.store",
    "TTSLoss": "ttsfast.losses.module",
    "Trainer": "ttsfast.training.trainer",
    "Utterance": "ttsfast.data.store.utterance",
    "collate": "ttsfast.data.loading.batch",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name == "functional":
        return importlib.import_module("ttsfast.functional")
    raise AttributeError(f"module 'ttsfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, "functional"])
