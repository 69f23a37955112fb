"""One call of a loss: the fused terms in a launch of a backend, and an alignment's terms beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from ttsfast.losses import adaptive, aligned
from ttsfast.losses.average import Average, lengths_of, lengths_outside
from ttsfast.losses.backend import Backend
from ttsfast.losses.output import LossOutput
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import FUSED, LossInputs, LossSpec
from ttsfast.terms.state import FixedWeights, StepState, fixed_weights


def call(
    backend: Backend,
    spec: LossSpec,
    inputs: LossInputs,
    state: StepState | FixedWeights,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
) -> LossOutput:
    """As :meth:`ttsfast.losses.backend.Backend.call`, of inputs with an alignment."""
    if backend.name == "torch" or inputs.alignment is None:
        return backend.call(spec, inputs, state, normalizer, grad_scale)
    dtype = inputs.compute_dtype()
    fixed = fixed_weights(spec, state, dtype)
    out = backend.call(spec, inputs.fused(), fixed, normalizer, grad_scale)
    lengths = lengths_of(inputs)
    average, active = Average(spec, inputs, lengths, normalizer), spec.active[len(FUSED) :]
    beside = aligned.terms(inputs.alignment, lengths, average, active, dtype, backend.name)
    total = out.total
    for term, weight, wanted in zip(beside, fixed.weights[len(FUSED) :].unbind(), active, strict=True):
        if term is not None and wanted:
            total = total + weight * term
    zero = out.values.new_zeros(())
    found = [zero if term is None else term.detach().to(zero.dtype) for term in beside]
    values = torch.cat([out.values, torch.stack(found)])
    floors = torch.cat([out.floor_values, zero.expand(len(beside))])
    if isinstance(state, StepState):
        if state.advance:
            state.noise_step.add_(1)
        if state.method != "fixed" and not backend.update(spec, state, values, floors):
            adaptive.update(state, state.method, spec.active, values, floors)
    return LossOutput(
        total,
        values,
        floors,
        fixed.weights,
        out.frames,
        inputs.present(),
        None if out.clamped is None else lengths_outside(inputs, lengths),
        aligned.unalignable(lengths),
    )
