"""What a training log shows over its steps: of one run in its report, of several in a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ttsfast.evaluation.targets import DEFINITIONS, FROM_FREE_RUNNING, label
from ttsfast.pages.curves import Line, Series, curve_figure, series
from ttsfast.pages.document import Picture, folded, picture
from ttsfast.pages.plots import PALETTE, save_svg
from ttsfast.terms.spec import TERMS

BESIDE = {"mel": "mel_l1", "stop": "stop_f1", "attention": "diagonal_mass"}
"""For a term of the loss, the held-out figure that should improve with it."""
TRAINER = ("gradient_norm", "learning_rate", "frames_per_second", "loader_wait_percent")
TRAINING, HELD_OUT = "train", "validation"


@dataclass(frozen=True)
class _Panel:
    title: str
    training: str = ""
    """A scalar of the training steps, drawn at the left."""
    held_out: str = ""
    """A scalar of the validations."""


def curves(logs: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path, at: str) -> str:
    """Draw training logs, and return the part of a page that shows them; empty where there is nothing.

    Args:
        logs: by the run's name, for at most as many runs as :data:`PALETTE` has colours; a mapping for each
            line with ``kind``, ``step`` and scalars.
        folder: where to write the pictures; it is made.
        at: that folder, relative to the page.
    """
    read = {name: series(log) for name, log in logs.items()}
    known = dict.fromkeys(name for lines in read.values() for name in lines)
    losses = {term: f"excess_{term}" if f"excess_{term}" in known else term for term in TERMS}
    beside = [
        _Panel("total loss", "total"),
        *(_Panel(label(term), losses[term], BESIDE[term]) for term in TERMS if term in BESIDE),
        _Panel("monotonicity", held_out="monotonicity"),
    ]
    spoken = [name for name in DEFINITIONS if name in FROM_FREE_RUNNING]
    others = [losses[term] for term in TERMS if term not in BESIDE]
    others += [*TRAINER, *sorted(name for name in known if name.startswith("weight_"))]
    places = count()
    parts = [
        _drawn(panels, read, folder, at, places)
        for panels in (
            beside,
            [_Panel(label(name), held_out=name) for name in spoken],
            [_Panel(label(name), training=name) for name in others],
        )
    ]
    headed = [
        f'<h3>{heading}</h3>\n<div class="curves">{part}</div>\n'
        for heading, part in zip(
            ("The loss, and held-out figures beside it (dashed)", "Held-out text, spoken freely"),
            parts,
            strict=False,
        )
        if part
    ]
    if parts[-1]:
        headed.append(folded("Rate, weights and speed", f'<div class="curves">{parts[-1]}</div>'))
    return "".join(headed)


def _drawn(
    panels: Iterable[_Panel], read: Mapping[str, Series], folder: Path, at: str, places: Iterator[int]
) -> str:
    pictures = []
    for panel in panels:
        training = _lines(read, panel.training, TRAINING)
        held_out = _lines(read, panel.held_out, HELD_OUT, right=bool(training))
        if not training and not held_out:
            continue
        left = right = ""
        if training and held_out:
            left = "training loss" + (" above its floor" if panel.training.startswith("excess") else "")
            right = f"held-out {label(panel.held_out)}"
        folder.mkdir(parents=True, exist_ok=True)
        file = f"{next(places):02d}.svg"
        size = save_svg(curve_figure(training + held_out, left, right), folder / file)
        what = " and ".join(label(name) for name in (panel.training, panel.held_out) if name)
        pictures.append(
            picture(Picture(f"{at}/{file}", *size, alt=f"{what}, over training steps", caption=panel.title))
        )
    return "".join(f'<div class="card">{drawn}</div>' for drawn in pictures)


def _lines(read: Mapping[str, Series], name: str, kind: str, *, right: bool = False) -> list[Line]:
    """Of one scalar, a line for each run: several runs by colour, one by whether it is held out."""
    alone = len(read) == 1
    lines = []
    for place, (run, lines_of) in enumerate(read.items()):
        if kind in lines_of.get(name, {}):
            colour = PALETTE[int(kind == HELD_OUT) if alone else place]
            lines.append(Line(run, *lines_of[name][kind], colour=colour, right=right))
    return lines
