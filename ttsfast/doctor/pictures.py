"""What findings look like: an utterance as wave, mel and sound, and a corpus as a distribution."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ttsfast.data.checks.check import Row, Subject
from ttsfast.data.checks.clip import ClipFigures
from ttsfast.data.checks.durations import said
from ttsfast.data.checks.finding import Evidence, Finding
from ttsfast.data.corpus.audio import read_samples, resample_audio
from ttsfast.data.features.filterbank import mel_axes
from ttsfast.data.features.mel import log_mel
from ttsfast.doctor.page import evidence_table
from ttsfast.errors import InputError
from ttsfast.pages.document import Picture, folded, picture, sentence
from ttsfast.pages.plots import BAD, INK, PALETTE, blank, mel_figure, size, style, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEARD = 3
"""Utterances of a finding with pictures and sound; a page of ten findings is then some megabytes."""
HEARD = 8.0
"""Seconds of a recording that are played, about the place that a finding names."""
_FIGURES: dict[str, tuple[str, Callable[[ClipFigures], float]]] = {
    "clipping": ("% of samples in flat tops", lambda f: 100 * f.clipped),
    "noise": ("dB between speech and noise", lambda f: f.snr),
    "level": ("level in dB of full scale", lambda f: f.level),
    "silent": ("peak", lambda f: f.peak),
    "dc offset": ("mean over deviation", lambda f: f.offset),
    "band": ("highest frequency in kHz", lambda f: f.band / 1000),
    "pause": ("longest pause in seconds", lambda f: f.pause),
    "silence at the ends": ("silence at both ends in seconds", lambda f: f.before + f.after),
    "hole": ("seconds of digital silence", lambda f: f.gap),
    "cut off": ("dB of the nearer end below the loudest", lambda f: min(f.start, f.end)),
}
"""What a check goes by, where that is one figure of a recording."""


class Illustrations:
    """What a page shows of a dataset's findings; see :class:`ttsfast.doctor.page.Illustrate`."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._texts = {row.id: row.text for row in subject.rows}
        self._heard = {row.id: row for row in subject.rows if row.audio and row.figures is not None}
        self.about: Mapping[str, str] = {"language": subject.language}

    def __call__(self, finding: Finding) -> str:
        """The worst utterances as a table, how they lie beside the rest, and some to see and hear."""
        table = evidence_table(finding, ("utterance", "what was seen", "its text"), self._texts)
        if lies := distribution(finding, self._subject):
            table += f'<div class="pictures after">{lies}</div>'
        heard = [one for one in finding.evidence if one.id in self._heard][:_HEARD]
        return table + "".join(map(self._utterance, heard))

    def _utterance(self, one: Evidence) -> str:
        row = self._heard[one.id]
        said = sentence(row.text, self._subject.language)
        return folded(f"{one.id}: {one.what}", said + utterance(row, one.at, self._subject))


def distribution(finding: Finding, subject: Subject) -> str:
    """How what was found lies beside the rest, a picture in HTML; empty where it is no matter of figures."""
    marked = set(finding.ids)
    if finding.check in ("duration", "shifted", "few frames"):
        return embedded(_lengths(marked, subject), "Seconds over letters; marked: what this is about")
    if finding.check not in _FIGURES:
        return ""
    name, figure = _FIGURES[finding.check]
    read = [(row.id in marked, figure(row.figures)) for row in subject.rows if row.figures is not None]
    return embedded(_histogram(read, name), f"All {len(read)} recordings; marked: what this is about")


