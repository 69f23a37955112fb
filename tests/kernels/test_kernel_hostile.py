"""Shapes, strides, padding and lengths that break kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_cases import (
    BACKEND,
    DEVICE,
    Reference,
    bits_of,
    check,
    evaluate,
    make_inputs,
    make_spec,
    only,
    rebuilt,
)
from sparse_memory import far_apart
from torch import Tensor

from ttsfast.kernels import launch, layout, settings


@pytest.mark.parametrize(
    "shape",
    [
        {"lengths": (1,), "frames": 1, "bins": 1, "latents": 1, "symbols": 1},
        {"lengths": (0, 0), "frames": 5},
        {"lengths": (0,), "frames": 0},
        {"lengths": (), "frames": 4},
        {"lengths": (17, 11), "frames": 17, "bins": 63, "latents": 65, "symbols": 65},
        {"lengths": (7, 0, 5), "frames": 7, "bins": 13, "latents": 11, "symbols": 3, "reduction": 2},
        {"lengths": (1, 63), "frames": 63, "bins": 3, "latents": 2, "symbols": 63},
        {"lengths": (65, 0), "frames": 65, "bins": 5, "latents": 3, "symbols": 5},
        {"lengths": (16, 3), "frames": 16, "bins": 80, "latents": 64, "symbols": 64},
        {"lengths": (24, 23), "frames": 24, "bins": 100, "latents": 31, "symbols": 8},
    ],
    ids=lambda s: "-".join(f"{k}{v}" for k, v in s.items()).replace(" ", ""),
)
def test_shapes(shape: dict[str, Any]) -> None:
    # Bins that no group of four fills take another way through the kernel, with noise only.
    smoothing = "noise" if shape.get("bins") in (63, 100) else "mean"
    spec = make_spec(mel_smoothing=smoothing, mel_floor=0.125, kl_free_bits=0.5)
    check(spec, make_inputs(**shape, statistics=True, heads=(0, 2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whatever_padding_holds(dtype: torch.dtype) -> None:
    """Sizes are whole vectors, so that some of it is read, and must be dropped."""
    spec = make_spec(mel_smoothing="mean", kl_free_bits=0.5)
    shape: dict[str, Any] = {"lengths": (7, 1, 0), "frames": 8, "symbols": 8, "heads": (2,)}
    clean, *others = (
        bits_of(
            evaluate(
                BACKEND, spec, make_inputs(**shape, padding=held, dtype=dtype, prior=True, statistics=True)
            )
        )
        for held in (0.0, float("inf"), -float("inf"), 3e38)
    )
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(other, clean, strict=True))


def test_extreme_logvars() -> None:
    """Where exp of one overflows, or vanishes, and the divergence does not."""
    inputs = only(make_inputs(lengths=(9, 9), frames=9, prior=True, latents=3), "kl")
    assert inputs.posterior is not None
    assert inputs.prior is not None
    spread = torch.linspace(-35, 35, 2 * 9 * 3, device=DEVICE).view(2, 9, 3)
    inputs = inputs._replace(posterior=(inputs.posterior[0], spread), prior=(inputs.prior[0], spread + 1))
    for given in (inputs, inputs._replace(prior=None)):
        ours, truth = (evaluate(each, make_spec(kl_free_bits=2.0), given) for each in (BACKEND, Reference()))
        # The interpreter's multiply-add is not fused, which costs exp its last digits.
        torch.testing.assert_close(ours.result.total.double(), truth.result.total, rtol=1e-5, atol=0)
        for a, b in zip(ours.gradients, truth.gradients, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6 * b.abs().max().item())


def test_more_utterances_than_a_block_of_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "BATCH_BLOCK", 2)
    check(make_spec(normalization="utterance"), only(make_inputs(lengths=(3, 1, 0, 2, 4), frames=5), "stop"))


def test_several_tiles_per_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every term, with a last program that has tiles to spare."""
    monkeypatch.setattr(settings, "MAX_PROGRAMS", 4)
    monkeypatch.setattr(settings, "MEL_ELEMENTS", 1)
    monkeypatch.setattr(settings, "one_access", lambda tensors: 256)
    monkeypatch.setattr(settings, "REDUCE_BLOCK", 2)
    inputs = make_inputs(lengths=(35, 9), frames=35, bins=12, latents=16, predictions=2)
    check(make_spec(mel_smoothing="noise"), inputs)
    check(make_spec(mel_smoothing="noise"), rebuilt(inputs, _transposed))


def _transposed(tensor: Tensor) -> Tensor:
    """The same values, last two axes swapped in memory."""
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2) if tensor.dim() > 1 else tensor


def _sliced(tensor: Tensor) -> Tensor:
    """Inside a larger tensor, so misaligned and with gaps everywhere; NaN around it."""
    room = torch.full([size + 3 for size in tensor.shape], float("nan"), dtype=tensor.dtype, device=DEVICE)
    inside = room[tuple(slice(1, 1 + size) for size in tensor.shape)]
    inside.copy_(tensor)
    return inside


