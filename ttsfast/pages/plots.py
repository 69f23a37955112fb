"""Pictures of alignments and mels, and what all pictures share.

Every function returns a figure that belongs to nobody (no pyplot, no global state, no display), to write
with :func:`save` or :func:`svg` or to hand to TensorBoard. Figures are small, so that their letters can still
be read where a page is as narrow as a phone. Colours are perceptually uniform (viridis, magma) or from the
palette of Okabe and Ito (2008), which colour-blind readers can tell apart. matplotlib is imported on the
first call.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#57606a")
INK, GRID = "#3d444d", "#d9dee4"
BAD = "#b00020"
_IN_THE_DARK = {
    INK: "#d5dbe2",
    GRID: "#39424d",
    BAD: "#ff9aa5",
    PALETTE[0]: "#4fa8e8",
    PALETTE[1]: "#ff8c42",
    PALETTE[2]: "#2fc79c",
    PALETTE[3]: "#e6a5cb",
    PALETTE[6]: "#9aa4b0",
}
"""What an SVG shows in place of a colour where its reader prefers dark pages."""
GROUND_IN_THE_DARK = "#171b21"

# DejaVu Sans comes with matplotlib and has Arabic script and phonetic letters: pictures look alike anywhere.
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    # Names in the file that are the same every time.
    "svg.hashsalt": "ttsfast",
}


_NAMED = 30
"""Labels along an axis beyond which their letters would touch."""
_LONGEST_WORD = 14


def alignment_figure(
    attention: np.ndarray, symbols: Sequence[str] | None = None, seconds: float | None = None, title: str = ""
) -> Figure:
    """Attention weights: time along x, the text along y from bottom to top.

    Args:
        attention: (S, N)
        symbols: N of them; a text of many is labelled by its words. Positions are counted where None.
        seconds: what the S steps last; steps are counted where None.
        title: above the picture.
    """
    steps = len(attention)
    labels = None if symbols is None else _labels(symbols)
    with style():
        figure = blank(3.9, min(5.0, max(2.9, 0.8 + 0.14 * len(labels or ()))))
        axes = figure.add_subplot()
        image = draw_attention(axes, attention, steps if seconds is None else seconds)
        if labels is None:
            axes.set_ylabel("symbol")
        else:
            axes.set_yticks([place for place, _ in labels], [label for _, label in labels])
            axes.tick_params(axis="y", labelsize=8, length=2)
        axes.set(xlabel="decoder step" if seconds is None else "time (s)", title=title)
        _colour_bar(figure, image, axes, "attention")
    return figure


def draw_attention(axes: Axes, attention: np.ndarray, end: float) -> AxesImage:
    """Weights (S, N) into ``axes``: time along x, from 0 to ``end``, the text along y."""
    return axes.imshow(
        attention.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0.0,
        vmax=max(0.5, float(attention.max())),
        extent=(0.0, end, -0.5, attention.shape[1] - 0.5),
    )


@dataclass(frozen=True)
class MelAxes:
    """What the two axes and the colours of a log-mel's picture mean."""

    frame_seconds: float
    """from one frame to the next"""
    frequencies: np.ndarray
    """(C,) Hz, the centre of each bin"""
    unit: str


def mel_figure(mels: Mapping[str, np.ndarray], axes: MelAxes) -> Figure:
    """Log-mels one above the other, on one colour scale and one time axis in seconds, frequency in Hz.

    Args:
        mels: title to (T, C); the first sets the colour scale.
        axes: of all.
    """
    first = next(iter(mels.values()))
    low, high = np.percentile(first, [2.0, 99.8])
    longest = max(len(mel) for mel in mels.values())
    frame = axes.frame_seconds
    with style():
        figure = blank(3.9, 0.55 + 0.9 * len(mels))
        panels = figure.subplots(len(mels), 1, sharex=True, squeeze=False)[:, 0]
        ticks, names = _frequency_ticks(axes.frequencies)
        for panel, (name, mel) in zip(panels, mels.items(), strict=True):
            image = panel.imshow(
                mel.T,
                origin="lower",
                aspect="auto",
                interpolation="nearest",
                cmap="magma",
                vmin=low,
                vmax=max(high, low + 1e-6),
                extent=(0.0, len(mel) * frame, -0.5, mel.shape[1] - 0.5),
            )
            panel.set(title=name, ylabel="Hz", xlim=(0.0, longest * frame))
            panel.set_yticks(ticks, names)
        panels[-1].set_xlabel("time (s)")
        _colour_bar(figure, image, list(panels), axes.unit)
    return figure


