"""The Triton backend as a torch operator, for compiled graphs: torch traces around it, not into it.

The gradients are results of the operator like any other. The state of the adaptive weights stays outside,
where the compiler fuses its few operations, and so does the backward pass's one multiplication, by what
arrived over what was applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ttsfast.losses.cpp_op import rescaled
from ttsfast.losses.extension import LARGEST_HINT, hint_of
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import BackendResult, LossInputs, LossSpec, compute_dtype

_HALF = (torch.bfloat16, torch.float16)
_library = torch.library.Library("ttsfast", "FRAGMENT")
_library.define(
    "triton_losses(Tensor[] reals, Tensor[] vectors, Tensor[] normalizer, Tensor[] scalars, bool[] wanted,"
    " int[] layout, str[] words, int[] whole, float[] numbers) -> (Tensor, Tensor, Tensor, Tensor[])"
)


def run(
    spec: LossSpec,
    inputs: LossInputs,
    weights: Tensor,
    normalizer: Counts | Tensor | float | None,
    grad_scale: Tensor | float | None,
    step: Tensor,
) -> BackendResult:
    """As :meth:`ttsfast.losses.triton.TritonBackend.run`, traceable."""
    reals = inputs.values()
    wanted = [
        torch.is_grad_enabled() and tensor.requires_grad and active
        for tensor, active in zip(reals, _active(spec, inputs), strict=True)
    ]
    optional = (inputs.text_lengths, inputs.truncated, inputs.mel_mean, inputs.mel_std)
    vectors = [inputs.mel_lengths, inputs.step_lengths, *(v for v in optional if v is not None)]
    layout = [len(inputs.mel), inputs.posterior is not None, inputs.prior is not None]
    layout += [inputs.stop_logits is not None, len(inputs.attention), *(v is not None for v in optional)]
    parts: Sequence[Any] = normalizer if isinstance(normalizer, tuple) else (normalizer,)
    total, report, integers, _ = torch.ops.ttsfast.triton_losses(
        reals,
        vectors,
        [] if normalizer is None else [_tensor(part) for part in parts],
        [weights, step, *([] if grad_scale is None else [_hint(grad_scale)])],
        wanted,
        [int(part) for part in layout],
        *_encoded(spec),
    )
    report = report.detach()
    return BackendResult(total, report[0], report[1], integers[0], integers[1])


def _active(spec: LossSpec, inputs: LossInputs) -> list[bool]:
    """Whether each of ``inputs.values()`` may get a gradient."""
    mel, kl, stop, attention = spec.active
    latents = [kl] * (len(inputs.posterior or ()) + len(inputs.prior or ()))
    stops = [] if inputs.stop_logits is None else [stop]
    return [*[mel] * len(inputs.mel), False, *latents, *stops, *[attention] * len(inputs.attention)]


def _tensor(value: Tensor | float) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().reshape(())
    return torch.full((), float(value), dtype=torch.float64)


def _hint(grad_scale: Tensor | float) -> Tensor:
    """As :func:`ttsfast.losses.extension.hint_of`, without a look at a value on the device."""
    if not isinstance(grad_scale, Tensor):
        return _tensor(hint_of(grad_scale))
    scale = _tensor(grad_scale).to(torch.float64)
    size = scale.abs()
    return torch.where((size >= 1 / LARGEST_HINT) & (size <= LARGEST_HINT), scale, 1.0)


def _encoded(spec: LossSpec) -> tuple[list[str], list[int], list[float]]:
    """The spec as what an operator may be given."""
    words = [spec.mel_loss, spec.mel_smoothing, spec.normalization, spec.kl_normalization]
    numbers = [*spec.base_weights, spec.huber_delta, spec.mel_label_smoothing, spec.mel_floor]
    numbers += [spec.kl_free_bits, spec.stop_label_smoothing, spec.stop_pos_weight, spec.attention_sigma]
    # The generator's key takes the low 32 bits of the seed; all of it may not fit an operator's integer.
    return words, [spec.stop_tail_frames, spec.seed & 0xFFFFFFFF], numbers


@lru_cache(maxsize=64)
def _decoded(words: tuple[str, ...], whole: tuple[int, ...], numbers: tuple[float, ...]) -> LossSpec:
    """The same object for the same options: the launcher knows its layouts by it."""
    mel, kl, stop, attention, delta, amount, floor, free_bits, smoothing, pos_weight, sigma = numbers
    return LossSpec(
        base_weights=(mel, kl, stop, attention),
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
        stop_tail_frames=whole[0],
        attention_sigma=sigma,
        seed=whole[1],
    )


def _arranged(reals: Sequence[Any], vectors: Sequence[Tensor], layout: Sequence[int]) -> LossInputs:
    """The inputs, or what takes their places, that the operator's lists were made from."""
    mel, posterior, prior, stop, attention, *optional = layout
    real, vector = iter(reals), iter(vectors)
    parts: dict[str, Any] = {"mel": tuple(next(real) for _ in range(mel)), "target": next(real)}
    parts["posterior"] = (next(real), next(real)) if posterior else None
    parts["prior"] = (next(real), next(real)) if prior else None
    parts["stop_logits"] = next(real) if stop else None
    parts["attention"] = tuple(next(real) for _ in range(attention))
    parts["mel_lengths"], parts["step_lengths"] = next(vector), next(vector)
    names = ("text_lengths", "truncated", "mel_mean", "mel_std")
    for name, present in zip(names, optional, strict=True):
        parts[name] = next(vector) if present else None
    return LossInputs(**parts)


