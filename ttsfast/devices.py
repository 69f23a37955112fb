"""What this machine lets the process use: cores, GPUs, and the precision that suits them.

Worker processes that compute features import this: torch is imported where it is used.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ttsfast.cgroups import processor_quota
from ttsfast.errors import InputError

if TYPE_CHECKING:
    import torch

    from ttsfast.config import Config


def available_cores(root: Path = Path("/")) -> int:
    """Cores this process may use: in a container, under ``taskset`` or with a quota fewer than there are.

    A part of a core counts as one: it is still worth a thread.

    Args:
        root: see :func:`ttsfast.cgroups.processor_quota`.
    """
    return max(1, math.ceil(min(_allowed_cores(), processor_quota(root))))


def _allowed_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def heed_quota() -> None:
    """Before torch or numpy is imported: let them, and processes that this one starts, have as many threads
    as a quota gives cores. They heed affinity by themselves, and ``OMP_NUM_THREADS`` where somebody set it.
    """
    if available_cores() < _allowed_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Within the block torch has ``count`` threads; as many as before when None."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def multiplies_in_bf16(root: Path = Path("/")) -> bool:
    """Whether the CPU has tiles for products of bf16 (AMX), and oneDNN, with which torch multiplies, may use
    them. Without them a training step in bf16 took longer than in float32 on the one processor that was
    measured (an Intel Xeon told not to use them; with AVX512_BF16 or less).

    Args:
        root: see :func:`ttsfast.cgroups.processor_quota`.
    """
    import torch

    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    most = next((os.environ[name] for name in names if os.environ.get(name)), "DEFAULT").upper()
    allowed = torch.backends.mkldnn.is_available() and (most in ("DEFAULT", "ALL") or "AMX" in most)
    try:
        lines = (root / "proc" / "cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    return allowed and any("amx_bf16" in line.split() for line in lines if line.startswith("flags"))


@dataclass(frozen=True)
class Machine:
    """What a training process may use."""

    cores: int
    threads: int
    """That torch computes with on the CPU."""
    gpu: str = ""
    """Its name; empty where the run is on a CPU."""
    half: str = ""
    """The 16-bit type in which it trains sooner: bf16 where the GPU, or a CPU with AMX, has it; fp16 on
    another GPU; none on another CPU."""
    ranks: int = 1
    """Processes that train together, each on a GPU or a part of a CPU of its own."""

    def __str__(self) -> str:
        where = self.gpu or f"{self.cores} core{'s' if self.cores > 1 else ''}"
        return where if self.ranks == 1 else f"{self.ranks} ranks of {where}"


def this_machine(device: str = "auto") -> Machine:
    """The machine as ``training.device`` lets a run use it."""
    import torch

    use_gpu = device != "cpu" and torch.cuda.is_available()
    return Machine(
        cores=available_cores(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if use_gpu else "",
        half=_half(use_gpu),
        ranks=int(os.environ.get("WORLD_SIZE", "1")),
    )


def _half(use_gpu: bool) -> str:
    """As :attr:`Machine.half` has it."""
    import torch

    if use_gpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if multiplies_in_bf16() else ""


@dataclass(frozen=True)
class Precision:
    """A device and the type that its matrix products run in."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    def __str__(self) -> str:
        return f"{self.device.type}, {str(self.dtype).removeprefix('torch.')} ({self.reason})"

    def autocast(self) -> AbstractContextManager[object]:
        """The context of the forward pass."""
        import torch

        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def scales_loss(self) -> bool:
        """Whether gradients need dynamic loss scaling: fp16's smallest normal number is 6e-5."""
        import torch

        return self.dtype is torch.float16


def choose_precision(config: Config, gpu: int | None = None) -> Precision:
    """Resolve ``training.device``, ``data.mixed_precision`` and ``training.amp_dtype``.

    ``gpu`` is the number of the one to use, torch's current one when None.

    Raises:
        InputError: a GPU is asked for where there is none.
    """
    import torch

    asked, amp = config.training.device, config.training.amp_dtype
    if asked == "cuda" and not torch.cuda.is_available():
        raise InputError("training.device is cuda, but torch sees no GPU: use training.device=cpu or auto")
    use_gpu = asked != "cpu" and torch.cuda.is_available()
    device = torch.device("cpu" if not use_gpu else "cuda" if gpu is None else f"cuda:{gpu}")
    if not config.data.mixed_precision:
        return Precision(device, torch.float32, "data.mixed_precision is false")
    half = _half(use_gpu)
    if amp == "auto":
        where = "the GPU" if use_gpu else "the CPU"
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(half, torch.float32)
        has = {"bf16": f"{where} multiplies in bf16", "fp16": f"{where} has no bf16"}
        return Precision(device, dtype, f"auto, and {has.get(half, 'the CPU has no tiles for bf16, AMX')}")
    slow = (
        "" if use_gpu or half == amp else ", for which this CPU has no tiles: it may be slower than float32"
    )
    return Precision(
        device,
        torch.bfloat16 if amp == "bf16" else torch.float16,
        f"training.amp_dtype is {amp}{slow}",
    )


def find_device(name: str) -> torch.device:
    """The device of a ``--device`` option: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: the name is another one, or there is no such GPU.
    """
    import torch

    kind, _, number = name.partition(":")
    count = torch.cuda.device_count()
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or not (number == "" or number.isdecimal()):
        raise InputError(f"device {name!r}: use cpu, cuda or cuda:N")
    if int(number or 0) >= count:
        raise InputError(f"device {name!r}: torch sees {count} GPUs here; use cpu")
    return torch.device(name)


# Not asked when a loss is called: the compiler of torch 2.6 does not follow the question.
_TRITON_INSTALLED = find_spec("triton") is not None
_OLDEST_TRITON = (3, 6)
"""That of torch 2.6 does not take the kernels' arguments; the versions between were not tried."""


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on CPU tensors, as ``TRITON_INTERPRET=1`` asks."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


class TritonKernels:
    """Whether they can run here, as every call of an automatic backend asks; the driver answers slowly."""

    def __init__(self) -> None:
        self._can = False

    def missing(self) -> str | None:
        """As :func:`why_no_triton`, which is not asked again once they can."""
        if self._can:
            return None
        reason = why_no_triton()
        self._can = reason is None
        return reason


def why_no_triton() -> str | None:
    """Why Triton's kernels cannot run here, and the remedy; None when they can."""
    if not _TRITON_INSTALLED:
        return "Triton is not installed: pip install triton (Linux only)"
    import torch

    if not torch.cuda.is_available() and not interpreted():
        return "Triton needs a CUDA or ROCm device, and torch sees none: use backend='auto'"
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < _OLDEST_TRITON:
        return f"Triton {triton.__version__} is too old: upgrade torch and with it Triton to 3.6 or newer"
    return None
