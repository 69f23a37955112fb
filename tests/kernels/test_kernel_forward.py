"""Values and gradients of every option against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_cases import BACKEND, DEVICE, Reference, bits_of, check, evaluate, make_inputs, make_spec, only

from ttsfast.losses.philox import standard_normal
from ttsfast.terms.counts import Counts

HALF = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    ("mel_loss", "smoothing", "normalization"),
    [
        ("huber", "none", "frame"),
        ("huber", "mean", "utterance"),
        ("huber", "noise", "frame"),
        ("l1", "none", "utterance"),
        ("l1", "noise", "utterance"),
        ("mse", "mean", "frame"),
    ],
)
def test_mel(mel_loss: str, smoothing: str, normalization: str) -> None:
    spec = make_spec(mel_loss=mel_loss, mel_smoothing=smoothing, normalization=normalization, mel_floor=0.25)
    inputs = only(make_inputs(predictions=2, statistics=True, bins=12))
    check(spec, inputs)


def test_mel_noise_is_the_generator_of_the_reference() -> None:
    """With ``mse`` against 0, the gradient is the noise times a constant."""
    spec = make_spec(mel_loss="mse", mel_smoothing="noise", mel_label_smoothing=1.0)
    for bins in (80, 5):
        inputs = only(make_inputs(lengths=(9, 9), frames=9, bins=bins))
        zero = torch.zeros(2, 9, bins, device=DEVICE)
        inputs = inputs._replace(mel=(zero,), target=zero.clone())
        for step in (0, 2**31, 2**40 + 7):
            gradient = evaluate(BACKEND, spec, inputs, step=step).gradients[0].double()
            at = torch.full((), step, device=DEVICE)
            noise = standard_normal((2, 9, bins), spec.seed, at, torch.float64)
            constant = (gradient * noise).sum() / noise.square().sum()
            assert constant < 0
            torch.testing.assert_close(gradient / constant, noise, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("per_frame", [True, False])
@pytest.mark.parametrize("normalization", ["frame", "utterance"])
@pytest.mark.parametrize("kl_normalization", ["elbo", "vector"])
def test_kl(per_frame: bool, normalization: str, kl_normalization: str) -> None:
    prior = per_frame == (normalization == "frame")
    spec = make_spec(normalization=normalization, kl_normalization=kl_normalization, kl_free_bits=6.0)
    inputs = only(make_inputs(per_frame=per_frame, prior=prior), "kl")
    outcome = check(spec, inputs)
    free = outcome.gradients[1].abs().sum(-1) == 0
    assert free.any()
    assert not free.all()


@pytest.mark.parametrize("free_bits", [0.0, 300.0])
def test_kl_of_vectors_wider_than_a_tile(free_bits: float) -> None:
    spec = make_spec(kl_free_bits=free_bits)
    check(spec, only(make_inputs(lengths=(3, 1), frames=4, latents=300, prior=True), "kl"))


@pytest.mark.parametrize(
    ("normalization", "smoothing", "truncated"),
    [
        ("frame", 0.0, None),
        ("frame", 0.0625, (False, True, False, False)),
        ("utterance", 0.0625, None),
        ("utterance", 0.0, (True, True, False, False)),
    ],
)
def test_stop(normalization: str, smoothing: float, truncated: tuple[bool, ...] | None) -> None:
    spec = make_spec(normalization=normalization, stop_label_smoothing=smoothing)
    inputs = make_inputs(frames=15, truncated=truncated)
    if truncated is not None and inputs.stop_logits is not None:
        inputs = inputs._replace(stop_logits=torch.nan_to_num(inputs.stop_logits))
    check(spec, only(inputs, "stop"))


@pytest.mark.parametrize(
    ("normalization", "heads"), [("frame", (0,)), ("utterance", (3,)), ("frame", (2, 0, 3))]
)
def test_attention(normalization: str, heads: tuple[int, ...]) -> None:
    spec = make_spec(normalization=normalization)
    check(spec, only(make_inputs(heads=heads, symbols=67, lengths=(13, 7, 0)), "attention"))


def test_all_terms_with_a_reduction_factor() -> None:
    spec = make_spec(normalization="utterance", kl_free_bits=3.0)
    inputs = make_inputs(
        reduction=4, prior=True, heads=(2, 2), predictions=2, truncated=(False, False, True, False)
    )
    assert inputs.stop_logits is not None
    inputs = inputs._replace(stop_logits=torch.nan_to_num(inputs.stop_logits))
    check(spec, inputs)


@pytest.mark.parametrize(
    "normalizer",
    [
        40.0,
        torch.tensor(40),
        Counts(40, 50.0, 45, 6),
        Counts(torch.tensor(40), 50.0, torch.tensor(45.0), torch.tensor(6)),
    ],
    ids=["number", "scalar", "counts", "device-counts"],
)
@pytest.mark.parametrize("normalization", ["frame", "utterance"])
def test_normalizer(normalizer: Any, normalization: str) -> None:
    inputs = make_inputs(lengths=(5, 3, 0), frames=6, bins=4, latents=2, symbols=3)
    check(make_spec(normalization=normalization), inputs, normalizer=normalizer)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(dtype: torch.dtype) -> None:
    outcome = check(make_spec(), make_inputs((7, 1, 0), 7, dtype=dtype, heads=(2,), prior=True))
    assert all(gradient.dtype == dtype for gradient in outcome.gradients)
    assert outcome.result.total.dtype == torch.float32


def test_mixed_precision() -> None:
    inputs = make_inputs((7, 1, 0), 7, predictions=2, heads=(2, 2), prior=True)
    first, second = inputs.mel
    assert inputs.posterior is not None
    inputs = inputs._replace(
        mel=(first.bfloat16(), second.half()),
        posterior=(inputs.posterior[0].bfloat16(), inputs.posterior[1]),
        attention=(inputs.attention[0].half(), inputs.attention[1]),
    )
    check(make_spec(), inputs)


def test_double_precision() -> None:
    spec = make_spec(kl_free_bits=3.0, mel_smoothing="noise")
    check(spec, make_inputs((7, 1, 0), 7, dtype=torch.float64, prior=True, heads=(2,), bins=12))


def test_a_term_of_weight_zero_is_reported_and_sends_no_gradient() -> None:
    spec = make_spec(base_weights=(0.0, 1.0, 0.0, 0.5))
    inputs = make_inputs()
    assert inputs.stop_logits is not None
    # An infinite value of a term that is off must not reach the total.
    inputs = inputs._replace(stop_logits=torch.full_like(inputs.stop_logits, float("inf")))
    ours, truth = (evaluate(each, spec, inputs) for each in (BACKEND, Reference()))
    torch.testing.assert_close(ours.result.values.double(), truth.result.values, rtol=1e-5, atol=1e-6)
    assert ours.result.values[2].isinf()
    torch.testing.assert_close(ours.result.total.double(), truth.result.total, rtol=1e-5, atol=1e-6)
    assert not ours.gradients[0].any()
    assert not ours.gradients[-2].any()


def test_extreme_values() -> None:
    inputs = make_inputs(prior=True)
    assert inputs.posterior is not None
    assert inputs.prior is not None
    assert inputs.stop_logits is not None
    mu, logvar = inputs.posterior
    inputs = inputs._replace(
        mel=(inputs.mel[0] * 1e6,),
        stop_logits=inputs.stop_logits * 1e4,
        posterior=(mu, logvar * 10),
        prior=(inputs.prior[0], inputs.prior[1] * 3),
    )
    check(make_spec(), inputs)


def test_valid_nan_is_not_hidden() -> None:
    inputs = make_inputs()
    inputs.mel[0][0, 0, 0] = float("nan")
    ours = evaluate(BACKEND, make_spec(), inputs)
    assert ours.result.total.isnan()
    assert ours.gradients[0][0, 0, 0].isnan()


def test_two_runs_have_the_same_bits() -> None:
    spec, inputs = make_spec(mel_smoothing="noise"), make_inputs((9, 1), 9, prior=True, heads=(2,))
    first, second = (evaluate(BACKEND, spec, inputs) for _ in range(2))
    for a, b in zip(bits_of(first), bits_of(second), strict=True):
        assert torch.equal(a, b)
