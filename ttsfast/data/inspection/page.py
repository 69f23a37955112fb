"""The page of ``ttsfast inspect --output``: one file with its pictures inside, no script, nothing fetched."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast.data.corpus.split import SPLITS
from ttsfast.data.features.filterbank import mel_axes
from ttsfast.data.inspection.summary import Inspection, Table
from ttsfast.data.store.store import Store
from ttsfast.files import atomic_write
from ttsfast.pages.plots import PALETTE, mel_figure
from ttsfast.pages.style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LISTED = 200
"""Exclusions on the page; the manifest has all of them."""
_BARS = 30


def write_page(path: Path, store: Store, inspection: Inspection) -> None:
    """Write the page; raises InputError when a sample cannot be read."""
    with atomic_write(path) as handle:
        handle.write(page(store, inspection).encode())


def page(store: Store, inspection: Inspection) -> str:
    """The whole document."""
    split = np.array(store.entries.split)
    seconds = store.frames * store.contract.hop_length / store.contract.sample_rate
    rate = store.frames / store.text_lengths
    plots = [
        _picture(_histogram(seconds, split, "seconds"), "Length of the utterances"),
        _picture(
            _histogram(rate, split, "frames per symbol"), "Frames per symbol: what lies apart is suspicious"
        ),
        _picture(
            _statistics(inspection), "Mean and deviation of each bin: what the features are normalised by"
        ),
        _picture(_bars(inspection.characters, "how often"), "Symbols, the most frequent first"),
    ]
    if len(inspection.speakers) > 1:
        hours = {name: values["hours"] for name, values in inspection.speakers.items()}
        plots.append(_picture(_bars(hours, "hours"), "Speakers, by hours"))
    listed = [(e.id, e.reason, e.detail) for e in inspection.exclusions[:_LISTED]]
    if more := len(inspection.exclusions) - len(listed):
        listed.append((f"... and {more} more, in the manifest", "", ""))
    first, *others = inspection.tables()
    sections = [
        ("Store", _html(first)),
        *((table.title.capitalize(), _html(table)) for table in others),
        ("Plots", f'<div class="pictures">{"".join(plots)}</div>'),
        ("Samples", "".join(_samples(store, rate))),
    ]
    if listed:
        columns = ("utterance", "reason", "detail")
        sections.append(("Left out, one by one", _html(Table("", columns, listed))))
    body = "".join(f"<section><h2>{escape(name)}</h2>{content}</section>\n" for name, content in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ttsfast">
<title>{escape(inspection.store)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1><bdi>{escape(inspection.store)}</bdi></h1>
<p class="soft">What is inside this feature store</p></header>
<main>
{body}</main>
<footer>Written by ttsfast inspect.</footer>
</body>
</html>
"""


def _html(table: Table) -> str:
    def cell(place: int, text: str) -> str:
        if not table.columns and not place:
            return f'<th scope="row">{escape(text)}</th>'
        kind = "number" if table.numbers and place else "wrap"
        return f'<td class="{kind}"><bdi>{escape(text)}</bdi></td>'

    numeric = ' class="number"' if table.numbers else ""
    head = "".join(
        f'<th scope="col"{numeric if place else ""}>{escape(name)}</th>'
        for place, name in enumerate(table.columns)
    )
    rows = "".join(f"<tr>{''.join(cell(i, text) for i, text in enumerate(row))}</tr>" for row in table.rows)
    kind = "" if table.columns else ' class="pairs"'
    return (
        f'<div class="card scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div>"
    )


def _samples(store: Store, rate: np.ndarray) -> Iterable[str]:
    """The extremes and the middle of the lengths, and of the frames per symbol."""
    lengths, rates = np.argsort(store.frames, kind="stable"), np.argsort(rate, kind="stable")
    chosen = {
        "the shortest": lengths[0],
        "of median length": lengths[len(lengths) // 2],
        "the longest": lengths[-1],
        "the most frames per symbol": rates[-1],
        "the fewest frames per symbol": rates[0],
    }
    language = escape(store.frontend.language)
    for why, index in chosen.items():
        utterance = store[int(index)]
        log_mel = utterance.mel.astype(np.float32) * store.mel_std + store.mel_mean
        figure = mel_figure({f"{len(log_mel)} frames": log_mel}, mel_axes(store.contract))
        text = escape(store.entries.text[int(index)])
        yield (
            f'<article class="card sample"><h3 class="soft"><bdi>{escape(utterance.id)}</bdi>, {why}</h3>'
            f'<p class="text" dir="auto" lang="{language}">{text}</p>'
            f"{_picture(figure, f'{rate[index]:.1f} frames per symbol')}</article>"
        )


def _picture(figure: Figure, caption: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    data = b64encode(buffer.getvalue()).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">'
    return f"<figure><a>{image}</a><figcaption>{escape(caption)}</figcaption></figure>"


def _axes(height: float = 2.6) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def _histogram(values: np.ndarray, split: np.ndarray, name: str) -> Figure:
    figure, axes = _axes()
    names = [name for name in SPLITS if (split == name).any()]
    groups = [values[split == name] for name in names]
    counts, _, _ = axes.hist(
        groups, bins=min(50, max(8, len(values) // 8)), stacked=True, color=PALETTE[: len(names)], label=names
    )
    top = int(np.max(counts))
    if top > 30:
        # A few utterances that lie apart must be seen beside many.
        axes.set_yscale("symlog", linthresh=3)
        ticks = [tick for power in range(8) for tick in (10**power, 3 * 10**power) if tick <= top]
        axes.set_yticks([0, *ticks], [str(tick) for tick in (0, *ticks)])
        axes.minorticks_off()
    else:
        axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(name, fontsize=9)
    axes.set_ylabel("utterances", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _statistics(inspection: Inspection) -> Figure:
    figure, axes = _axes()
    mean, std = np.array(inspection.mel_mean), np.array(inspection.mel_std)
    bins = np.arange(len(mean))
    axes.fill_between(bins, mean - std, mean + std, color=PALETTE[4], alpha=0.4, label="± deviation")
    axes.plot(bins, mean, color=PALETTE[0], linewidth=1.4, label="mean")
    axes.set_xlabel("bin", fontsize=9)
    axes.set_ylabel("log-mel", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _bars(values: Any, name: str) -> Figure:
    from ttsfast.pages.plots import symbol_label

    shown = list(values.items())[:_BARS]
    figure, axes = _axes()
    axes.bar(range(len(shown)), [value for _, value in shown], color=PALETTE[0])
    labels: Sequence[str] = [symbol_label(key) if len(key) == 1 else _short(key) for key, _ in shown]
    axes.set_xticks(range(len(shown)), labels)
    for label in axes.get_xticklabels():
        label.set_rotation(90 if len(label.get_text()) > 2 else 0)
    axes.set_ylabel(name, fontsize=9)
    if len(values) > len(shown):
        axes.set_title(f"{len(shown)} of {len(values)}", fontsize=9, loc="left")
    return figure


def _short(name: str) -> str:
    # A dollar sign would start mathematics.
    return (name if len(name) <= 14 else name[:13] + "…").replace("$", r"\$") or "(no name)"
