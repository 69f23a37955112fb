"""Distortion and what is heard, by hand and on speech with known faults."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ttsfast.data.features.contract import MelContract
from ttsfast.evaluation.distortion import mel_cepstra, warped

CONTRACT = MelContract.preset("librosa-22k")


def mcd(predicted: np.ndarray, target: np.ndarray, contract: MelContract = CONTRACT) -> float:
    return warped(predicted, target, contract).mcd


def test_one_coefficient_by_hand() -> None:
    # A ripple 0.3 cos(pi 5 (k + 1/2) / C) on the log spectrum is the cepstrum c_5 = 0.3 and nothing else.
    k = np.arange(80)
    flat = np.full((9, 80), -4.0)
    rippled = flat + 0.3 * np.cos(np.pi * 5 * (k + 0.5) / 80)
    expected = 10 / math.log(10) * math.sqrt(2) * 0.3
    assert mcd(flat, rippled, CONTRACT) == pytest.approx(expected)


def test_is_the_rms_in_decibels_of_the_envelope() -> None:
    # What the constant is for: the root mean square, over frequency, of 20 log10 of the amplitude ratio.
    k = np.arange(80)
    ripple = sum(a * np.cos(np.pi * m * (k + 0.5) / 80) for m, a in ((1, 0.5), (4, -0.2), (13, 0.1)))
    rms = math.sqrt(np.mean((20 / math.log(10) * ripple) ** 2))
    assert mcd(np.zeros((3, 80)), np.tile(ripple, (3, 1)), CONTRACT) == pytest.approx(rms)


def test_level_and_tempo_do_not_count() -> None:
    rng = np.random.default_rng(0)
    mel = rng.normal(size=(20, 80))
    assert mcd(mel + 3.0, mel, CONTRACT) == pytest.approx(0.0, abs=1e-9)
    assert mcd(np.repeat(mel, 2, axis=0), mel, CONTRACT) == pytest.approx(0.0, abs=1e-9)
    assert mcd(mel[::-1], mel, CONTRACT) > 1.0


@pytest.mark.parametrize(("spoken", "recorded"), [(30, 20), (20, 30), (20, 20)])
def test_length_counts_where_it_is_to(spoken: int, recorded: int) -> None:
    rng = np.random.default_rng(2)
    pairs = warped(rng.normal(size=(spoken, 80)), rng.normal(size=(recorded, 80)), CONTRACT)
    assert pairs.mcd_sl == pytest.approx(pairs.mcd * (1.0 if spoken == recorded else 1.5))


def test_respects_the_contracts_log() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(12, 80)), rng.normal(size=(15, 80))
    expected = mcd(a, b, CONTRACT)
    decimal = replace(CONTRACT, log_base="10")
    assert mcd(a / math.log(10), b / math.log(10), decimal) == pytest.approx(expected)
    power = replace(CONTRACT, power=2.0)
    assert mcd(2 * a, 2 * b, power) == pytest.approx(expected)


def test_refuses_too_few_bins() -> None:
    with pytest.raises(ValueError, match="more than 13 mel bins"):
        mel_cepstra(np.zeros((4, 13)), CONTRACT)


class TestHeard:
    target = np.random.default_rng(2).normal(size=(60, 80))

    def heard(self, spoken: np.ndarray) -> float:
        return warped(spoken, self.target, CONTRACT).heard

    def test_the_recording_is_heard_whole_at_any_tempo(self) -> None:
        assert self.heard(self.target) == 1.0
        assert self.heard(np.repeat(self.target, 2, axis=0)) == 1.0

    def test_running_on_takes_nothing_away(self) -> None:
        babble = np.random.default_rng(3).normal(size=(90, 80))
        assert self.heard(np.concatenate([self.target, babble])) == pytest.approx(1.0, abs=2 / 60)

    def test_what_is_left_out_is_not_heard(self) -> None:
        # The least sum over the rest may take some frames of the half away from their own.
        assert self.heard(self.target[:30]) == pytest.approx(0.5, abs=0.1)
        assert self.heard(np.delete(self.target, range(20, 40), axis=0)) == pytest.approx(2 / 3, abs=0.1)

    def test_the_mean_and_another_text_are_not_it(self) -> None:
        assert self.heard(np.zeros((60, 80))) == 0.0
        assert self.heard(np.random.default_rng(4).normal(size=(60, 80))) < 0.2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_an_error(bad: float) -> None:
    values = np.full((4, 20), 0.05)
    values[0, 3] = bad
    with pytest.raises(ValueError, match="not finite"):
        warped(values, np.zeros((4, 20)), CONTRACT)
    with pytest.raises(ValueError, match="not finite"):
        warped(np.zeros((4, 20)), torch.from_numpy(values), CONTRACT)
