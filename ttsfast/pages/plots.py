"""Pictures of alignments, mels and training curves.

Every function returns a figure that belongs to nobody (no pyplot, no global state, no display), to save
with :func:`save` or to hand to TensorBoard. Colours are perceptually uniform (viridis, magma) or from the
palette of Okabe and Ito (2008), which colour-blind readers can tell apart. matplotlib is imported on the
first call.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

# DejaVu Sans comes with matplotlib and has Arabic script and phonetic letters: pictures look alike anywhere.
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#444444",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
}


def alignment_figure(
    attention: np.ndarray, symbols: Sequence[str] | None = None, seconds: float | None = None, title: str = ""
) -> Figure:
    """Attention weights: time along x, the text along y from bottom to top.

    Args:
        attention: (S, N)
        symbols: N of them, as they are to be shown; positions are counted where None.
        seconds: what the S steps last; steps are counted where None.
        title: above the picture.
    """
    steps, count = attention.shape
    with _style():
        figure = _figure(5.4, 3.7)
        axes = figure.add_subplot()
        image = axes.imshow(
            attention.T,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap="viridis",
            vmin=0.0,
            vmax=max(0.5, float(attention.max())),
            extent=(0.0, steps if seconds is None else seconds, -0.5, count - 0.5),
        )
        if symbols is None:
            axes.set_ylabel("symbol")
        else:
            # Beyond this many the letters would touch.
            every = math.ceil(count / 36)
            axes.set_yticks(range(0, count, every), [symbol_label(s) for s in symbols[::every]])
            axes.tick_params(axis="y", labelsize=6.5 if count > 18 else 8, length=2)
        axes.set(xlabel="decoder step" if seconds is None else "time (s)", title=title)
        _colour_bar(figure, image, axes, "attention")
    return figure


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
    with _style():
        figure = _figure(5.4, 0.55 + 1.05 * len(mels))
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


def curves_figure(
    records: Sequence[Mapping[str, Any]],
    names: Sequence[str] | None = None,
    label: Callable[[str], str] = str,
) -> Figure | None:
    """Scalars of a training log over its steps, one small panel per scalar.

    Scalars of one name under different kinds share a panel, a line for each kind. A value that is not
    finite is a gap in its line, with a cross on the panel's upper edge. A positive scalar that spans more
    than a hundredfold gets a logarithmic axis.

    Args:
        records: one per log line: ``step``, ``kind`` and numbers; anything else in them is ignored.
        names: the scalars to draw, in this order, where the log has them; all when None.
        label: from a scalar's name to the title of its panel.

    Returns:
        None when there is nothing to draw.
    """
    series = _series(records)
    if names is not None:
        series = {name: series[name] for name in names if name in series}
    if not series:
        return None
    columns = len(series) if len(series) <= 4 else 3
    rows = -(-len(series) // columns)
    # The same kind has the same colour in every picture.
    kinds = list(dict.fromkeys(["train", "validation", *(k for lines in series.values() for k in lines)]))
    with _style():
        figure = _figure(10.8, 2.1 * rows)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, lines) in zip(panels, series.items(), strict=False):
            for kind, (steps, values) in lines.items():
                _line(axes, steps, values, PALETTE[kinds.index(kind) % len(PALETTE)], kind)
            axes.set_title(label(name))
            axes.grid(axis="y")
            axes.margins(x=0.02)
            _scale(axes, lines)
        for axes in panels[len(series) :]:
            axes.set_visible(False)
        for axes in panels[max(0, len(series) - columns) : len(series)]:
            axes.set_xlabel("step")
        handles = {handle.get_label(): handle for axes in panels for handle in axes.get_lines()}
        shown = [kind for kind in kinds if kind in handles]
        if len(shown) > 1:
            figure.legend(
                [handles[kind] for kind in shown],
                shown,
                loc="outside upper right",
                ncols=len(shown),
                frameon=False,
            )
    return figure


def learning_rate_figure(steps: Sequence[int], rates: Sequence[float]) -> Figure:
    """The learning rate over the steps."""
    with _style():
        figure = _figure(10.8, 2.3)
        axes = figure.add_subplot()
        axes.plot(steps, rates, color=PALETTE[0], linewidth=1.6)
        axes.set(xlabel="step", title="learning rate")
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.set_ylim(bottom=0.0)
        axes.margins(x=0.02)
        axes.grid(axis="y")
    return figure


def save(figure: Figure, path: Path) -> tuple[int, int]:
    """Write ``figure`` as a PNG, atomically; return its width and height in pixels."""
    dots = 180
    with atomic_write(path) as handle:
        figure.savefig(handle, format="png", dpi=dots)
    width, height = figure.get_size_inches()
    return round(width * dots), round(height * dots)


def symbol_label(symbol: str) -> str:
    """``symbol`` as a tick label: a space visible, a mark on a circle, what has no glyph by code point."""
    if symbol.isspace():
        return "␣"
    shown = "\u25cc" + symbol if unicodedata.combining(symbol[0]) else symbol
    if all(ord(character) in _known_characters() and character.isprintable() for character in shown):
        # A dollar sign would start mathematics.
        return shown.replace("$", r"\$")
    return " ".join(f"U+{ord(character):04X}" for character in symbol)


@lru_cache(maxsize=1)
def _known_characters() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _figure(width: float, height: float) -> Figure:
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


def _series(
    records: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
    """name -> kind -> (steps, values), in order of first appearance."""
    series: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for record in records:
        for name, value in record.items():
            if name == "step" or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            lines = series.setdefault(name, {})
            steps, values = lines.setdefault(str(record.get("kind", "")), ([], []))
            steps.append(int(record["step"]))
            values.append(float(value))
    return series


def _line(axes: Axes, steps: list[int], values: list[float], colour: str, kind: str) -> None:
    finite = np.array([v if math.isfinite(v) else np.nan for v in values])
    marker = "o" if len(values) <= 20 else None
    axes.plot(steps, finite, color=colour, linewidth=1.4, marker=marker, markersize=3, label=kind)
    bad = [step for step, value in zip(steps, finite, strict=True) if np.isnan(value)]
    if bad:
        height = np.full(len(bad), 0.98)
        axes.plot(
            bad,
            height,
            "x",
            color="#B00020",
            markersize=5,
            transform=axes.get_xaxis_transform(),
            label="_bad",
        )


def _scale(axes: Axes, lines: Mapping[str, tuple[list[int], list[float]]]) -> None:
    values = np.array([v for _, line in lines.values() for v in line if math.isfinite(v)])
    if values.size and values.min() > 0 and values.max() / values.min() > 100:
        axes.set_yscale("log")
