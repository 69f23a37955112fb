"""The noise generator: known answers, layout, distribution."""

from __future__ import annotations

import math

import pytest
import torch
from loss_checks import assert_close, make_batch, make_loss

from ttsfast.losses.philox import philox4x32, standard_normal

ONES = 0xFFFFFFFF


def words(*values: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(value) for value in values)


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, ...], answer: tuple[int, ...]
) -> None:
    assert tuple(int(word) for word in philox4x32(words(*counter), words(*key))) == answer


def test_layout_is_the_documented_one() -> None:
    seed, step = (7 << 32) + 5, 3
    noise = standard_normal((2, 3, 6), seed, torch.tensor(step), torch.float64)
    for b, t, c in [(0, 0, 0), (1, 2, 5), (1, 0, 2), (0, 2, 3)]:
        x = [int(w) for w in philox4x32(words(c // 4, t, b, 0), words(5, step))]
        first = 2 * (c % 4 // 2)
        u, v = ((x[first] >> 8) + 1) / 2**24, (x[first + 1] >> 8) / 2**24
        wave = math.cos if c % 2 == 0 else math.sin
        expected = math.sqrt(-2 * math.log(u)) * wave(2 * math.pi * v)
        assert float(noise[b, t, c]) == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_padding_and_bins_do_not_move_the_noise() -> None:
    step = torch.tensor(11)
    small = standard_normal((2, 5, 6), 1, step, torch.float32)
    large = standard_normal((4, 9, 11), 1, step, torch.float32)
    assert_close(small, large[:2, :5, :6].clone(), rtol=0, atol=0)


def test_distribution_and_independence() -> None:
    draws = [
        standard_normal((8, 125, 80), s, torch.tensor(n), torch.float64) for s, n in [(0, 0), (0, 1), (1, 0)]
    ]
    for i, noise in enumerate(draws):
        flat = noise.flatten()
        count = flat.numel()
        assert abs(float(flat.mean())) < 5 / math.sqrt(count)
        assert abs(float(flat.var()) - 1) < 5 * math.sqrt(2 / count)
        assert abs(float((flat**3).mean())) < 5 * math.sqrt(15 / count)
        assert abs(float((flat**4).mean()) - 3) < 5 * math.sqrt(96 / count)
        for other in draws[:i]:
            assert abs(float((flat * other.flatten()).mean())) < 5 / math.sqrt(count)
        for shift in (1, 2, 80):
            assert abs(float((flat[:-shift] * flat[shift:]).mean())) < 5 / math.sqrt(count)


def test_noise_changes_with_every_training_step_and_ends_in_evaluation() -> None:
    batch = make_batch([9, 4], [3, 2])
    loss = make_loss(mel_smoothing="noise", mel_label_smoothing=0.5, seed=4)
    first, second = loss(**batch).mel, loss(**batch).mel
    assert first != second
    assert loss.noise_step == 2
    loss.noise_step.zero_()
    assert_close(loss(**batch).mel, first, rtol=0, atol=0)
    assert make_loss(mel_smoothing="noise", mel_label_smoothing=0.5, seed=5)(**batch).mel != first
    loss.eval()
    assert_close(loss(**batch).mel, make_loss(mel_smoothing="none")(**batch).mel, rtol=0, atol=0)
    assert loss.noise_step == 1


def test_noise_is_scaled_by_each_bins_deviation() -> None:
    batch = make_batch([9, 4], [3, 2], bins=5)
    std = torch.tensor([0.0, 1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    loss = make_loss(mel_smoothing="noise", mel_label_smoothing=0.1, mel_std=std, seed=9)
    noise = standard_normal((2, 17, 5), 9, torch.tensor(0), torch.float64)
    moved = batch["mel_target"] + 0.1 * std * noise
    assert_close(loss(**batch).mel, make_loss(mel_smoothing="none")(**{**batch, "mel_target": moved}).mel)
