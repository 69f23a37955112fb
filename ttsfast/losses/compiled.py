"""The fused backends as torch operators, for compiled graphs: torch traces around them, not into them.

Outside compiled graphs the backends are called directly, which costs less per call. Here the gradients are
results of an operator like any other, and the backward pass always multiplies by what arrived over what was
applied, which the compiler joins with the operations around it, as it does those that move the state on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ttsfast.losses import adaptive
from ttsfast.losses.extension import LARGEST_HINT, hint_of
from ttsfast.losses.output import LossOutput
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import FUSED, LossInputs, LossSpec, compute_dtype
from ttsfast.terms.state import FixedWeights, StepState, fixed_weights

Forward = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""``(spec, inputs, gradients, state, normalizer, grad_scale) -> (total, report, integers)``: computes a call
and writes its gradients.

- ``gradients``: memory for each of ``inputs.values()``, None where none is wanted.
- ``state``: :class:`FixedWeights`.
- ``total``: ()
- ``report``: (5, 4), by the fused terms: values and floors in the first rows, and first in the last the
  gradient scale applied.
- ``integers``: (3,) int64, valid frames, and how many lengths were clamped.
"""

_SCHEMA = (
    "(Tensor[] reals, Tensor[] vectors, Tensor[] normalizer, Tensor[] scalars, bool[] wanted, int[] layout,"
    " str[] words, int[] integers, float[] numbers) -> (Tensor, Tensor, Tensor, Tensor[])"
)
_HALF = (torch.bfloat16, torch.float16)
_OPTIONAL = ("text_lengths", "truncated", "mel_mean", "mel_std")
_library = torch.library.Library("ttsfast", "FRAGMENT")


