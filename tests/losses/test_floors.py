"""Floors: what a perfect model would still pay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_checks import assert_close, make_batch, make_loss

from ttsfast.losses.reference import mel_noise_floor


@pytest.mark.parametrize("smoothing", [0.0, 0.06, 0.5])
@pytest.mark.parametrize("pos_weight", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("normalization", ["frame", "utterance"])
def test_stop_floor_is_reached_and_never_passed(
    smoothing: float, pos_weight: float, normalization: str
) -> None:
    batch = make_batch([6, 3, 0, 5], [2, 2, 2, 2], frames=9)
    batch["truncated"] = torch.tensor([False, False, False, True])
    loss = make_loss(
        stop_label_smoothing=smoothing,
        stop_pos_weight=pos_weight,
        normalization=normalization,
        stop_tail_frames=4,
    )
    logits = torch.zeros(4, 9, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        descent.zero_grad()
        total = loss(**{**batch, "stop_logits": logits}).total
        total.backward()
        return total

    descent.step(closure)
    out = loss(**{**batch, "stop_logits": logits})
    floor = out.floors["stop"]
    assert float(out.stop) == pytest.approx(float(floor), abs=1e-7)
    assert loss(**batch).stop > floor
    assert (floor > 0) == (smoothing > 0)
    loss.eval()
    assert loss(**batch).floors["stop"] == 0, "no smoothing in evaluation, so nothing is left to pay"


@pytest.mark.parametrize("kind", ["huber", "l1", "mse"])
@pytest.mark.parametrize("std", [0.0, 0.01, 0.6, 5.0, 1e4])
def test_noise_floor_is_the_expected_distance(kind: str, std: float) -> None:
    draws = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    density = torch.exp(-0.5 * draws.square())
    distance = make_elementwise(kind)(std * draws)
    expected = (distance * density).sum() / density.sum()
    floor = mel_noise_floor(kind, 0.6, torch.tensor([std], dtype=torch.float64))[0]
    assert float(floor) == pytest.approx(float(expected), rel=1e-6, abs=1e-15)


def make_elementwise(kind: str) -> Any:
    zero = torch.zeros((), dtype=torch.float64)
    functional = torch.nn.functional
    return {
        "huber": lambda d: functional.huber_loss(d, zero.expand_as(d), delta=0.6, reduction="none"),
        "l1": lambda d: d.abs(),
        "mse": lambda d: d.square(),
    }[kind]


@pytest.mark.parametrize("kind", ["huber", "l1", "mse"])
def test_noise_floor_of_the_module(kind: str) -> None:
    std = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    batch = make_batch([900, 700], [2, 2], bins=4, pair=True)
    perfect = {**batch, "mel_pred": (batch["mel_target"], batch["mel_target"])}
    loss = make_loss(mel_loss=kind, mel_smoothing="noise", mel_label_smoothing=0.4, mel_std=std)
    out = loss(**perfect)
    assert out.floors["mel"] > 0
    assert float(out.mel) == pytest.approx(float(out.floors["mel"]), rel=0.08)
    assert abs(float(out.excess["mel"])) < 0.08 * float(out.mel)


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("kl_normalization", ["elbo", "vector"])
@pytest.mark.parametrize("normalization", ["frame", "utterance"])
def test_kl_floor_is_what_the_prior_itself_pays(
    per_frame: bool, kl_normalization: str, normalization: str
) -> None:
    batch = make_batch([6, 3, 0], [2, 2, 2], per_frame=per_frame)
    loss = make_loss(kl_free_bits=0.7, kl_normalization=kl_normalization, normalization=normalization)
    collapsed = tuple(torch.zeros_like(part) for part in batch["posterior"])
    out = loss(**{**batch, "posterior": collapsed})
    assert_close(out.kl, out.floors["kl"])
    assert loss(**batch).excess["kl"] > 0
    assert make_loss()(**batch).floors["kl"] == 0


def test_mean_smoothing_and_attention_can_be_paid_off() -> None:
    batch = make_batch([6, 3], [2, 2])
    mean = torch.linspace(-1, 1, 5, dtype=torch.float64)
    loss = make_loss(mel_smoothing="mean", mel_label_smoothing=0.2, mel_mean=mean)
    out = loss(**{**batch, "mel_pred": 0.8 * batch["mel_target"] + 0.2 * mean})
    assert out.mel < 1e-30
    assert out.floors["mel"] == 0
    assert out.floors["attention"] == 0
