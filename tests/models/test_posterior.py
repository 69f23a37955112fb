from __future__ import annotations

import torch
from model_checks import assert_same, random_mels

from ttsfast.models.posterior import PosteriorEncoder


def encoder() -> PosteriorEncoder:
    torch.manual_seed(1)
    posterior = PosteriorEncoder(n_mels=6, channels=16, latent_dim=4, stride=8, dropout=0.0)
    torch.nn.init.normal_(posterior.project.weight)
    return posterior


def test_it_starts_at_the_prior() -> None:
    mu, logvar = PosteriorEncoder(6, 16, 4, 8, 0.0)(*random_mels([9, 20], 24))
    assert mu.shape == logvar.shape == (2, 4)
    assert not mu.any()
    assert not logvar.any()


def test_padding_changes_nothing() -> None:
    posterior = encoder()
    lengths = [1, 8, 13, 31]
    mel, mel_lengths = random_mels(lengths, 40)
    mel[torch.arange(40)[None] >= mel_lengths[:, None]] = torch.nan
    mu, logvar = posterior(mel, mel_lengths)
    for row, length in enumerate(lengths):
        alone = posterior(mel[row : row + 1, :length], mel_lengths[row : row + 1])
        assert_same(mu[row : row + 1], alone[0])
        assert_same(logvar[row : row + 1], alone[1])


def test_every_frame_counts() -> None:
    mel, lengths = random_mels([21], 21)
    mel.requires_grad_()
    mu, _ = encoder()(mel, lengths)
    mu.sum().backward()
    assert mel.grad is not None
    assert (mel.grad.abs().sum(-1) > 0).all()


def test_an_empty_recording_gives_finite_numbers() -> None:
    mu, logvar = encoder()(*random_mels([0, 4], 8))
    assert torch.isfinite(mu).all()
    assert torch.isfinite(logvar).all()