def _gradient(tensor: Tensor, want: bool) -> Tensor | None:
    """In single precision for half: rounded only after backward has multiplied."""
    if not want:
        return None
    return torch.empty_like(tensor, dtype=torch.float32 if tensor.dtype in _HALF else tensor.dtype)


def _losses(
    reals: Sequence[Tensor],
    vectors: Sequence[Tensor],
    normalizer: Sequence[Tensor],
    scalars: Sequence[Tensor],
    wanted: Sequence[bool],
    layout: Sequence[int],
    words: Sequence[str],
    whole: Sequence[int],
    numbers: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    from ttsfast.kernels import launch
    from ttsfast.kernels import layout as layouts

    inputs = _arranged(reals, vectors, layout)
    written = [_gradient(tensor, want) for tensor, want in zip(reals, wanted, strict=True)]
    weights, step, *hint = scalars
    # A number arrives as a tensor on the host, whose value costs no wait.
    parts = tuple(normalizer)
    grad_scale = hint[0] if hint else None
    launched = launch.forward(
        _decoded(tuple(words), tuple(whole), tuple(numbers)),
        inputs,
        layouts.differentiable(_arranged(written, vectors, layout)),
        weights,
        Counts(*parts) if len(parts) == len(Counts._fields) else (*parts, None)[0],
        grad_scale,
        step,
        compiled=True,
    )
    gradients = [gradient for gradient in written if gradient is not None]
    return launched.total, launched.report, launched.integers[:3], gradients


def _shapes(
    reals: Sequence[Tensor], vectors: Sequence[Tensor], *rest: Any
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    wanted, like = rest[2], reals[0]
    dtype = compute_dtype(reals)
    gradients = [_gradient(tensor, want) for tensor, want in zip(reals, wanted, strict=True)]
    return (
        like.new_empty((), dtype=dtype),
        like.new_empty((5, 4), dtype=dtype),
        like.new_empty((3,), dtype=torch.int64),
        [gradient for gradient in gradients if gradient is not None],
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    _, report, _, gradients = output
    ctx.wanted = list(inputs[4])
    ctx.dtypes = [tensor.dtype for tensor in inputs[0]]
    ctx.lists = [len(part) for part in inputs[1:4]]
    ctx.save_for_backward(report, *gradients)


def _backward(ctx: Any, incoming: Tensor, *_: Any) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("the fused loss is differentiable once; use backend='torch' to go further")
    report, *gradients = ctx.saved_tensors
    given = iter(rescaled(gradients, incoming / report[4, 0]))
    reals = [
        next(given).to(dtype) if want else None for want, dtype in zip(ctx.wanted, ctx.dtypes, strict=True)
    ]
    return (reals, *([None] * count for count in ctx.lists), *[None] * 5)


_library.impl("triton_losses", _losses, "CUDA")
# Where the interpreter stands in for a GPU.
_library.impl("triton_losses", _losses, "CPU")
torch.library.register_fake("ttsfast::triton_losses", _shapes, lib=_library)
torch.library.register_autograd("ttsfast::triton_losses", _backward, setup_context=_keep, lib=_library)