def define(name: str, forward: Forward, *devices: str) -> None:
    """Make ``torch.ops.ttsfast.NAME`` of a backend's forward pass, for these dispatch keys."""

    def run(
        reals: Sequence[Tensor],
        vectors: Sequence[Tensor],
        normalizer: Sequence[Tensor],
        scalars: Sequence[Tensor],
        wanted: Sequence[bool],
        layout: Sequence[int],
        *options: Sequence[Any],
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        gradients = [_gradient(tensor) if want else None for tensor, want in zip(reals, wanted, strict=True)]
        weights, step, *scale = scalars
        divisors = tuple(normalizer)
        results = forward(
            decoded(*map(tuple, options)),
            _arranged(reals, vectors, layout),
            gradients,
            FixedWeights(weights, step),
            Counts(*divisors) if len(divisors) == len(Counts._fields) else (*divisors, None)[0],
            scale[0] if scale else None,
        )
        return *results, [gradient for gradient in gradients if gradient is not None]

    _library.define(name + _SCHEMA)
    for device in devices:
        _library.impl(name, run, device)
    torch.library.register_fake(f"ttsfast::{name}", _fake, lib=_library)
    torch.library.register_autograd(f"ttsfast::{name}", _backward, setup_context=_keep, lib=_library)


def call(
    operator: Callable[..., Any],
    spec: LossSpec,
    inputs: LossInputs,
    state: StepState | FixedWeights,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
) -> LossOutput:
    """As :meth:`ttsfast.losses.backend.Backend.call`, traceable, through an operator of :func:`define`."""
    reals = inputs.values()
    fixed = fixed_weights(spec, state, inputs.compute_dtype())
    optional = (inputs.text_lengths, inputs.truncated, inputs.mel_mean, inputs.mel_std)
    layout = [len(inputs.mel), inputs.posterior is not None, inputs.prior is not None]
    layout += [inputs.stop_logits is not None, len(inputs.attention), *(v is not None for v in optional)]
    divisors: Sequence[Any] = normalizer if isinstance(normalizer, tuple) else (normalizer,)
    total, report, integers, _ = operator(
        reals,
        [inputs.mel_lengths, inputs.step_lengths, *(v for v in optional if v is not None)],
        [] if normalizer is None else [_tensor(divisor) for divisor in divisors],
        # Nothing from the host that can be left out: it would keep the graph out of a CUDA graph.
        [*fixed, *([] if grad_scale is None else [_hint(grad_scale)])],
        [
            torch.is_grad_enabled() and tensor.requires_grad and active
            for tensor, active in zip(reals, _active(spec, inputs), strict=True)
        ],
        [int(count) for count in layout],
        *encoded(spec),
    )
    report = report.detach()
    if isinstance(state, StepState):
        adaptive.move_on(spec, state, report[0], report[1])
    present, weights = inputs.present(), fixed.weights[: len(FUSED)]
    return LossOutput(total, report[0], report[1], weights, integers[0], present, integers[1])


def _active(spec: LossSpec, inputs: LossInputs) -> list[bool]:
    """Whether each of ``inputs.values()`` may get a gradient."""
    mel, kl, stop, attention, *_ = spec.active
    latents = [kl] * (len(inputs.posterior or ()) + len(inputs.prior or ()))
    stops = [] if inputs.stop_logits is None else [stop]
    return [*[mel] * (len(inputs.mel) + 1), *latents, *stops, *[attention] * len(inputs.attention)]


def _tensor(value: Tensor | float) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().reshape(())
    # On the host, where its value costs no wait.
    return torch.full((), float(value), dtype=torch.float64)


def _hint(grad_scale: Tensor | float) -> Tensor:
    """As :func:`ttsfast.losses.extension.hint_of`, without a look at a value on the device."""
    if not isinstance(grad_scale, Tensor):
        return _tensor(hint_of(grad_scale))
    scale = _tensor(grad_scale).to(torch.float64)
    size = scale.abs()
    return torch.where((size >= 1 / LARGEST_HINT) & (size <= LARGEST_HINT), scale, 1.0)


def encoded(spec: LossSpec) -> tuple[list[str], list[int], list[float]]:
    """The spec as what an operator may be given."""
    words = [spec.mel_loss, spec.mel_smoothing, spec.normalization, spec.kl_normalization]
    numbers = [*spec.base_weights, spec.huber_delta, spec.mel_label_smoothing, spec.mel_floor]
    numbers += [spec.kl_free_bits, spec.stop_label_smoothing, spec.stop_pos_weight, spec.attention_sigma]
    # The generator's key takes the low 32 bits of the seed; all of it may not fit an operator's integer.
    return words, [spec.stop_tail_frames, spec.seed & 0xFFFFFFFF], numbers


@lru_cache(maxsize=64)
def decoded(words: tuple[str, ...], integers: tuple[int, ...], numbers: tuple[float, ...]) -> LossSpec:
    """The inverse of :func:`encoded`; the same object for the same options: launches are known by it."""
    *weights, delta, amount, floor, free_bits, smoothing, pos_weight, sigma = numbers
    return LossSpec(
        base_weights=tuple(weights),
        mel_loss=words[0],
        huber_delta=delta,
        mel_smoothing=words[1],
        mel_label_smoothing=amount,
        mel_floor=floor,
        normalization=words[2],
        kl_normalization=words[3],
        kl_free_bits=free_bits,
        stop_label_smoothing=smoothing,
        stop_pos_weight=pos_weight,
        stop_tail_frames=integers[0],
        attention_sigma=sigma,
        seed=integers[1],
    )


def _arranged(reals: Sequence[Tensor], vectors: Sequence[Tensor], layout: Sequence[int]) -> LossInputs:
    """The inputs that the operator's lists were made from."""
    mel, posterior, prior, stop, attention, *optional = layout
    real, vector = iter(reals), iter(vectors)
    found: dict[str, Any] = {"mel": tuple(next(real) for _ in range(mel)), "target": next(real)}
    found["posterior"] = (next(real), next(real)) if posterior else None
    found["prior"] = (next(real), next(real)) if prior else None
    found["stop_logits"] = next(real) if stop else None
    found["attention"] = tuple(next(real) for _ in range(attention))
    found["mel_lengths"], found["step_lengths"] = next(vector), next(vector)
    for name, present in zip(_OPTIONAL, optional, strict=True):
        found[name] = next(vector) if present else None
    return LossInputs(**found)


def _gradient(tensor: Tensor) -> Tensor:
    """In single precision for half: rounded only after backward has multiplied."""
    return torch.empty_like(tensor, dtype=torch.float32 if tensor.dtype in _HALF else tensor.dtype)


def _fake(
    reals: Sequence[Tensor], vectors: Sequence[Tensor], *rest: Any
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    wanted, like = rest[2], reals[0]
    dtype = compute_dtype(reals)
    return (
        like.new_empty((), dtype=dtype),
        like.new_empty((5, len(FUSED)), dtype=dtype),
        like.new_empty((3,), dtype=torch.int64),
        [_gradient(tensor) for tensor, want in zip(reals, wanted, strict=True) if want],
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    _, report, _, gradients = output
    ctx.wanted = list(inputs[4])
    ctx.dtypes = [tensor.dtype for tensor in inputs[0]]
    ctx.lists = [len(tensors) for tensors in inputs[1:4]]
    ctx.save_for_backward(report, *gradients)


def _backward(ctx: Any, incoming: Tensor, *_: Any) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("the fused loss is differentiable once; use backend='torch' to go further")
    report, *gradients = ctx.saved_tensors
    factor = incoming / report[4, 0]
    # Padding is 0 also times infinity and NaN.
    given = iter([torch.where(gradient == 0, gradient, gradient * factor) for gradient in gradients])
    reals = [
        next(given).to(dtype) if want else None for want, dtype in zip(ctx.wanted, ctx.dtypes, strict=True)
    ]
    return (reals, *([None] * count for count in ctx.lists), *[None] * 5)
