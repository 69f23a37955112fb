"""The alignment's code blocks of ``docs/drop-in.md`` against the recipes' own algorithms, restated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from alignment_cases import backends
from dropin_page import loss_on_page, on_page, real, same
from scipy.stats import betabinom
from torch import Tensor
from torch.nn import functional as F

from ttsfast.functional import beta_binomial_prior

MEL, TEXT = torch.tensor([23, 17, 9]), torch.tensor([11, 7, 9])
BATCH, FRAMES, SYMBOLS = 3, 23, 11


def mask() -> Tensor:
    """(B, T, N), as the recipes have it."""
    frames, symbols = (torch.arange(n) < x[:, None] for n, x in ((FRAMES, MEL), (SYMBOLS, TEXT)))
    return (frames.unsqueeze(2) & symbols.unsqueeze(1)).float()


def best_paths(values: Tensor, mask: Tensor) -> Tensor:
    """Algorithm 1 of Kim et al. (2020) with the lengths that the mask has, (B, T, N): Q of the best path to
    each cell; then back from the last, to the symbol before where that is better or the only way."""
    values, paths = values * mask, torch.zeros_like(values)
    for value, path, frames, symbols in zip(
        values.numpy(),
        paths.numpy(),
        mask.sum(1)[:, 0].int().tolist(),
        mask.sum(2)[:, 0].int().tolist(),
        strict=True,
    ):
        best = np.full((frames, symbols), -1e9, dtype=np.float32)
        best[0, 0] = value[0, 0]
        for t in range(1, frames):
            for n in range(min(t + 1, symbols)):
                before = best[t - 1, n - 1] if n else np.float32(-1e9)
                best[t, n] = value[t, n] + max(before, best[t - 1, n])
        n = symbols - 1
        for t in reversed(range(frames)):
            path[t, n] = 1
            if n and (n == t or best[t - 1, n] < best[t - 1, n - 1]):
                n -= 1
    return paths


@backends
def test_vits_search(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for scale in (1.0, 30.0):
        # Whole numbers have many ties.
        neg_cent = (real(BATCH, FRAMES, SYMBOLS, seed=1).detach() * scale).round()
        found = on_page(
            "The alignment search of VITS",
            backend,
            monkeypatch,
            neg_cent=neg_cent,
            x_lengths=TEXT,
            y_lengths=MEL,
        )
        assert torch.equal(found["attn"], best_paths(neg_cent, mask()).unsqueeze(1))


@backends
def test_matcha_search(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log_prior = real(BATCH, SYMBOLS, FRAMES, seed=2).detach()
    found = on_page(
        "The alignment search of Matcha-TTS and Glow-TTS",
        backend,
        monkeypatch,
        log_prior=log_prior,
        x_lengths=TEXT,
        y_lengths=MEL,
    )
    expected = best_paths(log_prior.transpose(1, 2), mask()).transpose(1, 2)
    assert torch.equal(found["attn"], expected)
    assert torch.equal(found["durations"], expected.sum(2).long())


@backends
def test_fastpitch_attention_ctc(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = real(BATCH, 1, FRAMES, SYMBOLS, seed=3)
    mel = torch.tensor([23, 17, 8])
    loss = loss_on_page(
        "FastPitch's AttentionCTCLoss", backend, monkeypatch, attn_logprob=scores, in_lens=TEXT, out_lens=mel
    )

    def formula(scores: Tensor) -> Tensor:
        """A column of the blank in front, then one call of CTC for each utterance."""
        wide, total = F.pad(scores, (1, 0), value=-1.0), torch.zeros((), dtype=torch.float64)
        for b, (frames, symbols) in enumerate(zip(mel.tolist(), TEXT.tolist(), strict=True)):
            rows = wide[b].permute(1, 0, 2)[:frames, :, : symbols + 1].log_softmax(2)
            targets = torch.arange(1, symbols + 1)[None]
            total = total + F.ctc_loss(rows, targets, mel[b : b + 1], TEXT[b : b + 1], zero_infinity=True)
        return total / BATCH

    same(loss, formula, scores)


def test_fastpitch_prior() -> None:
    prior = beta_binomial_prior(TEXT + 1, MEL)[..., :-1].exp()
    for t in range(1, 18):
        row = betabinom(7, t, 18 - t).pmf(np.arange(7))
        assert np.allclose(prior[1, t - 1, :7], row, rtol=1e-5, atol=1e-7)


@backends
def test_fastpitch_binarization(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    soft = real(BATCH, 1, FRAMES, SYMBOLS, seed=4).detach().softmax(3).requires_grad_()
    loss = loss_on_page(
        "FastPitch's BinLoss", backend, monkeypatch, attn_soft=soft, in_lens=TEXT, out_lens=MEL
    )

    def formula(soft: Tensor) -> Tensor:
        hard = best_paths(soft.detach().squeeze(1).log().float(), mask()).unsqueeze(1)
        return -torch.log(soft[hard == 1].clamp(min=1e-12)).sum() / hard.sum()

    same(loss, formula, soft)
