"""Which device and which precision a run uses, decided once and said aloud; and fp16's loss scaling."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from ttsfast.config import TrainingConfig
from ttsfast.devices import available_cores


def set_up_arithmetic(config: TrainingConfig, device: torch.device) -> None:
    """Apply ``training.tf32`` and ``training.deterministic``, which torch keeps per process, and let it have
    no more threads than there are cores for it."""
    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = config.tf32
    if config.deterministic:
        # Read when the first product is computed, which is later than this.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)


class LossScaler:
    """Dynamic loss scaling: small fp16 gradients are lifted above 6e-5, where fp16 loses digits.

    :attr:`factor` goes into the loss as ``grad_scale`` and into ``backward`` as the gradient of the total, so
    that a fused loss writes its gradients scaled in the one pass it makes. The loss divides by the counts of
    all micro-batches, so there is no accumulation to divide by, and the scale stays the same between them.

    A step whose scaled gradients are not finite, while its loss is, has overflowed: it is left out and the
    scale halves. ``growth_interval`` good steps in a row double it (Micikevicius et al., 2018). An overflow
    at a scale of 1 is none: the gradient itself is not finite.
    """

    largest = 2.0**24

    def __init__(
        self, device: torch.device, *, enabled: bool, initial: float = 2.0**16, growth_interval: int = 2000
    ) -> None:
        self.enabled, self.growth_interval = enabled, growth_interval
        self.scale = initial if enabled else 1.0
        self.good_steps = 0
        self.skipped = 0
        self.tensor = torch.full((), self.scale, device=device)
        """() the scale on the device, 1 where nothing is scaled"""

    @property
    def factor(self) -> Tensor | None:
        """The scale as a () tensor on the device; None where nothing is scaled."""
        return self.tensor if self.enabled else None

    def grow(self) -> None:
        """After a good step."""
        if not self.enabled:
            return
        self.good_steps += 1
        if self.good_steps % self.growth_interval == 0:
            self._set(min(self.largest, 2 * self.scale))

    def back_off(self) -> bool:
        """After an overflow; False when the scale cannot fall any further."""
        if self.scale <= 1.0:
            return False
        self.good_steps = 0
        self.skipped += 1
        self._set(max(1.0, self.scale / 2))
        return True

    def figures(self) -> dict[str, float]:
        """What a log line tells of it."""
        return {"skipped_updates": self.skipped, "loss_scale": self.scale}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("scale", "good_steps", "skipped")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; a run that did not scale leaves nothing to continue from."""
        self.skipped = state["skipped"]
        if self.enabled and state["scale"] != 1.0:
            self.good_steps = state["good_steps"]
            self._set(state["scale"])

    def _set(self, scale: float) -> None:
        self.scale = scale
        self.tensor.fill_(scale)
