"""Arguments that are almost right: one clear line each, before anything is computed or kept."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from loss_checks import make_batch, make_loss
from torch import Tensor

from ttsfast import functional
from ttsfast.losses.module import Counts, TTSLoss

BACKENDS = ["auto", "torch"]


@pytest.mark.parametrize("half", ["adaptive.factors", "noise_step"])
def test_assigned_state_keeps_its_dtype(half: str) -> None:
    loss = make_loss(weighting="dwa")
    state = {name: value.clone() for name, value in loss.state_dict().items()}
    other = torch.bfloat16 if state[half].is_floating_point() else torch.int32
    wrong = {**state, half: state[half].to(other)}
    with pytest.raises(RuntimeError, match=f"{re.escape(half)} is {other}, the loss keeps it in torch"):
        loss.load_state_dict(wrong, assign=True)
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), loss)
    with pytest.raises(RuntimeError, match=rf"1\.{re.escape(half)} is {other}"):
        model.load_state_dict(
            {**model.state_dict(), f"1.{half}": wrong[half]},
            assign=True,
        )
    loss.load_state_dict(wrong)
    loss.load_state_dict(state, assign=True)
    assert loss.state_dict()[half].dtype == state[half].dtype
    assert torch.isfinite(loss(**make_batch([5, 2], [3, 1])).total)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("name", ["mel_pred", "mel_target", "stop_logits", "attention"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused(name: str, layout: torch.layout) -> None:
    batch = make_batch([5, 2], [3, 1])
    rows = [torch.randn(5, 4), torch.randn(2, 4)]
    batch[name] = torch.nested.nested_tensor(rows, layout=layout)
    with pytest.raises(TypeError, match=f"{name} must be a dense tensor, got a nested one"):
        make_loss()(**batch)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("normalizer", "error", "message"),
    [
        ((1.0, 2.0), ValueError, "a tuple of 2"),
        (Counts(10, None, 10, 2), TypeError, "normalizer's stop_steps must be a number .* got None"),
        (Counts(10, 12, "10", 2), TypeError, "normalizer's attention_steps must be .* got str"),
        (Counts(torch.ones(3), 12, 10, 2), ValueError, r"normalizer's frames must be a scalar, .*\(3,\)"),
        ((10, 12, 10, [2]), TypeError, "normalizer's utterances must be .* got list"),
        (torch.ones((), dtype=torch.complex64), TypeError, "normalizer must be a real number"),
        ("10", TypeError, "normalizer must be a number or a scalar tensor, got str"),
    ],
)
def test_odd_normalizers(normalizer: Any, error: type[Exception], message: str, backend: str) -> None:
    loss = make_loss(backend=backend)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    with pytest.raises(error, match=message):
        loss(**make_batch([5, 2], [3, 1]), normalizer=normalizer)
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


@pytest.mark.parametrize("name", ["mel_mean", "mel_std"])
@pytest.mark.parametrize("values", [[0.5] * 5, torch.ones(5, device="cpu")])
def test_statistics_on_the_meta_device(name: str, values: list[float] | Tensor) -> None:
    if isinstance(values, Tensor):
        values = values.to("meta")
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=f"{name} holds values, .* outside of torch.device"),
    ):
        TTSLoss(**{name: values})


def test_a_loss_without_statistics_is_made_on_the_meta_device() -> None:
    with torch.device("meta"):
        loss = TTSLoss(mel_smoothing="noise")
    assert loss.noise_step.is_meta
    assert loss.spec.mel_floor == TTSLoss(mel_smoothing="noise").spec.mel_floor


def test_nested_tensors_are_refused_by_functionals() -> None:
    nested = torch.nested.nested_tensor([torch.randn(5, 4), torch.randn(2, 4)], layout=torch.jagged)
    with pytest.raises(TypeError, match="target must be a dense tensor, got a nested one"):
        functional.mel_huber_loss(nested, nested)
