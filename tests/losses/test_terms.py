"""Each term against torch's own losses and against loops over scalars."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_loss import attention_term, kl_term, mel_term, stop_term
from loss_checks import assert_close, make_batch, make_loss
from torch import nn
from torch.distributions import Normal, kl_divergence

from ttsfast.terms.masks import valid_mask

OPTIONS: dict[str, Any] = {
    "mel_loss": "huber",
    "huber_delta": 0.6,
    "mel_label_smoothing": 0.025,
    "mel_smoothing": "mean",
    "mel_mean": None,
    "normalization": "frame",
    "kl_normalization": "elbo",
    "kl_free_bits": 0.0,
    "stop_label_smoothing": 0.06,
    "stop_pos_weight": 4.0,
    "stop_tail_frames": 8,
    "attention_sigma": 0.2,
}


def full_batch(**more: Any) -> dict[str, Any]:
    """No padding at all and no tail: what torch's unmasked losses see."""
    return make_batch([7, 7, 7], [4, 4, 4], frames=7, **more)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [("huber", nn.HuberLoss(delta=0.6)), ("l1", nn.L1Loss()), ("mse", nn.MSELoss())],
)
def test_mel_equals_torch(kind: str, theirs: nn.Module) -> None:
    batch = full_batch()
    out = make_loss(mel_loss=kind, mel_smoothing="none")(**batch)
    assert_close(out.mel, theirs(batch["mel_pred"], batch["mel_target"]))
    (grad,) = torch.autograd.grad(out.total, batch["mel_pred"])
    (expected,) = torch.autograd.grad(theirs(batch["mel_pred"], batch["mel_target"]), batch["mel_pred"])
    assert_close(grad, 22.0 * expected)


def test_two_predictions_add_up() -> None:
    batch = full_batch(pair=True)
    out = make_loss(mel_smoothing="none", mel_loss="mse")(**batch)
    before, after = batch["mel_pred"]
    target = batch["mel_target"]
    assert_close(out.mel, nn.functional.mse_loss(before, target) + nn.functional.mse_loss(after, target))


def test_stop_equals_torch() -> None:
    batch = full_batch()
    out = make_loss(stop_label_smoothing=0.0, stop_pos_weight=5.0)(**batch)
    target = torch.zeros(3, 7, dtype=torch.float64)
    target[:, -1] = 1
    theirs = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(5.0))(batch["stop_logits"], target)
    assert_close(out.stop, theirs)
    smoothed = make_loss(stop_label_smoothing=0.1, stop_pos_weight=5.0)(**batch)
    theirs = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(5.0))(batch["stop_logits"], target * 0.9 + 0.05)
    assert_close(smoothed.stop, theirs)


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("per_frame", [False, True])
def test_kl_equals_torch(prior: bool, per_frame: bool) -> None:
    batch = full_batch(prior=prior, per_frame=per_frame)
    out = make_loss(kl_normalization="vector")(**batch)
    (mu, logvar), (mu_p, logvar_p) = (
        batch["posterior"],
        batch.get("prior", (torch.zeros(()), torch.zeros(()))),
    )
    theirs = kl_divergence(
        Normal(mu, torch.exp(0.5 * logvar)), Normal(mu_p.double(), torch.exp(0.5 * logvar_p.double()))
    )
    assert_close(out.kl, theirs.sum(-1).mean())
    elbo = make_loss(kl_normalization="elbo")(**batch)
    assert_close(elbo.kl, theirs.sum() / batch["mel_target"].numel())


