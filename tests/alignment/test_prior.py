"""The beta-binomial prior against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import betabinom

from ttsfast.functional import beta_binomial_prior

TEXT, MEL = torch.tensor([7, 1, 4, 0]), torch.tensor([23, 5, 0, 3])


@pytest.mark.parametrize("scale", [1.0, 0.05, 3.0])
def test_as_scipy_has_it(scale: float) -> None:
    prior = beta_binomial_prior(TEXT, MEL, scale)
    assert prior.shape == (4, 23, 7)
    assert prior.dtype == torch.float32
    for b, (symbols, frames) in enumerate(zip(TEXT.tolist(), MEL.tolist(), strict=True)):
        for t in range(1, frames + 1):
            if symbols == 0:
                continue
            row = betabinom(symbols - 1, scale * t, scale * (frames + 1 - t)).logpmf(np.arange(symbols))
            assert np.allclose(prior[b, t - 1, :symbols], row, rtol=1e-5, atol=1e-5)
        assert not prior[b, frames:].any()
        assert not prior[b, :, symbols:].any()


def test_the_variant_that_leaves_off_the_last_symbol() -> None:
    """Of one trial more, whose last outcome no symbol has: one symbol more, cut off."""
    prior = beta_binomial_prior(TEXT + 1, MEL)[0, :23, :7]
    for t in range(1, 24):
        assert np.allclose(prior[t - 1], betabinom(7, t, 24 - t).logpmf(np.arange(7)), rtol=1e-5, atol=1e-5)


def test_long_utterances_keep_their_digits() -> None:
    text, mel = torch.tensor([300]), torch.tensor([1600])
    prior = beta_binomial_prior(text, mel)
    assert torch.allclose(prior.double().exp().sum(2), torch.ones(1, 1600, dtype=torch.float64), atol=1e-5)


def test_sizes_may_be_given() -> None:
    prior = beta_binomial_prior(TEXT, MEL, frames=30, symbols=9)
    assert prior.shape == (4, 30, 9)
    assert torch.equal(prior[:, :23, :7], beta_binomial_prior(TEXT, MEL))
    with pytest.raises(ValueError, match=r"mel_lengths\[0\] is 23, outside 0\.\.20"):
        beta_binomial_prior(TEXT, MEL, frames=20)
    with pytest.raises(ValueError, match="scale must be more than 0"):
        beta_binomial_prior(TEXT, MEL, 0.0)
    with pytest.raises(TypeError, match="text_lengths must be an integer tensor"):
        beta_binomial_prior(torch.ones(2), MEL[:2], symbols=2)
    with pytest.raises(TypeError, match="mel_lengths must be a tensor of integers, not list"):
        beta_binomial_prior(torch.tensor([3]), [8])  # type: ignore[arg-type]
