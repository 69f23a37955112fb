"""Pictures: drawn to files, with what they were given in them, and nothing global touched."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.filterbank import mel_axes
from ttsfast.evaluation.targets import label
from ttsfast.pages import plots

CONTRACT = MelContract.preset("librosa-22k")
AXES = mel_axes(CONTRACT)
PERSIAN = list("سلام، دنیا\u200cی ما؟")


def test_alignment_shows_every_symbol_of_a_short_text(tmp_path: Path) -> None:
    symbols = [*PERSIAN, "ˈ", "\u0303", "$", " "]
    attention = np.eye(len(symbols)).repeat(2, axis=0)
    figure = plots.alignment_figure(attention, symbols, 1.5)
    axes = figure.axes[0]
    shown = [tick.get_text() for tick in axes.get_yticklabels()]
    assert shown == [plots.symbol_label(s) for s in symbols]
    assert axes.get_images()[0].get_array().shape == (len(symbols), 2 * len(symbols))
    assert axes.get_xlim() == (0.0, 1.5)
    assert axes.get_xlabel() == "time (s)"
    width, height = plots.save(figure, tmp_path / "alignment.png")
    assert png_size(tmp_path / "alignment.png") == (width, height)


def test_alignment_without_symbols_counts() -> None:
    axes = plots.alignment_figure(np.full((7, 3), 1 / 3)).axes[0]
    assert axes.get_xlim() == (0.0, 7.0)
    assert axes.get_xlabel() == "decoder step"


def test_symbols_of_a_long_text_do_not_crowd() -> None:
    axes = plots.alignment_figure(np.full((9, 180), 1 / 180), ["a"] * 180, 1.0).axes[0]
    assert 18 <= len(axes.get_yticks()) <= 40


@pytest.mark.parametrize(
    ("symbol", "shown"),
    [
        ("a", "a"),
        ("ش", "ش"),
        (" ", "␣"),
        ("$", r"\$"),
        ("\u0303", "\u25cc\u0303"),
        ("\u200c", "U+200C"),
        ("\u064b", "\u25cc\u064b"),
        ("\U00013000", "U+13000"),
    ],
)
def test_symbol_labels(symbol: str, shown: str) -> None:
    assert plots.symbol_label(symbol) == shown


@pytest.mark.filterwarnings("error")
def test_no_symbol_warns_of_a_missing_glyph(tmp_path: Path) -> None:
    symbols = [*PERSIAN, "\U00013000", "一", "ɑ̃", "\t"]
    figure = plots.alignment_figure(np.full((4, len(symbols)), 0.1), symbols, 1.0)
    plots.save(figure, tmp_path / "a.png")


def test_mels_share_scale_and_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mels = {"recorded": rng.normal(size=(100, 80)), "free-running": 9 + rng.normal(size=(40, 80))}
    figure = plots.mel_figure(mels, AXES)
    first, second = figure.axes[:2]
    assert [axes.get_title("left") for axes in (first, second)] == list(mels)
    assert first.get_xlim() == second.get_xlim() == (0.0, pytest.approx(100 * 256 / 22050))
    assert second.get_images()[0].get_extent()[1] == pytest.approx(40 * 256 / 22050)
    assert first.get_images()[0].get_clim() == second.get_images()[0].get_clim()
    ticks = dict(zip([t.get_text() for t in first.get_yticklabels()], first.get_yticks(), strict=True))
    # Slaney's scale is linear below 1 kHz: 500 Hz lies half way.
    assert (ticks["500"] + 1) / (ticks["1000"] + 1) == pytest.approx(0.5, abs=0.01)
    plots.save(figure, tmp_path / "mel.png")


def test_a_constant_mel_can_be_drawn(tmp_path: Path) -> None:
    plots.save(plots.mel_figure({"silence": np.full((5, 80), -11.5)}, AXES), tmp_path / "mel.png")


LOG = [
    {"kind": "train", "step": 1, "mel": 2.0, "kl": 0.5, "convergence": "warming", "spiked": True},
    {"kind": "validation", "step": 2, "mel": 3.0, "mel_l1": 1.0},
    {"kind": "train", "step": 3, "mel": math.nan, "kl": 1e-4},
    {"kind": "train", "step": 5, "mel": 1.0, "kl": 0.1},
]


def test_curves_draw_numbers_and_nothing_else(tmp_path: Path) -> None:
    figure = plots.curves_figure(LOG, label=label)
    assert figure is not None
    panels = {axes.get_title("left"): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == ["mel", "kl", "mel L1"]
    lines = {line.get_label(): line for line in panels["mel"].get_lines()}
    assert lines["train"].get_xdata().tolist() == [1, 3, 5]
    assert np.array_equal(lines["train"].get_ydata(), [2.0, np.nan, 1.0], equal_nan=True)
    assert lines["validation"].get_ydata().tolist() == [3.0]
    assert lines["train"].get_color() != lines["validation"].get_color()
    # The gap is marked where it is.
    assert lines["_bad"].get_xdata() == [3]
    assert panels["kl"].get_yscale() == "log"
    assert panels["mel"].get_yscale() == "linear"
    plots.save(figure, tmp_path / "curves.png")


def test_curves_of_chosen_names_keep_their_colours() -> None:
    figure = plots.curves_figure(LOG, ["mel_l1", "absent", "kl"], label)
    assert figure is not None
    assert [axes.get_title("left") for axes in figure.axes] == ["mel L1", "kl"]
    validation, train = (axes.get_lines()[0] for axes in figure.axes)
    assert (train.get_color(), validation.get_color()) == plots.PALETTE[:2]


def test_nothing_to_draw() -> None:
    assert plots.curves_figure([]) is None
    assert plots.curves_figure(LOG, ["absent"]) is None


def test_learning_rate() -> None:
    figure = plots.learning_rate_figure([0, 10, 20], [0.0, 1e-3, 5e-4])
    assert figure.axes[0].get_lines()[0].get_ydata().tolist() == [0.0, 1e-3, 5e-4]


def test_a_failed_picture_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = plots.learning_rate_figure([0, 1], [1.0, 1.0])
    figure.savefig = None  # type: ignore[assignment, method-assign]
    with pytest.raises(TypeError):
        plots.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_matplotlib_waits_for_the_first_picture() -> None:
    code = (
        "import sys, ttsfast.pages.plots, ttsfast.evaluation.validate;"
        "sys.exit(sum(name in sys.modules for name in ('matplotlib', 'librosa', 'soundfile')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pictures_leave_global_settings_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.mel_figure({"a": np.zeros((4, 80))}, AXES)
    plots.curves_figure(LOG, label=label)
    assert dict(matplotlib.rcParams) == before


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
