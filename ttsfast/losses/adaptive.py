"""Adaptive weights: factors around 1 that follow from the losses of earlier steps.

All state is device tensors updated by device arithmetic, so nothing waits for the device and a
captured CUDA graph replays the update. A step uses the factors that earlier steps left; its own
values change the next ones.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ttsfast.terms.spec import TERMS
from ttsfast.terms.state import (
    DWA_TEMPERATURE,
    FACTOR_BOUNDS,
    FAST_DECAY,
    FUSED_METHODS,
    SLOW_DECAY,
    UNCERTAINTY_RATE,
)

METHODS = (*FUSED_METHODS, "origin")
ORIGIN_BOUNDS = (0.7, 1.3)


def refuse_other_dtypes(
    module: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Before ``load_state_dict(assign=True)``, which would put tensors of any dtype in the places of buffers
    that are read as what they were; without ``assign`` it converts them."""
    if not local_metadata.get("assign_to_params_buffers", False):
        return
    for name, buffer in module.named_buffers(recurse=False):
        given = state_dict.get(prefix + name)
        if isinstance(given, Tensor) and given.dtype != buffer.dtype:
            # At once: what torch collects, it reports after it has put the tensors in place.
            raise RuntimeError(
                f"{prefix + name} is {given.dtype}, the loss keeps it in {buffer.dtype}: load without "
                "assign=True, which converts it"
            )


class AdaptiveWeights(nn.Module):
    """Factors of the four terms.

    - ``"fixed"``: always 1.
    - ``"dwa"``: dynamic weight averaging (Liu et al., 2019, "End-to-end multi-task learning with
      attention") on bias-corrected moving averages of each term's excess over its floor:
      ``r = fast / slow``, ``f = exp(r / 2) / mean(exp(r / 2))`` over the active terms. A term that
      falls more slowly than the others gains weight; equal ratios give exactly 1.
    - ``"uncertainty"``: log-variances s (Kendall et al., 2018, "Multi-task learning using uncertainty
      to weigh losses"), ``f = exp(-s)``, descending ``(exp(-s) * excess + s) / 2`` by themselves.
    - ``"origin"``: ``clip(1/2 + tanh(L/R - 1)/2, 0.7, 1.3)`` on the mel term alone, L its last value and
      R its slow average; for comparison only.
    """

    factors: Tensor
    fast: Tensor
    slow: Tensor
    log_variances: Tensor
    observations: Tensor
    skipped: Tensor
    active: Tensor

    def __init__(self, method: str, active: tuple[bool, ...]) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(refuse_other_dtypes)
        self.method = method
        self.register_buffer("factors", torch.ones(len(TERMS), dtype=torch.float32))
        self.register_buffer("fast", torch.zeros(len(TERMS), dtype=torch.float32))
        self.register_buffer("slow", torch.zeros(len(TERMS), dtype=torch.float32))
        self.register_buffer("log_variances", torch.zeros(len(TERMS), dtype=torch.float32))
        self.register_buffer("observations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        self.register_buffer("active", torch.tensor(active), persistent=False)
        self._active = active

    def reset_parameters(self) -> None:
        """The state of a loss that has seen nothing, for modules that come from the meta device."""
        self.factors.fill_(1)
        for state in (self.fast, self.slow, self.log_variances, self.observations, self.skipped):
            state.zero_()
        self.active.copy_(torch.tensor(self._active, device=self.active.device))

    @torch.no_grad()
    def observe(self, values: Tensor, floors: Tensor) -> None:
        """Update the factors of the next step from this step's terms, each (4,).

        A step with a non-finite active term changes nothing but ``skipped``: the averages stay good,
        and the total still shows the value.
        """
        if self.method == "fixed":
            return
        excess = (values - floors).clamp(min=0).float()
        seen = excess if self.method != "origin" else values.float()
        finite = torch.where(self.active, seen, 0.0).isfinite().all()
        changed = self.active & finite
        self.skipped.add_(~finite)
        self.observations.add_(finite)
        self._average(self.fast, seen, FAST_DECAY, changed)
        self._average(self.slow, seen, SLOW_DECAY, changed)
        factors = getattr(self, f"_{self.method}")(seen, changed)
        self.factors.copy_(torch.where(changed, factors, self.factors))

    def _average(self, average: Tensor, seen: Tensor, decay: float, changed: Tensor) -> None:
        """Exponential average, bias-corrected: the n-th observation has weight (1-d)/(1-d^n)."""
        n = self.observations.clamp(min=1)
        share = torch.where(n == 1, 1.0, (1 - decay) / -torch.expm1(n.float() * math.log(decay)))
        average.copy_(torch.where(changed, average + share * (seen - average), average))

    def _ratio(self, above: Tensor) -> Tensor:
        """``above / slow``, 1 where the slow average is 0."""
        known = self.slow > 0
        return torch.where(known, above / torch.where(known, self.slow, 1.0), 1.0)

    def _dwa(self, seen: Tensor, changed: Tensor) -> Tensor:
        ratio = torch.where(self.active, self._ratio(self.fast), -torch.inf)
        # Measured from the largest, so that equal ratios give exp(0) = 1 and exactly 1 after division.
        raised = torch.where(self.active, torch.exp((ratio - ratio.max()) / DWA_TEMPERATURE), 0.0)
        return (raised * (self.active.sum() / raised.sum())).clamp(*FACTOR_BOUNDS)

    def _uncertainty(self, seen: Tensor, changed: Tensor) -> Tensor:
        low, high = FACTOR_BOUNDS
        slope = 0.5 * (1 - torch.exp(-self.log_variances) * seen)
        moved = (self.log_variances - UNCERTAINTY_RATE * slope).clamp(-math.log(high), -math.log(low))
        self.log_variances.copy_(torch.where(changed, moved, self.log_variances))
        return torch.exp(-self.log_variances).clamp(low, high)

    def _origin(self, seen: Tensor, changed: Tensor) -> Tensor:
        factor = (0.5 + 0.5 * torch.tanh(self._ratio(seen) - 1)).clamp(*ORIGIN_BOUNDS)
        only_mel = torch.arange(len(TERMS), device=factor.device) == TERMS.index("mel")
        return torch.where(only_mel, factor, 1.0)