def _stepped(tensor: Tensor) -> Tensor:
    room = torch.full(
        (*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"), dtype=tensor.dtype, device=DEVICE
    )
    room[..., ::2] = tensor
    return room[..., ::2]


@pytest.mark.parametrize(
    ("change", "smoothing"), [(_transposed, "noise"), (_sliced, "mean"), (_stepped, "noise")]
)
def test_strides(change: Any, smoothing: str) -> None:
    spec = make_spec(mel_smoothing=smoothing)
    inputs = make_inputs(prior=True, heads=(2,), predictions=2, symbols=16, frames=16, statistics=True)
    check(spec, rebuilt(inputs, change))


def test_mixed_strides() -> None:
    inputs = make_inputs(predictions=2, heads=(2, 2), prior=True)
    first, second = inputs.mel
    assert inputs.stop_logits is not None
    assert inputs.prior is not None
    mean, logvar = inputs.prior
    inputs = inputs._replace(
        # The gradients lie as the predictions do: utterances of the second one frame after another.
        mel=(_transposed(first), second.transpose(0, 1).contiguous().transpose(0, 1)),
        prior=(_transposed(mean), _sliced(logvar)),
        attention=(_transposed(inputs.attention[0]), inputs.attention[1]),
        stop_logits=_stepped(inputs.stop_logits),
    )
    check(make_spec(), inputs)


def test_expanded_latents_and_attention() -> None:
    inputs = make_inputs(lengths=(5, 5), frames=5, padding=0.0, heads=(3,))
    assert inputs.posterior is not None
    mu, logvar = (tensor[:, :1].expand(-1, 5, -1) for tensor in inputs.posterior)
    check(
        make_spec(),
        inputs._replace(
            posterior=(mu, logvar), attention=(inputs.attention[0][:, :1].expand(-1, 3, -1, -1),)
        ),
    )


def test_expanded_tensors() -> None:
    inputs = make_inputs(lengths=(5, 5), frames=5, padding=0.0)
    one = inputs.mel[0][:1, :1]
    inputs = inputs._replace(mel=(one.expand(2, 5, -1),), target=inputs.target[:1].expand(2, -1, -1))
    check(make_spec(), only(inputs, "stop"))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_length_types(dtype: torch.dtype) -> None:
    inputs = make_inputs()
    assert inputs.text_lengths is not None
    check(
        make_spec(),
        inputs._replace(
            mel_lengths=inputs.mel_lengths.to(dtype),
            step_lengths=inputs.step_lengths.to(dtype),
            text_lengths=inputs.text_lengths.to(dtype),
        ),
    )


def test_lengths_outside_their_axes_are_clamped_and_counted() -> None:
    inputs = make_inputs(lengths=(13, 7, 5), padding=0.5)
    wild = inputs._replace(
        mel_lengths=torch.tensor([99, -5, 5], device=DEVICE),
        step_lengths=torch.tensor([2**40, -1, 5], device=DEVICE),
        text_lengths=torch.tensor([4, 2**33, -7], device=DEVICE),
    )
    ours, truth = (evaluate(each, make_spec(), wild) for each in (BACKEND, Reference()))
    torch.testing.assert_close(ours.result.total.double(), truth.result.total, rtol=1e-5, atol=0)
    assert ours.result.clamped is not None
    assert int(ours.result.clamped) == 6
    for a, b in zip(ours.gradients, truth.gradients, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-6)


def _bordered(tensor: Tensor, border: float) -> tuple[Tensor, Tensor]:
    """A tensor of the same shape with 64 elements of ``border`` before and after it, and the whole."""
    whole = torch.full((tensor.numel() + 128,), border, dtype=tensor.dtype, device=DEVICE)
    return whole[64 : 64 + tensor.numel()].view(tensor.shape), whole


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_outside_the_tensors_is_read_or_written(dtype: torch.dtype) -> None:
    inputs = make_inputs(
        lengths=(16, 5), frames=16, symbols=8, prior=True, heads=(2,), predictions=2, dtype=dtype
    )

    def guarded(tensor: Tensor) -> Tensor:
        inner, _ = _bordered(tensor, float("nan"))
        return inner.copy_(tensor)

    inputs = rebuilt(inputs, guarded)
    spec = make_spec()
    outputs = [_bordered(t, 12345.0) if t is not None else None for t in layout.differentiable(inputs)]
    for _, whole in filter(None, outputs):
        whole[64:-64] = float("nan")
    launched = launch.forward(
        spec,
        inputs,
        [None if output is None else output[0] for output in outputs],
        torch.tensor(spec.base_weights, device=DEVICE),
        None,
        None,
        torch.zeros((), dtype=torch.int64, device=DEVICE),
    )
    assert launched.total.isfinite()
    for inner, whole in filter(None, outputs):
        assert inner.isfinite().all()
        assert (whole[:64] == 12345.0).all()
        assert (whole[-64:] == 12345.0).all()


@pytest.mark.skipif(DEVICE != "cpu", reason="a GPU's memory holds what it addresses")
@pytest.mark.parametrize("axes", [1, None], ids=["utterances", "all-axes"])
def test_offsets_beyond_31_bits(axes: int | None) -> None:
    """Along every axis of what is read and of what is written, under types that compiled code has too."""
    inputs = make_inputs(
        lengths=(5, 3, 4), frames=5, bins=8, latents=3, symbols=4, predictions=2, prior=True, heads=(3, 0)
    )
    spec = make_spec()
    weights = torch.tensor(spec.base_weights)
    step = torch.zeros((), dtype=torch.int64)
    totals, gradients = [], []
    for spread in (lambda t: t, lambda t: far_apart(t, axes) if t.dim() > 1 else t):
        given = rebuilt(inputs, spread)
        wanted = layout.differentiable(given)
        written = [
            None if t is None else spread(torch.empty_like(t, memory_format=torch.contiguous_format))
            for t in layout.differentiable(inputs)
        ]
        assert [t is None for t in wanted] == [t is None for t in written]
        launched = launch.forward(spec, given, written, weights, None, None, step)
        totals.append(launched.total)
        gradients.append([gradient for gradient in written if gradient is not None])
    torch.testing.assert_close(totals[1], totals[0], rtol=1e-6, atol=0)
    for a, b in zip(*gradients, strict=True):
        assert b.any()
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