def test_attention_of_the_diagonal_costs_least() -> None:
    batch = make_batch([12], [6], frames=12)
    diagonal = torch.zeros(1, 12, 6, dtype=torch.float64)
    diagonal[0, torch.arange(12), torch.arange(12) // 2] = 1
    aligned = make_loss()(**{**batch, "attention": diagonal}).attention
    reversed_ = make_loss()(**{**batch, "attention": diagonal.flip(1)}).attention
    assert 0 <= aligned < 0.1 * reversed_


def test_attention_layers_and_heads_are_averaged() -> None:
    batch = make_batch([9, 5], [4, 3], heads=3)
    other = make_batch([9, 5], [4, 3], seed=1)["attention"]
    loss = make_loss()
    heads = [loss(**{**batch, "attention": head}).attention for head in batch["attention"].unbind(1)]
    assert_close(loss(**batch).attention, sum(heads) / 3)
    layers = loss(**{**batch, "attention": [batch["attention"], other]}).attention
    assert_close(layers, (sum(heads) + loss(**{**batch, "attention": other}).attention) / 4)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    size = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(0, 13), min_size=size, max_size=size))
    text = draw(st.lists(st.integers(1, 6), min_size=size, max_size=size))
    reduction = draw(st.sampled_from([1, 1, 2, 3]))
    batch = make_batch(
        lengths,
        text,
        frames=max(lengths) + draw(st.integers(0, 12)),
        symbols=max(text) + draw(st.integers(0, 2)),
        bins=draw(st.sampled_from([1, 3, 7])),
        latents=draw(st.integers(1, 3)),
        heads=draw(st.sampled_from([None, 1, 2])),
        per_frame=draw(st.booleans()),
        pair=draw(st.booleans()),
        prior=draw(st.booleans()),
        reduction=reduction,
        seed=draw(st.integers(0, 99)),
    )
    if draw(st.booleans()):
        batch["truncated"] = torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    bins = batch["mel_target"].shape[2]
    options = {
        **OPTIONS,
        "mel_loss": draw(st.sampled_from(["huber", "l1", "mse"])),
        "huber_delta": draw(st.sampled_from([0.1, 0.6, 3.0])),
        "mel_smoothing": draw(st.sampled_from(["none", "mean"])),
        "mel_label_smoothing": draw(st.sampled_from([0.0, 0.025, 0.5])),
        "mel_mean": draw(st.sampled_from([None, torch.linspace(-1, 2, bins, dtype=torch.float64)])),
        "normalization": draw(st.sampled_from(["frame", "utterance"])),
        "kl_normalization": draw(st.sampled_from(["elbo", "vector"])),
        "kl_free_bits": draw(st.sampled_from([0.0, 1.5])),
        "stop_label_smoothing": draw(st.sampled_from([0.0, 0.06])),
        "stop_pos_weight": draw(st.sampled_from([1.0, 4.0])),
        "stop_tail_frames": draw(st.sampled_from([0, 3, 8])),
        "attention_sigma": draw(st.sampled_from([0.2, 0.4])),
    }
    return batch, options


