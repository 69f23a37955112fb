"""Specifications, inputs and comparisons for the kernel tests."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ttsfast.devices import interpreted
from ttsfast.losses import reference
from ttsfast.losses.output import LossOutput
from ttsfast.losses.triton import TritonBackend
from ttsfast.terms.spec import LossInputs, LossSpec
from ttsfast.terms.state import FixedWeights

DEVICE = "cuda" if torch.cuda.is_available() and not interpreted() else "cpu"
BACKEND = TritonBackend()
# float32 represents these, so that a float64 kernel is given the very options of the reference.
OPTIONS: dict[str, Any] = {
    "base_weights": (22.0, 1.75, 1.5, 0.25),
    "mel_loss": "huber",
    "huber_delta": 0.625,
    "mel_smoothing": "mean",
    "mel_label_smoothing": 0.03125,
    "mel_floor": 0.0,
    "normalization": "frame",
    "kl_normalization": "elbo",
    "kl_free_bits": 0.0,
    "stop_label_smoothing": 0.0625,
    "stop_pos_weight": 4.0,
    "stop_tail_frames": 3,
    "attention_sigma": 0.25,
    "seed": 0x9ABCDEF012345678,
}


def make_spec(**options: Any) -> LossSpec:
    return LossSpec(**(OPTIONS | options))


def make_inputs(
    lengths: tuple[int, ...] = (13, 7, 1, 0),
    frames: int = 13,
    bins: int = 10,
    latents: int = 6,
    reduction: int = 1,
    symbols: int = 9,
    *,
    dtype: torch.dtype = torch.float32,
    predictions: int = 1,
    per_frame: bool = True,
    prior: bool = False,
    heads: tuple[int, ...] = (0,),
    truncated: tuple[bool, ...] | None = None,
    statistics: bool = False,
    padding: float = float("nan"),
    seed: int = 0,
) -> LossInputs:
    """Random inputs whose padding holds ``padding``; ``heads`` per layer, 0 for a layer without that axis."""
    generator = torch.Generator().manual_seed(seed)
    batch = len(lengths)
    steps = -(-frames // reduction)
    mel_lengths = torch.tensor(lengths)
    step_lengths = mel_lengths if reduction == 1 else -(-mel_lengths // reduction)
    text_lengths = torch.tensor([symbols, max(symbols // 2, 1), 1, symbols] * batch)[:batch]

    def real(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    def finish(tensor: Tensor, valid: Tensor | None = None) -> Tensor:
        if valid is not None:
            tensor = torch.where(valid.expand_as(tensor), tensor, padding)
        return tensor.to(dtype).to(DEVICE)

    in_mel = reference.valid_mask(mel_lengths, frames)
    room = torch.where(mel_lengths > 0, step_lengths + OPTIONS["stop_tail_frames"], 0)
    in_stop = reference.valid_mask(room, steps)
    in_attention = reference.valid_mask(step_lengths, steps).unsqueeze(2) & reference.valid_mask(
        text_lengths, symbols
    ).unsqueeze(1)
    latent_shape = (batch, frames, latents) if per_frame else (batch, latents)
    in_latents = in_mel.unsqueeze(2) if per_frame else (mel_lengths > 0).unsqueeze(1)

    def gaussian() -> tuple[Tensor, Tensor]:
        return finish(real(*latent_shape), in_latents), finish(real(*latent_shape), in_latents)

    return LossInputs(
        mel=tuple(finish(real(batch, frames, bins), in_mel.unsqueeze(2)) for _ in range(predictions)),
        target=finish(real(batch, frames, bins), in_mel.unsqueeze(2)),
        mel_lengths=mel_lengths.to(DEVICE),
        step_lengths=step_lengths.to(DEVICE),
        text_lengths=text_lengths.to(DEVICE),
        truncated=None if truncated is None else torch.tensor(truncated, device=DEVICE),
        stop_logits=finish(real(batch, steps, scale=4.0), in_stop),
        posterior=gaussian(),
        prior=gaussian() if prior else None,
        attention=tuple(
            finish(
                real(batch, *([h] if h else []), steps, symbols).softmax(-1),
                in_attention.unsqueeze(1) if h else in_attention,
            )
            for h in heads
        ),
        mel_mean=finish(real(bins)) if statistics else None,
        mel_std=finish(real(bins).abs()) if statistics else None,
    )


def only(inputs: LossInputs, *terms: str) -> LossInputs:
    """The mel term and the named ones."""
    return inputs._replace(
        posterior=inputs.posterior if "kl" in terms else None,
        prior=inputs.prior if "kl" in terms else None,
        stop_logits=inputs.stop_logits if "stop" in terms else None,
        attention=inputs.attention if "attention" in terms else (),
    )


def leaves(inputs: LossInputs) -> list[Tensor]:
    """The tensors that get gradients."""
    return [tensor for tensor in inputs.values() if tensor is not inputs.target]


def rebuilt(inputs: LossInputs, change: Any) -> LossInputs:
    """``inputs`` with every tensor of real numbers passed through ``change``."""

    def pair(tensors: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
        return None if tensors is None else (change(tensors[0]), change(tensors[1]))

    def one(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else change(tensor)

    return inputs._replace(
        mel=tuple(change(prediction) for prediction in inputs.mel),
        target=change(inputs.target),
        posterior=pair(inputs.posterior),
        prior=pair(inputs.prior),
        stop_logits=one(inputs.stop_logits),
        attention=tuple(change(layer) for layer in inputs.attention),
        mel_mean=one(inputs.mel_mean),
        mel_std=one(inputs.mel_std),
    )


class Outcome(NamedTuple):
    result: LossOutput
    gradients: list[Tensor]


def evaluate(backend: Any, spec: LossSpec, inputs: LossInputs, **call: Any) -> Outcome:
    """The result, and the gradients of its total squared: the incoming gradient is not trivially 1."""
    if isinstance(backend, Reference) and backend.dtype is not None:
        inputs = rebuilt(inputs, lambda t: t.to(backend.dtype))
    weights = torch.tensor(spec.base_weights, dtype=inputs.compute_dtype(), device=DEVICE)
    step = torch.full((), call.pop("step", 5), device=DEVICE)
    tensors = [tensor.detach().requires_grad_() for tensor in leaves(inputs)]
    names = iter(tensors)
    inputs = rebuilt(inputs, lambda t: t if t is inputs.target or _is_statistic(t, inputs) else next(names))
    state = FixedWeights(weights, step)
    result = backend.call(spec, inputs, state, call.pop("normalizer", None), call.pop("grad_scale", None))
    assert not call
    gradients = torch.autograd.grad(result.total.square(), tensors, allow_unused=True)
    return Outcome(
        result, [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, gradients, strict=True)]
    )


def bits_of(outcome: Outcome) -> list[Tensor]:
    """Every tensor of an outcome: what the call told, and the gradients."""
    told = [value for value in vars(outcome.result).values() if isinstance(value, Tensor)]
    assert len(told) == 6
    return [*told, *outcome.gradients]


def _is_statistic(tensor: Tensor, inputs: LossInputs) -> bool:
    return tensor is inputs.mel_mean or tensor is inputs.mel_std


class Reference:
    """The plain torch backend, in float64 or in the inputs' own precision."""

    def __init__(self, dtype: torch.dtype | None = torch.float64) -> None:
        self.dtype = dtype

    def call(self, spec: LossSpec, inputs: LossInputs, state: FixedWeights, *rest: Any) -> LossOutput:
        normalizer, _ = rest
        return reference.run(spec, inputs, state, normalizer)


