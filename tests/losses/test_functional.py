"""The stand-alone functionals: torch's conventions, and the module's own numbers."""

from __future__ import annotations

import pytest
import torch
from loss_checks import assert_close, make_batch, make_loss
from torch.nn import functional as F

from ttsfast.functional import gaussian_kl_loss, guided_attention_loss, mel_huber_loss, stop_bce_loss


def test_they_equal_the_module() -> None:
    batch = make_batch([7, 3, 0], [4, 2, 1], heads=2, reduction=2, prior=True)
    mean = torch.linspace(-1, 1, 5, dtype=torch.float64)
    out = make_loss(mel_mean=mean, kl_normalization="vector", kl_free_bits=0.3)(**batch)
    mel = mel_huber_loss(
        batch["mel_pred"],
        batch["mel_target"],
        batch["mel_lengths"],
        delta=0.6,
        label_smoothing=0.025,
        mel_mean=mean,
    )
    assert_close(mel.detach(), out.mel)
    kl = gaussian_kl_loss(*batch["posterior"], batch["mel_lengths"], prior=batch["prior"], free_bits=0.3)
    assert_close(kl.detach(), out.kl)
    stop = stop_bce_loss(batch["stop_logits"], batch["step_lengths"], pos_weight=4.0, label_smoothing=0.06)
    assert_close(stop.detach(), out.stop)
    attention = guided_attention_loss(batch["attention"], batch["step_lengths"], batch["text_lengths"])
    assert_close(attention.detach(), out.attention)


def test_without_lengths_they_are_torchs_own() -> None:
    batch = make_batch([5, 5], [3, 3], frames=5)
    x, y = batch["mel_pred"], batch["mel_target"]
    for reduction in ("none", "sum", "mean"):
        assert_close(mel_huber_loss(x, y, reduction=reduction), F.huber_loss(x, y, reduction=reduction))
    logits = batch["stop_logits"]
    target = torch.zeros(2, 5, dtype=torch.float64)
    target[:, -1] = 1
    for reduction in ("none", "sum", "mean"):
        assert_close(
            stop_bce_loss(logits, torch.tensor([5, 5]), reduction=reduction, pos_weight=3.0),
            F.binary_cross_entropy_with_logits(
                logits, target, reduction=reduction, pos_weight=torch.tensor(3.0).double()
            ),
        )


def calls() -> dict[str, tuple]:
    """name: (call, input, the shape of "none")"""
    batch = make_batch([6, 2], [4, 3], frames=9, heads=2)
    lengths, text = batch["mel_lengths"], batch["text_lengths"]
    mu, logvar = (part.detach()[:, None].repeat(1, 9, 1).requires_grad_() for part in batch["posterior"])
    return {
        "mel": (
            lambda x, r: mel_huber_loss(x, batch["mel_target"], lengths, reduction=r),
            batch["mel_pred"],
            (2, 9, 5),
        ),
        "kl": (lambda x, r: gaussian_kl_loss(x, logvar, lengths, reduction=r), mu, (2, 9)),
        "stop": (
            lambda x, r: stop_bce_loss(x, lengths, reduction=r, tail_frames=2),
            batch["stop_logits"],
            (2, 9),
        ),
        "attention": (
            lambda x, r: guided_attention_loss(x, lengths, text, reduction=r),
            batch["attention"],
            (2, 2, 9, 4),
        ),
    }


@pytest.mark.parametrize("term", ["mel", "kl", "stop", "attention"])
def test_reductions_agree(term: str) -> None:
    call, x, shape = calls()[term]
    elements = call(x, "none")
    assert elements.shape == shape
    assert elements.detach().flatten()[-1] == 0, "padding is 0"
    assert_close(call(x, "sum"), elements.sum())
    valid = {"mel": 8 * 5, "kl": 8, "stop": 12, "attention": 8 * 2}[term]
    assert_close(call(x, "mean"), elements.sum() / valid)
    weights = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (grad,) = torch.autograd.grad(call(x, "none"), x, weights)
    (expected,) = torch.autograd.grad((call(x, "none") * weights).sum(), x)
    assert_close(grad, expected)
    assert torch.autograd.gradcheck(lambda z: call(z, "none"), [x])
    with pytest.raises(ValueError, match="reduction must be one of none, sum, mean, got 'avg'"):
        call(x, "avg")


def test_half_precision_is_computed_in_float32() -> None:
    x, y = torch.randn(2, 4, 3).half(), torch.randn(2, 4, 3).half()
    result = mel_huber_loss(x, y)
    assert result.dtype == torch.float32
    assert_close(result, F.huber_loss(x.float(), y.float()), rtol=1e-6)


def test_kl_of_utterances_without_frames_does_not_count() -> None:
    mu, logvar = torch.ones(3, 2), torch.zeros(3, 2)
    assert float(gaussian_kl_loss(mu, logvar, torch.tensor([4, 0, 2]), reduction="sum")) == pytest.approx(2.0)
    assert float(gaussian_kl_loss(mu, logvar)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: mel_huber_loss(torch.ones(2, 3, 4), torch.ones(2, 3, 5)),
            ValueError,
            "input must have shape",
        ),
        (
            lambda: mel_huber_loss(torch.ones(2, 3), torch.ones(2, 3)),
            ValueError,
            r"target must have shape \(B, T, C\)",
        ),
        (lambda: mel_huber_loss(torch.ones(1, 3, 4), torch.ones(1, 3, 4), delta=0), ValueError, "delta"),
        (
            lambda: mel_huber_loss(torch.ones(1, 3, 4), torch.ones(1, 3, 4), torch.tensor([4])),
            ValueError,
            r"lengths\[0\] is 4, outside 0..3",
        ),
        (lambda: gaussian_kl_loss(torch.ones(1, 3), torch.ones(1, 4)), ValueError, "logvar must have shape"),
        (
            lambda: stop_bce_loss(torch.ones(1, 3), torch.tensor([1.0])),
            TypeError,
            "lengths must be an integer",
        ),
        (
            lambda: stop_bce_loss(torch.ones(1, 3).long(), torch.tensor([1])),
            TypeError,
            "input must hold float",
        ),
        (
            lambda: guided_attention_loss(torch.ones(1, 3, 2), torch.tensor([3]), torch.tensor([2]), sigma=0),
            ValueError,
            "sigma",
        ),
    ],
)
def test_errors(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]
