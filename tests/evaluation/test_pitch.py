"""Pitch errors by hand: octaves, thirds of a tone, and frames voiced on one side alone."""

from __future__ import annotations

import numpy as np
import pytest

from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.pitch import pitch_errors


def test_by_hand() -> None:
    recorded = np.array([100.0, 100.0, 100.0, 0.0, 0.0, 200.0, 300.0, 0.0])
    # An octave up, right, 100 cents down; two of the three unvoiced frames right; one voiced one missed.
    spoken = np.array([200.0, 100.0, 100.0 * 2 ** (-1 / 12), 0.0, 150.0, 0.0, 300.0, 0.0])
    found = pitch_errors(spoken, recorded)
    assert (found.pairs, found.voiced_pairs) == (8, 4)
    assert found.f0_rmse == pytest.approx(np.sqrt((1200**2 + 100**2) / 4))
    assert found.gross_pitch_error == 1 / 4
    assert found.voicing_error == 2 / 8


@pytest.mark.parametrize(("ratio", "gross"), [(1.19, 0.0), (1.21, 1.0), (0.81, 0.0), (0.79, 1.0)])
def test_a_gross_error_is_a_fifth_of_the_recorded_pitch(ratio: float, gross: float) -> None:
    assert pitch_errors(np.array([150.0 * ratio]), np.array([150.0])).gross_pitch_error == gross


def test_a_mute_voice_has_no_pitch_error_but_every_voicing_error() -> None:
    figures = Figures()
    pitch_errors(np.zeros(4), np.full(4, 120.0)).add_to(figures, "mute")
    assert dict(figures) == {"voicing_error": 1.0}


def test_weights() -> None:
    figures = Figures()
    pitch_errors(np.full(3, 200.0), np.full(3, 100.0)).add_to(figures, "short")
    pitch_errors(np.full(9, 100.0), np.full(9, 100.0)).add_to(figures, "long")
    assert figures["gross_pitch_error"] == 3 / 12
    assert figures["f0_rmse"] == pytest.approx(600.0)


@pytest.mark.parametrize(
    ("spoken", "recorded"),
    [([], []), ([1.0], [1.0, 2.0]), ([-1.0], [1.0]), ([1.0], [float("nan")])],
)
def test_what_is_no_track_is_refused(spoken: list[float], recorded: list[float]) -> None:
    with pytest.raises(ValueError, match="pitch"):
        pitch_errors(np.array(spoken), np.array(recorded))