def check(spec: LossSpec, inputs: LossInputs, **call: Any) -> Outcome:
    """The kernel against float64: no worse than twice torch's own error in that precision and a tolerance."""
    ours = evaluate(BACKEND, spec, inputs, **call)
    truth = evaluate(Reference(), spec, inputs, **call)
    theirs = evaluate(Reference(None), spec, inputs, **call)
    for field in ("total", "values", "floor_values"):
        trio = [getattr(each.result, field) for each in (ours, theirs, truth)]
        compare(trio[0], trio[1], trio[2], field)
    assert int(ours.result.frames) == int(truth.result.frames)
    # Lengths reach to the ends of their axes here, and not beyond.
    assert ours.result.clamped is not None
    assert int(ours.result.clamped) == 0
    for i, (a, b, c) in enumerate(zip(ours.gradients, theirs.gradients, truth.gradients, strict=True)):
        compare(a, b, c, f"gradient {i}")
    return ours


def compare(ours: Tensor, theirs: Tensor, truth: Tensor, where: str) -> None:
    """Largest error relative to the largest value."""
    assert ours.shape == truth.shape
    assert ours.dtype == theirs.dtype, (where, ours.dtype, theirs.dtype)
    if ours.numel() == 0:
        return
    truth = truth.double()
    assert truth.isfinite().all(), f"{where}: the reference is not finite"
    assert ours.isfinite().all(), f"{where}: not finite"
    scale = truth.abs().max().item()
    error = (ours.double() - truth).abs().max().item()
    torchs = (theirs.double() - truth).abs().max().item()
    tolerance = {torch.float64: 1e-12}.get(ours.dtype, 1e-6)
    if interpreted() and ours.dtype == torch.bfloat16:
        # The interpreter truncates where hardware rounds to nearest (docs/traps.md), and does so twice here.
        tolerance = 2 * 2**-7
    assert error <= 2 * torchs + tolerance * scale + 1e-30, (where, error, torchs, scale)
