"""The fused backends as torch operators, for compiled graphs: torch traces around them, not into them.

Outside compiled graphs the backends are called directly, which costs less per call. Here the
gradients are results of an operator like any other, and the backward pass always multiplies by what
arrived over what was applied, which the compiler joins with the operations around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ttsfast.losses.extension import BEST_ISA, as_given, hint_of, plan_of
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import BackendResult, LossInputs, LossSpec

HALF = (torch.bfloat16, torch.float16)
_MEL_LOSSES = ("huber", "l1", "mse")
_SMOOTHINGS = ("none", "mean", "noise")
_NORMALIZATIONS = ("frame", "utterance")
_KL_NORMALIZATIONS = ("elbo", "vector")

SCHEMA = (
    "(Tensor[] reals, Tensor[] integers, Tensor[] statistics, Tensor[] normalizer, Tensor weights,"
    " Tensor grad_scale, Tensor step, bool[] wanted, int[] layout, int[] choices, float[] numbers)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor[])"
)
"""Of every fused backend's operator: total, values, floors, frames, the gradient scale applied, gradients."""

_library = torch.library.Library("ttsfast", "FRAGMENT")
_library.define("cpp_losses" + SCHEMA)


def run(
    operator: Callable[..., Any],
    spec: LossSpec,
    inputs: LossInputs,
    weights: Tensor,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
    step: Tensor,
) -> BackendResult:
    """As :meth:`ttsfast.losses.backend.Backend.run`, traceable, through an operator of :data:`SCHEMA`."""
    reals = inputs.values()
    slots = _slots(inputs)
    active = {"mel": 0, "target": 0, "posterior": 1, "prior": 1, "stop": 2, "attention": 3}
    wanted = [
        torch.is_grad_enabled() and spec.active[active[field]] and tensor.requires_grad
        for (field, _), tensor in zip(slots, reals, strict=True)
    ]
    integers = [inputs.mel_lengths, inputs.step_lengths]
    integers += [part for part in (inputs.text_lengths, inputs.truncated) if part is not None]
    layout = [
        len(inputs.mel),
        inputs.posterior is not None,
        inputs.prior is not None,
        inputs.stop_logits is not None,
        len(inputs.attention),
        inputs.text_lengths is not None,
        inputs.truncated is not None,
        inputs.mel_mean is not None,
        inputs.mel_std is not None,
    ]
    parts: Sequence[Any] = normalizer if isinstance(normalizer, tuple) else (normalizer,)
    total, values, floors, frames, _, _ = operator(
        reals,
        integers,
        [part for part in (inputs.mel_mean, inputs.mel_std) if part is not None],
        [] if normalizer is None else [_tensor(part) for part in parts],
        weights,
        _tensor(1.0 if grad_scale is None else grad_scale),
        step,
        wanted,
        [int(part) for part in layout],
        *_numbers_of(spec),
    )
    return BackendResult(total, values.detach(), floors.detach(), frames)


def _slots(inputs: LossInputs) -> list[tuple[str, int]]:
    """Where each of ``inputs.values()`` sits."""
    fields = [("mel", len(inputs.mel)), ("target", 1)]
    fields += [("posterior", len(inputs.posterior or ())), ("prior", len(inputs.prior or ()))]
    fields += [("stop", int(inputs.stop_logits is not None)), ("attention", len(inputs.attention))]
    return [(field, i) for field, count in fields for i in range(count)]


def inputs_of(
    reals: Sequence[Any], integers: Sequence[Any], statistics: Sequence[Any], layout: Sequence[int]
) -> LossInputs:
    """The inputs that an operator's arguments stand for, or whatever is given in their places."""
    mel, posterior, prior, stop, attention, text, truncated, mean, std = layout
    real, integer, statistic = iter(reals), iter(integers), iter(statistics)
    return LossInputs(
        mel=tuple(next(real) for _ in range(mel)),
        target=next(real),
        posterior=(next(real), next(real)) if posterior else None,
        prior=(next(real), next(real)) if prior else None,
        stop_logits=next(real) if stop else None,
        attention=tuple(next(real) for _ in range(attention)),
        mel_lengths=next(integer),
        step_lengths=next(integer),
        text_lengths=next(integer) if text else None,
        truncated=next(integer) if truncated else None,
        mel_mean=next(statistic) if mean else None,
        mel_std=next(statistic) if std else None,
    )


