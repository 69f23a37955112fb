from __future__ import annotations

import torch
from model_checks import assert_same

from ttsfast.models.aligner import Aligner


def test_what_the_padding_holds_reaches_neither_scores_nor_gradients() -> None:
    torch.manual_seed(0)
    aligner = Aligner(8, 6, 4)
    text_lengths, step_lengths = torch.tensor([5, 2, 1]), torch.tensor([7, 9, 4])
    symbols, mel = torch.randn(3, 5, 8), torch.randn(3, 9, 6)
    read = (torch.arange(5) < text_lengths[:, None])[..., None]
    spoken = (torch.arange(9) < step_lengths[:, None])[..., None]
    known = spoken & read.mT
    scores, slopes = [], []
    for filling in (0.0, torch.nan, torch.inf):
        given = [
            torch.where(read, symbols, filling).requires_grad_(),
            torch.where(spoken, mel, filling).requires_grad_(),
        ]
        found = aligner(given[0], text_lengths, given[1], step_lengths)
        assert (found[~read.mT.expand_as(found)] == -torch.inf).all()
        scores.append(torch.where(known, found, 0.0))
        loss = scores[-1].square().sum()
        slopes.append(torch.autograd.grad(loss, [*given, *aligner.parameters()]))
    for found, slope in zip(scores[1:], slopes[1:], strict=True):
        assert_same(found, scores[0], 0.0)
        for one, other in zip(slope, slopes[0], strict=True):
            assert_same(one, other, 0.0)
    assert not slopes[0][1][~spoken[..., 0]].any()


def test_a_row_is_a_distribution_over_its_own_text() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([5, 1])
    rows = Aligner(8, 6, 4)(torch.randn(2, 5, 8), lengths, torch.randn(2, 3, 6), torch.tensor([3, 3]))
    assert rows.dtype == torch.float32
    assert_same(rows.exp().sum(2), torch.ones(2, 3))
    assert (rows[1, :, 0] == 0).all()