@settings(max_examples=80, deadline=None)
@given(cases())
def test_terms_equal_loops(case: tuple[dict[str, Any], dict[str, Any]]) -> None:
    batch, options = case
    out = make_loss(**options)(**batch)
    expected = [term(batch, options) for term in (mel_term, kl_term, stop_term, attention_term)]
    torch.testing.assert_close(out.values, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert out.frames == sum(batch["mel_lengths"].tolist())
    weighted = sum(w * v for w, v in zip((22.0, 1.8, 1.5, 0.3), expected, strict=True))
    torch.testing.assert_close(out.total.detach(), torch.tensor(weighted).double(), rtol=1e-9, atol=1e-12)
    if max(batch["mel_lengths"].tolist()) > 0:
        assert out.mel > 0


@pytest.mark.parametrize("bins", [1, 63, 80, 100])
@pytest.mark.parametrize("lengths", [[65], [0, 1, 64], [17, 65, 3]])
def test_realistic_shapes(bins: int, lengths: list[int]) -> None:
    batch = make_batch(lengths, [5] * len(lengths), bins=bins)
    out = make_loss(**OPTIONS)(**batch)
    expected = [term(batch, OPTIONS) for term in (mel_term, kl_term, stop_term, attention_term)]
    assert_close(out.values, torch.tensor(expected, dtype=torch.float64), rtol=1e-9)


@pytest.mark.parametrize("normalization", ["frame", "utterance"])
@pytest.mark.parametrize(("lengths", "frames"), [([0], 0), ([0, 0], 5), ([0], 8)])
def test_nothing_valid_is_zero_with_zero_gradients(
    lengths: list[int], frames: int, normalization: str
) -> None:
    batch = make_batch(lengths, [3] * len(lengths), frames=frames)
    out = make_loss(normalization=normalization, kl_free_bits=1.0)(**batch)
    assert out.total == 0
    assert (out.values == 0).all()
    assert (out.floor_values == 0).all()
    out.total.backward()
    assert not batch["mel_pred"].grad.any()
    assert not batch["stop_logits"].grad.any()


def test_tail_and_truncation() -> None:
    batch = make_batch([6, 6], [3, 3], frames=20)
    loss = make_loss(stop_label_smoothing=0.0, stop_pos_weight=1.0, stop_tail_frames=4)
    batch["truncated"] = torch.tensor([False, True])
    logits = batch["stop_logits"]
    (grad,) = torch.autograd.grad(loss(**batch).total, logits)
    assert (grad[0, :5] > 0).all(), "steps before the last are trained not to stop"
    assert (grad[0, 5:10] < 0).all(), "the last step and the tail are trained to stop"
    assert not grad[0, 10:].any(), "nothing beyond the tail"
    assert (grad[1, :6] > 0).all(), "a truncated clip never stops"
    assert not grad[1, 6:].any(), "a truncated clip has no tail"


def test_free_bits_stop_the_gradient_below() -> None:
    batch = make_batch([4, 4], [2, 2], frames=4)
    with torch.no_grad():
        batch["posterior"][0][0] *= 0.01
        batch["posterior"][1][0] *= 0.01
        batch["posterior"][0][1] += 3
    out = make_loss(kl_free_bits=1.0, kl_normalization="vector")(**batch)
    mu = batch["posterior"][0]
    (grad,) = torch.autograd.grad(out.total, mu)
    assert not grad[0].any()
    assert_close(grad[1], 1.8 / 2 * mu.detach()[1])


def test_extreme_values_stay_finite_or_show() -> None:
    batch = make_batch([4], [2], frames=4, latents=1, prior=True)
    loss = make_loss(kl_normalization="vector")

    def kl(mu: float, logvar: float, prior_mu: float, prior_logvar: float) -> float:
        pairs = [
            (torch.full((1, 1), a).double(), torch.full((1, 1), b).double())
            for a, b in ((mu, logvar), (prior_mu, prior_logvar))
        ]
        return float(loss(**{**batch, "posterior": pairs[0], "prior": pairs[1]}).kl)

    assert kl(0, -800, 0, 0) == pytest.approx(0.5 * (800 - 1))
    assert kl(1, -2000, 1, -2000) == 0, "equal distributions, however narrow"
    assert kl(1, 0, 1, 1000) == pytest.approx(0.5 * 999)
    assert kl(0, 800, 0, 0) == float("inf"), "an overflow shows"
    stop = make_loss(stop_label_smoothing=0.0, stop_tail_frames=0)
    certain = torch.tensor([[-1e4, -torch.inf, -1e30, torch.inf]], dtype=torch.float64)
    assert stop(**{**batch, "stop_logits": certain}).stop == 0, (
        "infinite certainty that is right costs nothing"
    )
    assert stop(**{**batch, "stop_logits": -certain}).stop == float("inf")
    wrong = torch.tensor([[-50.0, 80.0, -50.0, 50.0]], dtype=torch.float64)
    assert float(stop(**{**batch, "stop_logits": wrong}).stop) == pytest.approx(20.0)


def test_nan_inside_is_shown() -> None:
    batch = make_batch([4, 3], [2, 2])
    with torch.no_grad():
        batch["posterior"][0][1, 0] = torch.nan
    out = make_loss(kl_free_bits=1.0)(**batch)
    assert out.kl.isnan()
    assert out.total.isnan()
    assert out.mel.isfinite()


def test_valid_mask_counts_from_the_start() -> None:
    assert valid_mask(torch.tensor([0, 2, 3]), 3).tolist() == [
        [False, False, False],
        [True, True, False],
        [True, True, True],
    ]
