"""Which device and which precision a run uses, decided once and said aloud."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from ttsfast.config import Config
from ttsfast.errors import InputError


@dataclass(frozen=True)
class Precision:
    """A device and the type that its matrix products run in."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    def autocast(self) -> AbstractContextManager[object]:
        """The context of the forward pass."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def scales_loss(self) -> bool:
        """Whether gradients need dynamic loss scaling: fp16's smallest normal number is 6e-5."""
        return self.dtype is torch.float16


def choose_precision(config: Config) -> Precision:
    """Resolve ``training.device``, ``data.mixed_precision`` and ``training.amp_dtype``.

    Raises:
        InputError: a GPU is asked for where there is none.
    """
    asked, amp = config.training.device, config.training.amp_dtype
    if asked == "cuda" and not torch.cuda.is_available():
        raise InputError("training.device is cuda, but torch sees no GPU: use training.device=cpu or auto")
    use_gpu = asked != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if use_gpu else "cpu")
    if not config.data.mixed_precision:
        return Precision(device, torch.float32, "data.mixed_precision is false")
    if amp == "bf16":
        return Precision(device, torch.bfloat16, "training.amp_dtype is bf16")
    if amp == "fp16":
        return Precision(device, torch.float16, "training.amp_dtype is fp16")
    if not use_gpu:
        return Precision(device, torch.float32, "auto on a CPU, where fp32 is the sure choice")
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision(device, torch.bfloat16, "auto, and the GPU has bf16")
    return Precision(device, torch.float16, "auto, and the GPU has no bf16")


def find_device(name: str) -> torch.device:
    """The device of a ``--device`` option: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: the name is another one, or there is no such GPU.
    """
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count()
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or not (number == "" or number.isdecimal()):
        raise InputError(f"device {name!r}: use cpu, cuda or cuda:N")
    if int(number or 0) >= count:
        raise InputError(f"device {name!r}: torch sees {count} GPUs here; use cpu")
    return torch.device(name)
