"""Curves: they show what the log has, gaps where it has none, and no alarm where nothing moves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ttsfast.pages import curves
from ttsfast.pages.curves import Line, curve_figure
from ttsfast.pages.plots import PALETTE

LOG = [
    {"kind": "train", "step": 1, "mel": 2.0, "kl": 0.5, "convergence": "warming", "spiked": True},
    {"kind": "validation", "step": 2, "mel": 3.0, "mel_l1": 1.0},
    {"kind": "train", "step": 3, "mel": math.nan, "kl": 1e-4},
    {"kind": "train", "step": 5, "mel": 1.0, "kl": 0.1},
]


def test_series_are_numbers_and_nothing_else() -> None:
    found = curves.series(LOG)
    assert list(found) == ["mel", "kl", "mel_l1"]
    assert found["mel"]["validation"] == ([2], [3.0])
    assert found["kl"] == {"train": ([1, 3, 5], [0.5, 1e-4, 0.1])}
    assert curves.series([]) == {}


def test_training_and_held_out_share_a_picture() -> None:
    lines = [
        Line("a run", [1, 3, 5], [2.0, math.nan, 1.0], PALETTE[0]),
        Line("a run", [2], [0.7], PALETTE[1], right=True),
    ]
    left, right = curve_figure(lines, "loss", "held out").axes
    drawn = {line.get_label(): line for line in left.get_lines()}
    assert np.array_equal(drawn["a run"].get_ydata(), [2.0, np.nan, 1.0], equal_nan=True)
    # The gap is marked where it is.
    assert drawn["_bad"].get_xdata().tolist() == [3]
    (held_out,) = right.get_lines()
    assert held_out.get_ydata().tolist() == [0.7]
    assert held_out.get_linestyle() != drawn["a run"].get_linestyle()
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "held out")
    assert (left.yaxis.label.get_color(), right.yaxis.label.get_color()) == PALETTE[:2]


def test_several_runs_are_told_apart() -> None:
    lines = [Line(f"run {n} " + "$" * 30, [1, 2], [1.0, 2.0], PALETTE[n]) for n in range(3)]
    figure = curve_figure(lines)
    (legend,) = figure.legends
    assert [text.get_text()[:5] for text in legend.get_texts()] == ["run 0", "run 1", "run 2"]
    assert [h.get_color() for h in legend.legend_handles] == list(PALETTE[:3])
    figure.draw_without_rendering()


def test_many_steps_are_drawn_as_their_means_in_a_band() -> None:
    steps = list(range(10_000))
    values = [math.nan if step == 5_000 else 1.0 + (step % 2) for step in steps]
    (axes,) = curve_figure([Line("", steps, values, PALETTE[0])]).axes
    line, bad = axes.get_lines()
    assert len(line.get_xdata()) == curves.MANY
    assert line.get_ydata() == pytest.approx(1.5, abs=0.02)
    assert bad.get_xdata().tolist() == [5_000]
    (band,) = axes.collections
    assert (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()) == (1.0, 2.0)


def test_a_scalar_of_many_magnitudes_gets_a_logarithmic_axis() -> None:
    (axes,) = curve_figure([Line("", [1, 2], [1e-4, 1.0], PALETTE[0])]).axes
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        # What hardly moves is drawn as that; a share does not pass 1, nor what is not negative 0.
        ([0.999, 1.0], 0.8, 1.0),
        ([22.0, 21.9], 19.75, 24.15),
        ([0.0, 0.0], 0.0, 1.0),
        ([0.02, 0.5], 0.0, 0.524),
        ([2.0, 4.0], 1.9, 4.1),
        ([-1.0, 1.0], -1.1, 1.1),
        ([-5.0, -5.0], -5.5, -4.5),
    ],
)
def test_axes_do_not_blow_up_noise(values: list[float], low: float, high: float) -> None:
    assert curves.limits(values) == (pytest.approx(low, abs=0.021), pytest.approx(high, abs=0.021))
