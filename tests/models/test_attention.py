from __future__ import annotations

import math

import pytest
import torch
from model_checks import assert_same

from ttsfast.models.attention import PACE_GAIN, PositionalCode, TextAttention


def test_the_code_of_a_position_resembles_those_nearby_most() -> None:
    code = PositionalCode(32)
    positions = code(torch.arange(60.0))
    likeness = positions @ positions[30]
    assert int(likeness.argmax()) == 30
    assert (likeness[:30].diff() > 0).float().mean() > 0.8
    assert likeness[27:34].min() > likeness[[5, 55]].max()


@pytest.mark.parametrize("channels", [2, 7])
def test_a_code_needs_pairs_of_channels(channels: int) -> None:
    with pytest.raises(ValueError, match="even number"):
        PositionalCode(channels)


def test_attention_starts_on_the_diagonal_of_the_pace() -> None:
    torch.manual_seed(0)
    attention = TextAttention(64, symbols_per_step=0.5, n_speakers=1)
    steps, text = torch.randn(2, 60, 64), torch.randn(2, 30, 64)
    keys, values = attention.read(text)
    allowed = torch.ones(2, 1, 30, dtype=torch.bool)
    _, weights = attention(steps, 0, keys, values, allowed, torch.zeros(2, dtype=torch.int64))
    centre = (weights * torch.arange(30)).sum(-1)
    off = (centre - 0.5 * torch.arange(60)).abs()
    assert off[:, 10:50].mean() < 4.0


@torch.no_grad()
def test_attention_equals_a_loop() -> None:
    attention = TextAttention(8, symbols_per_step=0.7, n_speakers=2)
    attention.log_pace.copy_(torch.tensor([0.01, -0.02]))
    steps, text = torch.randn(2, 4, 8), torch.randn(2, 5, 8)
    keys, values = attention.read(text)
    allowed = torch.tensor([[[True, True, False, True, False]], [[True] * 5]])
    read, weights = attention(steps, 3, keys, values, allowed, torch.tensor([1, 0]))
    for row, pace in enumerate((math.exp(-0.02 * PACE_GAIN), math.exp(0.01 * PACE_GAIN))):
        for s in range(4):
            query = attention.query(steps[row, s]) + attention.position(torch.tensor([pace * (3 + s)]))[0]
            scores = [
                float(query @ keys[row, n]) / math.sqrt(8) if allowed[row, 0, n] else -math.inf
                for n in range(5)
            ]
            expected = torch.tensor(scores).softmax(0)
            assert_same(weights[row, s], expected)
            assert_same(read[row, s], expected @ values[row])


def test_the_pace_is_learned_per_speaker() -> None:
    attention = TextAttention(8, symbols_per_step=0.7, n_speakers=3)
    keys, values = attention.read(torch.randn(1, 5, 8))
    allowed = torch.ones(1, 1, 5, dtype=torch.bool)
    read, _ = attention(torch.randn(1, 4, 8), 0, keys, values, allowed, torch.tensor([1]))
    read.square().sum().backward()
    assert attention.log_pace.grad is not None
    assert (attention.log_pace.grad != 0).tolist() == [False, True, False]