def save(figure: Figure, path: Path) -> tuple[int, int]:
    """Write ``figure`` as a PNG, atomically; return its width and height in pixels."""
    dots = 180
    with atomic_write(path) as handle:
        figure.savefig(handle, format="png", dpi=dots)
    width, height = figure.get_size_inches()
    return round(width * dots), round(height * dots)


def svg(figure: Figure) -> bytes:
    """``figure`` as an SVG without a ground of its own, in colours for light and for dark pages."""
    buffer = io.BytesIO()
    with style():
        # Its dots are those of the images in it.
        figure.savefig(buffer, format="svg", dpi=160, transparent=True, metadata={"Date": None})
    swaps = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark} !important}}'
        for light, dark in _IN_THE_DARK.items()
        for part in ("fill", "stroke")
    )
    # The ground is for a reader who opens the picture by itself.
    sheet = (
        f"<style>@media (prefers-color-scheme: dark){{svg{{background:{GROUND_IN_THE_DARK}}}{swaps}}}</style>"
    )
    before, defs, after = buffer.getvalue().partition(b"<defs>")
    return before + sheet.encode() + defs + after


def size(figure: Figure) -> tuple[int, int]:
    """Width and height of a figure's SVG in pixels, at the 96 an inch that browsers take."""
    width, height = figure.get_size_inches()
    return round(width * 96), round(height * 96)


def save_svg(figure: Figure, path: Path) -> tuple[int, int]:
    """Write :func:`svg`, atomically; return :func:`size`."""
    with atomic_write(path) as handle:
        handle.write(svg(figure))
    return size(figure)


def symbol_label(symbol: str) -> str:
    """``symbol`` as a tick label: a space visible, a mark on a circle, what has no glyph by code point."""
    if symbol.isspace():
        return "␣"
    shown = "\u25cc" + symbol if unicodedata.combining(symbol[0]) else symbol
    if all(ord(character) in _known_characters() and character.isprintable() for character in shown):
        # A dollar sign would start mathematics.
        return shown.replace("$", r"\$")
    return " ".join(f"U+{ord(character):04X}" for character in symbol)


def _labels(symbols: Sequence[str]) -> list[tuple[int, str]]:
    """Where to write what beside a text's symbols: a text too long to name each by its words."""
    if len(symbols) <= _NAMED:
        return [(place, symbol_label(symbol)) for place, symbol in enumerate(symbols)]
    words = []
    for is_space, group in groupby(enumerate(symbols), key=lambda item: item[1].isspace()):
        places, letters = zip(*group, strict=True)
        if not is_space:
            words.append((places[len(places) // 2], _word_label(letters)))
    # Drawn letter by letter, from left to right, a word of a script that runs the other way is none.
    backwards = {"R", "AL"} & {unicodedata.bidirectional(c) for c in "".join(symbols)}
    named = (
        words if len(words) > 1 and not backwards else [(i, symbol_label(s)) for i, s in enumerate(symbols)]
    )
    apart = named[:1]
    for place, name in named[1:]:
        if place - apart[-1][0] >= len(symbols) / _NAMED:
            apart.append((place, name))
    return apart


def _word_label(letters: Sequence[str]) -> str:
    shown = "".join(map(symbol_label, letters[:_LONGEST_WORD]))
    return shown if len(letters) <= _LONGEST_WORD else shown + "…"


@lru_cache(maxsize=1)
def _known_characters() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def style() -> Any:
    """A context in which figures are drawn."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _colour_bar(figure: Figure, image: Any, axes: Axes | list[Axes], name: str) -> None:
    bar = figure.colorbar(image, ax=axes, label=name, pad=0.02, aspect=30)
    bar.outline.set_visible(False)


def _frequency_ticks(frequencies: np.ndarray) -> tuple[list[float], list[str]]:
    """Where some round frequencies lie, in mel bins, and their names."""
    wanted = [f for f in (500, 1000, 2000, 4000, 8000) if frequencies[0] <= f <= frequencies[-1] * 1.02]
    places = np.interp(wanted, frequencies, np.arange(len(frequencies)))
    return places.tolist(), [str(f) for f in wanted]