def utterance(row: Row, at: float | None, subject: Subject) -> str:
    """A recording as wave, mel and player; a line in place of them where it cannot be read."""
    try:
        samples, rate = read_samples(row.audio)
    except InputError as error:
        return f'<p class="soft">{escape(str(error))}</p>'
    wave = samples.mean(axis=1)
    pictures = embedded(_wave(wave, rate, at), f"{len(wave) / rate:.2f} s at {rate} Hz")
    contract = subject.contract
    try:
        mel = log_mel(
            resample_audio(wave, rate, contract.sample_rate) if rate != contract.sample_rate else wave,
            contract,
        )
        pictures += embedded(mel_figure({f"{len(mel)} frames": mel}, mel_axes(contract)), "Its log-mel")
    except InputError as error:
        pictures += f'<p class="soft">{escape(str(error))}</p>'
    return (
        f'<div class="players">{_player(samples, rate, at, row)}</div><div class="pictures">{pictures}</div>'
    )


def embedded(figure: Figure, caption: str) -> str:
    """A figure inside the page."""
    source = f"data:image/svg+xml;base64,{b64encode(svg(figure)).decode()}"
    return picture(Picture(source, *size(figure), alt=caption, caption=caption))


def _player(samples: np.ndarray, rate: int, at: float | None, row: Row) -> str:
    import soundfile

    first = max(0, round(((at or 0.0) - HEARD / 2) * rate)) if len(samples) > HEARD * rate else 0
    excerpt = np.clip(samples[first : first + round(HEARD * rate), :2], -1, 1)
    buffer = io.BytesIO()
    # FLAC: half of a wav, and no codec's own faults beside those that are to be heard.
    soundfile.write(buffer, excerpt, rate, format="FLAC", subtype="PCM_16")
    source = f"data:audio/flac;base64,{b64encode(buffer.getvalue()).decode()}"
    name = escape(row.id)
    return (
        f"<div><p>recording{' (an excerpt)' if len(excerpt) < len(samples) else ''}</p>"
        f'<audio controls preload="none" src="{source}" aria-label="recording of {name}"></audio></div>'
    )


def _wave(wave: np.ndarray, rate: int, at: float | None) -> Figure:
    with style():
        figure = blank(3.9, 1.45)
        axes = figure.add_subplot()
        # As many columns as can be told apart, each from its lowest to its highest sample.
        width = max(1, len(wave) // 800)
        whole = wave[: len(wave) // width * width].reshape(-1, width)
        seconds = np.arange(len(whole)) * width / rate
        axes.fill_between(seconds, whole.min(axis=1), whole.max(axis=1), color=PALETTE[0], linewidth=0.4)
        top = max(1e-4, float(np.abs(wave).max()) * 1.1)
        axes.set(xlabel="time (s)", ylabel="sample", ylim=(-top, top), xlim=(0, len(wave) / rate))
        if at is not None:
            axes.axvline(at, color=BAD, linewidth=1.2)
    return figure


def _histogram(read: list[tuple[bool, float]], name: str) -> Figure:
    with style():
        figure = blank(3.9, 2.2)
        axes = figure.add_subplot()
        rest, marked = (
            [value for found, value in read if not found],
            [value for found, value in read if found],
        )
        axes.hist(
            [rest, marked], bins=30, stacked=True, color=[PALETTE[0], BAD], label=["the rest", "marked"]
        )
        axes.set_yscale("symlog", linthresh=3)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        axes.set(xlabel=name, ylabel="recordings")
        axes.legend()
    return figure


def _lengths(marked: set[str], subject: Subject) -> Figure:
    with style():
        figure = blank(3.9, 2.4)
        axes = figure.add_subplot()
        for chosen, colour, label in ((False, PALETTE[0], "the rest"), (True, BAD, "marked")):
            rows = [row for row in subject.rows if (row.id in marked) == chosen and subject.seconds(row) > 0]
            axes.plot(
                [said(row) for row in rows],
                [subject.seconds(row) for row in rows],
                "o" if chosen else ".",
                color=colour,
                markersize=4 if chosen else 3,
                linestyle="none",
                label=label,
            )
        axes.set_xlabel("letters", color=INK)
        axes.set_ylabel("seconds", color=INK)
        axes.legend()
    return figure
