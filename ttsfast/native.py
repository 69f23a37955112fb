"""The one place that imports the C++ extension, and that says why it is missing where it is."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

INTERFACE = 11
"""What this version of the Python code expects of ``ttsfast._C.INTERFACE``."""


def _load() -> tuple[ModuleType | None, str]:
    try:
        module = importlib.import_module("ttsfast._C")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "ttsfast._C":
            return None, "the C++ extension was not built: install a C++17 compiler (g++), then ttsfast again"
        return None, f"the C++ extension does not load ({error}): install ttsfast again"
    found = getattr(module, "INTERFACE", 0)
    if found != INTERFACE:
        return None, (
            f"the C++ extension is of another version (interface {found}, needed {INTERFACE}): "
            "install ttsfast again (`pip install -e .` in a checkout)"
        )
    return module, ""


core, why_missing = _load()
"""``core`` is the extension or None; ``why_missing`` is then one line with the remedy."""


@cache
def with_torch() -> ModuleType:
    """The extension, which from the first call on reads torch's tensors and computes on torch's threads."""
    import torch
    from torch.utils.dlpack import from_dlpack, to_dlpack

    assert core is not None, why_missing
    exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    core.use_tensors([torch.Tensor, torch.nn.Parameter], exchange, to_dlpack, from_dlpack)
    join_team()
    return core


def join_team() -> bool:
    """Compute on the threads that torch's own operations run on, where those are OpenMP's."""
    import torch

    if core is None or "OpenMP" not in torch.__config__.parallel_info():
        return False
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    return bool(core.join_team_of(str(library)))


def describe() -> dict[str, str | bool]:
    """What ``ttsfast env`` prints: whether the extension is there, what it uses, what its absence costs."""
    if core is None:
        return {
            "available": False,
            "reason": why_missing,
            "cost": "checksums and batches go through Python: same bytes, several times slower; "
            "losses on the CPU go through plain torch: same values, about ten times slower; "
            "alignment goes through plain torch, frame by frame: same values; "
            "features go through numpy: the same to 1e-5, several times slower",
        }
    return {
        "available": True,
        "file": str(core.__file__),
        "crc32c": core.crc32c_implementation(),
        "float16": core.half_implementations()[0],
        "losses": core.loss_implementation(),
        "features": core.mel_implementation(),
    }
