"""Pictures: drawn to files, with what they were given in them, and nothing global touched."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.filterbank import mel_axes
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
    assert 15 <= len(axes.get_yticks()) <= 30


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("it was the best of times, it was the worst of times", ["it", "was", "the", "best", "of", "times,"]),
        ("a\u0303b ˈcɑː " * 12 + "x" * 20, ["\u0303b", "ˈcɑː", "x" * 14 + "…"]),
    ],
)
def test_a_long_text_is_labelled_by_its_words(text: str, shown: list[str]) -> None:
    axes = plots.alignment_figure(np.full((9, len(text)), 0.1), list(text), 1.0).axes[0]
    labels = {tick.get_text() for tick in axes.get_yticklabels()}
    for wanted in shown:
        assert any(wanted in label for label in labels), wanted
    places = axes.get_yticks()
    assert (np.diff(places) >= len(text) / 30).all()


def test_words_that_run_the_other_way_are_not_spelt_backwards() -> None:
    symbols = PERSIAN * 4
    axes = plots.alignment_figure(np.full((9, len(symbols)), 0.1), symbols, 1.0).axes[0]
    assert {tick.get_text() for tick in axes.get_yticklabels()} <= {plots.symbol_label(s) for s in symbols}


def test_an_svg_fits_light_and_dark_pages(tmp_path: Path) -> None:
    figure = plots.mel_figure({"silence": np.zeros((5, 80))}, AXES)
    assert plots.save_svg(figure, tmp_path / "mel.svg") == plots.size(figure)
    drawn = (tmp_path / "mel.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(drawn)
    style = drawn.split("<style>@media (prefers-color-scheme: dark){")[1].split("</style>")[0]
    colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawn.replace(style, "")))
    # No ground, and no colour, but of the colour bar, that is not exchanged in the dark.
    assert "#ffffff" not in colours
    assert plots.INK in colours
    for colour in colours:
        assert f'[style*="stroke: {colour}"]' in style
    assert plots.svg(plots.mel_figure({"silence": np.zeros((5, 80))}, AXES)) == drawn.encode()


def test_a_failed_picture_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = plots.alignment_figure(np.eye(3))
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
    assert dict(matplotlib.rcParams) == before


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
