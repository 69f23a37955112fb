"""The page of ``ttsfast inspect --output``: one file with its pictures inside, no script, nothing fetched."""

from __future__ import annotations

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
from ttsfast.data.store.texts import written_texts
from ttsfast.files import atomic_write
from ttsfast.pages.document import Picture, cards, document, pairs, picture, section, sentence, wide
from ttsfast.pages.plots import PALETTE, blank, mel_figure, size, style, svg, symbol_label

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
    with style():
        plots = _plots(inspection, seconds, rate, split)
    listed = [(e.id, e.reason, e.detail) for e in inspection.exclusions[:_LISTED]]
    if more := len(inspection.exclusions) - len(listed):
        listed.append((f"... and {more} more, in the manifest", "", ""))
    first, *others = inspection.tables()
    sections = [
        ("Store", _html(first)),
        *((table.title.capitalize(), _html(table)) for table in others),
        ("Plots", f'<div class="card pictures">{"".join(plots)}</div>'),
        ("Samples", "".join(_samples(store, rate))),
    ]
    if listed:
        sections.append(("Left out, one by one", cards(("utterance", "reason", "detail"), listed)))
    return document(
        title=inspection.store,
        subtitle="What is inside this feature store",
        body="".join(section(f"part-{n}", name, content) for n, (name, content) in enumerate(sections)),
        footer="Written by ttsfast inspect.",
    )


def _plots(inspection: Inspection, seconds: np.ndarray, rate: np.ndarray, split: np.ndarray) -> list[str]:
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
    return plots


def _html(table: Table) -> str:
    if not table.columns:
        return f'<div class="card">{pairs({row[0]: row[1] for row in table.rows})}</div>'
    if not table.numbers:
        return cards(table.columns, table.rows)
    first, *others = table.columns
    heads = "".join(f'<th scope="col" class="number">{escape(name)}</th>' for name in others)
    rows = "".join(
        f'<tr><th scope="row"><bdi>{escape(name)}</bdi></th>'
        + "".join(f'<td class="number">{escape(value)}</td>' for value in values)
        + "</tr>"
        for name, *values in table.rows
    )
    head = f'<thead><tr><th scope="col">{escape(first)}</th>{heads}</tr></thead>'
    table_html = f"<table>{head}<tbody>{rows}</tbody></table>"
    return f'<div class="card">{wide(table_html, table.title)}</div>'


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
    written, frontend = written_texts(store) if store.frontend.phonemes else {}, store.frontend
    for why, index in chosen.items():
        utterance = store[int(index)]
        log_mel = utterance.mel.astype(np.float32) * store.mel_std + store.mel_mean
        figure = mel_figure({f"{len(log_mel)} frames": log_mel}, mel_axes(store.contract))
        held = store.entries.text[int(index)]
        if utterance.id in written:
            said = sentence(written[utterance.id], frontend.language, held)
        else:
            said = sentence(held, frontend.language + ("-fonipa" if frontend.phonemes else ""))
        yield (
            f'<article class="card sample"><h3 class="soft"><bdi>{escape(utterance.id)}</bdi>, {why}</h3>'
            f"{said}{_picture(figure, f'{rate[index]:.1f} frames per symbol')}</article>"
        )


def _picture(figure: Figure, caption: str) -> str:
    image = svg(figure)
    source = f"data:image/svg+xml;base64,{b64encode(image).decode()}"
    return picture(Picture(source, *size(figure), alt=caption, caption=caption))


def _axes(height: float = 2.4) -> tuple[Figure, Any]:
    figure = blank(3.9, height)
    return figure, figure.add_subplot()


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
    axes.set_xlabel(name)
    axes.set_ylabel("utterances")
    axes.legend()
    return figure


def _statistics(inspection: Inspection) -> Figure:
    figure, axes = _axes()
    mean, std = np.array(inspection.mel_mean), np.array(inspection.mel_std)
    bins = np.arange(len(mean))
    axes.fill_between(bins, mean - std, mean + std, color=PALETTE[4], alpha=0.4, label="± deviation")
    axes.plot(bins, mean, color=PALETTE[0], linewidth=1.4, label="mean")
    axes.set_xlabel("bin")
    axes.set_ylabel("log-mel")
    axes.legend()
    return figure


def _bars(values: Any, name: str) -> Figure:
    shown = list(values.items())[:_BARS]
    figure, axes = _axes()
    axes.bar(range(len(shown)), [value for _, value in shown], color=PALETTE[0])
    labels: Sequence[str] = [symbol_label(key) if len(key) == 1 else _short(key) for key, _ in shown]
    axes.set_xticks(range(len(shown)), labels)
    for label in axes.get_xticklabels():
        label.set(rotation=90 if len(label.get_text()) > 2 else 0, fontsize=8)
    axes.set_ylabel(name)
    if len(values) > len(shown):
        axes.set_title(f"{len(shown)} of {len(values)}")
    return figure


def _short(name: str) -> str:
    # A dollar sign would start mathematics.
    return (name if len(name) <= 14 else name[:13] + "…").replace("$", r"\$") or "(no name)"