def _sweep(
    reals: Sequence[Tensor],
    integers: Sequence[Tensor],
    statistics: Sequence[Tensor],
    normalizer: Sequence[Tensor],
    weights: Tensor,
    grad_scale: Tensor,
    step: Tensor,
    wanted: Sequence[bool],
    layout: Sequence[int],
    choices: Sequence[int],
    numbers: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    parts = Counts(*normalizer) if len(normalizer) == len(Counts._fields) else (*normalizer, None)[0]
    (total, values, floors, _, frames, _, _), written = plan_of(spec_of(tuple(choices), tuple(numbers))).call(
        as_given(inputs_of(reals, integers, statistics, layout)),
        (weights, step),
        parts,
        hint_of(grad_scale),
        list(wanted),
        _memory,
        torch.get_num_threads(),
        BEST_ISA,
    )
    return total, values, floors, frames, torch.tensor(written.applied, dtype=total.dtype), written.gradients


def _memory(tensor: Tensor) -> Tensor:
    """In single precision for half: rounded only after backward has multiplied."""
    return torch.empty_like(tensor, dtype=torch.float32 if tensor.dtype in HALF else tensor.dtype)


def _shapes(reals: Sequence[Tensor], *rest: Any) -> tuple[Any, ...]:
    weights, wanted = rest[3], rest[6]
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in reals) else torch.float32
    scalar = weights.new_empty((), dtype=dtype)
    gradients = [
        torch.empty_like(tensor, dtype=torch.float32 if tensor.dtype in HALF else tensor.dtype)
        for tensor, want in zip(reals, wanted, strict=True)
        if want
    ]
    four = weights.new_empty((4,), dtype=dtype)
    frames = weights.new_empty((), dtype=torch.int64)
    return scalar, four, four.clone(), frames, scalar.clone(), gradients


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    reals, wanted = inputs[0], inputs[7]
    *_, applied, gradients = output
    ctx.wanted = list(wanted)
    ctx.dtypes = [tensor.dtype for tensor in reals]
    ctx.lists = [len(part) for part in inputs[1:4]]
    ctx.others = len(inputs) - 4
    ctx.save_for_backward(applied, *gradients)


def _backward(ctx: Any, incoming: Tensor, *unused: Any) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("the fused loss is differentiable once; use backend='torch' to go further")
    applied, *gradients = ctx.saved_tensors
    given = iter(rescaled(gradients, incoming / applied))
    reals = [
        next(given).to(dtype) if want else None for want, dtype in zip(ctx.wanted, ctx.dtypes, strict=True)
    ]
    return (reals, *([None] * count for count in ctx.lists), *([None] * ctx.others))


def rescaled(gradients: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
    """The gradients times ``factor``; padding is 0 also times infinity and NaN."""
    return [torch.where(gradient == 0, gradient, gradient * factor) for gradient in gradients]


def complete(name: str, library: torch.library.Library) -> None:
    """Tell torch the shapes and the derivative of an operator of :data:`SCHEMA`."""
    torch.library.register_fake(name, _shapes, lib=library)
    torch.library.register_autograd(name, _backward, setup_context=_keep, lib=library)


_library.impl("cpp_losses", _sweep, "CPU")
complete("ttsfast::cpp_losses", _library)


def _tensor(value: Tensor | float) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().reshape(())
    return torch.full((), float(value), dtype=torch.float64)


def _numbers_of(spec: LossSpec) -> tuple[list[int], list[float]]:
    """The spec as what an operator may be given."""
    choices = [
        _MEL_LOSSES.index(spec.mel_loss),
        _SMOOTHINGS.index(spec.mel_smoothing),
        _NORMALIZATIONS.index(spec.normalization),
        _KL_NORMALIZATIONS.index(spec.kl_normalization),
        spec.stop_tail_frames,
        # The generator's key takes the low 32 bits; all of it may not fit an operator's integer.
        spec.seed & 0xFFFFFFFF,
    ]
    numbers = [
        *spec.base_weights,
        spec.huber_delta,
        spec.mel_label_smoothing,
        spec.mel_floor,
        spec.kl_free_bits,
        spec.stop_label_smoothing,
        spec.stop_pos_weight,
        spec.attention_sigma,
    ]
    return choices, numbers


@lru_cache(maxsize=64)
def spec_of(choices: tuple[int, ...], numbers: tuple[float, ...]) -> LossSpec:
    """The inverse of :func:`_numbers_of`."""
    mel_loss, smoothing, normalization, kl_normalization, tail, seed = choices
    mel, kl, stop, attention, delta, amount, floor, free_bits, stop_smoothing, pos_weight, sigma = numbers
    return LossSpec(
        base_weights=(mel, kl, stop, attention),
        mel_loss=_MEL_LOSSES[mel_loss],
        huber_delta=delta,
        mel_smoothing=_SMOOTHINGS[smoothing],
        mel_label_smoothing=amount,
        mel_floor=floor,
        normalization=_NORMALIZATIONS[normalization],
        kl_normalization=_KL_NORMALIZATIONS[kl_normalization],
        kl_free_bits=free_bits,
        stop_label_smoothing=stop_smoothing,
        stop_pos_weight=pos_weight,
        stop_tail_frames=tail,
        attention_sigma=sigma,
        seed=seed,
    )
