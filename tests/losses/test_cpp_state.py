"""The C++ backend moves weights, averages and counters on as the reference does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cpp_checks import MISSING, WHY_MISSING
from loss_checks import assert_close, make_batch

from ttsfast.losses import adaptive
from ttsfast.losses.module import TTSLoss
from ttsfast.terms.state import METHODS

pytestmark = pytest.mark.skipif(MISSING, reason=WHY_MISSING)


def batch_of(seed: int, dtype: torch.dtype) -> dict[str, Any]:
    batch = make_batch([7, 3, 0], [4, 2, 1], dtype=dtype, per_frame=True, heads=1, seed=seed)
    # The terms fall at different rates, so that the factors move apart.
    batch["mel_pred"] = (batch["mel_pred"] * 0.9**seed).detach()
    return batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weighting", METHODS)
def test_state_moves_as_the_reference_moves_it(weighting: str, dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"weighting": weighting, "kl_weight": 0.7, "mel_smoothing": "noise"}
    ours, reference = TTSLoss(**options, backend="cpp"), TTSLoss(**options, backend="torch")
    for loss in (ours, reference):
        loss.schedule_weight("attention", 0.3)
    for seed in range(25):
        batch = batch_of(seed, dtype)
        if seed == 11:
            batch["stop_logits"] = torch.full_like(batch["stop_logits"], torch.nan)
        out, expected = ours(**batch), reference(**batch)
        assert_close(out.weight_values, expected.weight_values, rtol=3e-6)
        assert out.weight_values.dtype == dtype
        for name, buffer in reference.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], buffer, rtol=3e-6, atol=1e-9)
    assert ours.noise_step == 25
    assert ours.adaptive.observations == (0 if weighting == "fixed" else 24)
    assert ours.adaptive.skipped == (0 if weighting == "fixed" else 1)


@pytest.mark.parametrize("weighting", METHODS)
def test_sums_of_several_calls_move_the_state_as_the_reference_moves_it(
    weighting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, reference = (TTSLoss(weighting=weighting, backend=backend) for backend in ("cpp", "torch"))
    generator = torch.Generator().manual_seed(0)
    for n in range(25):
        values, floors = torch.rand(4, 3, generator=generator)[:, 1] * 0.9**n, torch.full((4,), 0.05)
        if n % 2:
            values = values.contiguous()  # the others are the reference's to take
        if n == 11:
            values[2] = torch.nan
        for loss in (ours, reference):
            loss.update_weights(values, floors)
        for name, buffer in reference.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], buffer, rtol=3e-6, atol=1e-9)
    assert ours.noise_step == 0
    assert ours.adaptive.skipped == (0 if weighting == "fixed" else 1)
    before = ours.adaptive.factors.clone()
    ours.eval().update_weights(torch.ones(4), torch.zeros(4))
    assert torch.equal(ours.adaptive.factors, before)
    monkeypatch.setattr(adaptive, "update", lambda *_: pytest.fail("left to the reference"))
    ours.train().update_weights(torch.ones(4), torch.zeros(4))


def test_a_term_without_weight_keeps_its_factor() -> None:
    loss = TTSLoss(attention_weight=0.0, backend="cpp")
    batch = batch_of(0, torch.float32)
    batch["attention"] = torch.full_like(batch["attention"], torch.inf)
    for _ in range(3):
        loss(**batch)
    assert loss.adaptive.skipped == 0
    assert loss.adaptive.factors[3] == 1
    assert (loss.adaptive.slow[:3] > 0).all()
    assert loss.adaptive.slow[3] == 0


def test_evaluation_and_deferred_updates_leave_the_weights_alone() -> None:
    loss = TTSLoss(backend="cpp")
    loss(**batch_of(0, torch.float32))
    before = {name: buffer.clone() for name, buffer in loss.state_dict().items()}
    loss.eval()(**batch_of(1, torch.float32))
    for name, buffer in before.items():
        assert torch.equal(loss.state_dict()[name], buffer), name
    loss.train().update_in_forward = False
    loss(**batch_of(1, torch.float32))
    assert loss.noise_step == 2
    assert torch.equal(loss.adaptive.factors, before["adaptive.factors"])
    assert loss.adaptive.observations == 1


def test_a_second_backward_at_another_scale_uses_the_weights_of_its_step() -> None:
    """Half-precision gradients are computed again: from the same weights and noise, though both moved on."""
    batch = batch_of(3, torch.float32)
    leaf = batch["mel_pred"].to(torch.bfloat16).requires_grad_()
    loss = TTSLoss(mel_smoothing="noise", backend="cpp")
    loss(**batch_of(0, torch.float32))
    total = loss(**{**batch, "mel_pred": leaf}).total
    loss(**batch_of(1, torch.float32))
    (once,) = torch.autograd.grad(total, leaf, retain_graph=True)
    (twice,) = torch.autograd.grad(total, leaf, torch.tensor(2.0))
    assert torch.equal(2 * once, twice)
