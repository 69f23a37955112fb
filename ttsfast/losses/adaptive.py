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

from ttsfast.terms.spec import TERMS, LossSpec
from ttsfast.terms.state import (
    DWA_TEMPERATURE,
    FACTOR_BOUNDS,
    FAST_DECAY,
    LOG_VARIANCE_BOUND,
    SLOW_DECAY,
    STEEPEST,
    UNCERTAINTY_RATE,
    StepState,
)


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
    """Factors of the terms.

    - ``"fixed"``: always 1.
    - ``"dwa"``: dynamic weight averaging (Liu et al., 2019, "End-to-end multi-task learning with
      attention") on bias-corrected moving averages of each term's excess over its floor:
      ``r = fast / slow``, ``f = exp(r / 2) / mean(exp(r / 2))`` over the active terms. A term that
      falls more slowly than the others gains weight; equal ratios give exactly 1. The paper's ``r`` is
      of the mean losses of the last two epochs, and moves once an epoch; here it moves with every step, of
      the excess and not of the loss, since a floor never falls. The paper has no base weights that the
      factors multiply, and no bounds, which its temperature of 2 all but gives.
    - ``"uncertainty"``: log-variances s (Kendall et al., 2018, "Multi-task learning using uncertainty
      to weigh losses"), descending ``(exp(-s) * excess + s) / 2`` by themselves, all terms as regressions;
      in the paper they are learned by the model's optimiser, from the losses. At rest ``exp(-s)`` is
      ``1 / excess``, which for the terms of speech is far above 1 and grows as they fall; so that the factors
      weigh the terms against each other and not the loss against the learning rate,
      ``f = exp(-s) / mean(exp(-s))`` over the active terms, within the bounds. Equal excesses give exactly 1.
    """

    factors: Tensor
    fast: Tensor
    slow: Tensor
    log_variances: Tensor
    observations: Tensor
    skipped: Tensor

    def __init__(self, method: str) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(refuse_other_dtypes)
        self.method = method
        self.register_buffer("factors", torch.ones(len(TERMS), dtype=torch.float32))
        self.register_buffer("fast", torch.zeros(len(TERMS), dtype=torch.float32))
        self.register_buffer("slow", torch.zeros(len(TERMS), dtype=torch.float32))
        self.register_buffer("log_variances", torch.zeros(len(TERMS), dtype=torch.float32))
        self.register_buffer("observations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))

    def reset_parameters(self) -> None:
        """The state of a loss that has seen nothing, for modules that come from the meta device."""
        self.factors.fill_(1)
        for state in (self.fast, self.slow, self.log_variances, self.observations, self.skipped):
            state.zero_()


def move_on(spec: LossSpec, state: StepState, values: Tensor, floors: Tensor) -> None:
    """After a step with these terms, each (n,): what a fused backend does in the same launch."""
    if state.advance:
        state.noise_step.add_(1)
    update(state, state.method, spec.active, values, floors)


@torch.no_grad()
def update(
    state: StepState | AdaptiveWeights,
    method: str,
    active_terms: tuple[bool, ...],
    values: Tensor,
    floors: Tensor,
) -> None:
    """Update the factors of the next step from a step's terms, each (n,): the first of :data:`TERMS`.

    A step with a non-finite active term changes nothing but ``skipped``: the averages stay good, and the
    total still shows the value.
    """
    if method == "fixed":
        return
    n = len(values)
    factors = state.factors[:n]
    active = _on_device(active_terms[:n], factors.device)
    excess = (values - floors).clamp(min=0).float()
    finite = torch.where(active, excess, 0.0).isfinite().all()
    changed = active & finite
    state.skipped.add_(~finite)
    state.observations.add_(finite)
    for average, decay in ((state.fast, FAST_DECAY), (state.slow, SLOW_DECAY)):
        _average(average[:n], state.observations, excess, decay, changed)
    if method == "dwa":
        following = _dwa(state.fast[:n], state.slow[:n], active)
    else:
        following = _uncertainty(state.log_variances[:n], excess, active, changed)
    factors.copy_(torch.where(changed, following, factors))


def _on_device(flags: tuple[bool, ...], device: torch.device) -> Tensor:
    """(n,) bool, made where it is wanted: the capture of a graph allows no copy from the host."""
    bits = sum(flag << place for place, flag in enumerate(flags))
    return torch.bitwise_right_shift(bits, torch.arange(len(flags), device=device)) % 2 == 1


def _average(average: Tensor, observations: Tensor, seen: Tensor, decay: float, changed: Tensor) -> None:
    """Exponential average, bias-corrected: the n-th observation has weight (1-d)/(1-d^n)."""
    n = observations.clamp(min=1)
    share = torch.where(n == 1, 1.0, (1 - decay) / -torch.expm1(n.float() * math.log(decay)))
    average.copy_(torch.where(changed, average + share * (seen - average), average))


def _dwa(fast: Tensor, slow: Tensor, active: Tensor) -> Tensor:
    known = slow > 0
    ratio = torch.where(known, fast / torch.where(known, slow, 1.0), 1.0)
    return _shared_out(ratio, DWA_TEMPERATURE, active)


def _uncertainty(log_variances: Tensor, excess: Tensor, active: Tensor, changed: Tensor) -> Tensor:
    slope = (0.5 * (1 - torch.exp(-log_variances) * excess)).clamp(min=-STEEPEST)
    moved = (log_variances - UNCERTAINTY_RATE * slope).clamp(-LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND)
    log_variances.copy_(torch.where(changed, moved, log_variances))
    return _shared_out(-log_variances, 1.0, active)


def _shared_out(exponents: Tensor, temperature: float, active: Tensor) -> Tensor:
    """``exp(exponents / temperature)`` over its mean over the active terms, within the bounds."""
    exponents = torch.where(active, exponents, -torch.inf)
    # Measured from the largest, so that equal ones give exp(0) = 1 and exactly 1 after division.
    raised = torch.where(active, torch.exp((exponents - exponents.max()) / temperature), 0.0)
    return (raised * (active.sum() / raised.sum())).clamp(*FACTOR_BOUNDS)
