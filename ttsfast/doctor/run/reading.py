"""Reading what is known of a run: its log, its configuration, and the store it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.config import Config, TrainingConfig, load_config
from ttsfast.data.corpus.split import TRAIN, VALIDATION
from ttsfast.data.store.store import Store, not_there
from ttsfast.doctor.run.curve import Curve
from ttsfast.doctor.run.event_files import PATTERN, event_files, read_event_files
from ttsfast.doctor.run.names import mapped
from ttsfast.doctor.run.subject import Corpus, Run
from ttsfast.doctor.run.tables import read_table
from ttsfast.errors import InputError
from ttsfast.evaluation.log import LOG_NAME, read_log
from ttsfast.files import is_folder

CONFIG_NAME = "config.yaml"
UTTERANCES = 100
"""Held-out ones that baselines are measured on."""


@dataclass(frozen=True)
class Found:
    """A run, and what there is to say of how it was read."""

    run: Run
    how: str
    """A line: where the figures come from, and what became of them."""
    without: tuple[str, ...] = ()
    """Lines on what was not at hand."""


def read_run(place: Path, *, store: Path | None = None, names: Mapping[str, str] | None = None) -> Found:
    """Read a run folder of ours, or a log of another trainer.

    Args:
        place: a run folder, a TensorBoard folder or event file, or a table (csv).
        store: what it was trained on; where the run says when None.
        names: our names for tags of another trainer's log.

    Raises:
        InputError: there is no log, or none of what it holds is known here; or it cannot be read; or
            ``store`` is none.
    """
    if not place.exists():
        raise InputError(f"{place}: there is nothing; give a run folder, TensorBoard's folder, or a csv log")
    if place.name == LOG_NAME:
        place = place.parent
    if is_folder(place) and (place / LOG_NAME).is_file():
        return _ours(place, store)
    corpus = None if store is None else _corpus(Store.open(store), TrainingConfig())
    starts: list[int] = []
    if place.is_file() and not place.match(PATTERN):
        curves, what = read_table(place), "a table"
    else:
        files = event_files(place)
        tables = [] if files or place.is_file() else sorted(place.glob("**/metrics.csv"))
        if not files and not tables:
            raise InputError(
                f"{place}: no {LOG_NAME}, no TensorBoard events and no metrics.csv in it; give the folder "
                "of a run "
                "that has logged something"
            )
        if files:
            (curves, starts), what = read_event_files(place), "TensorBoard's events"
        else:
            # Lightning's versions: the last.
            curves, what = read_table(tables[-1]), str(tables[-1].relative_to(place))
    found = mapped(curves, names or {})
    if not found.names:
        some = ", ".join(list(curves)[:8]) or "nothing"
        raise InputError(
            f"{place}: holds no figure that is known here ({some}); say what they are with --map NAME=mel, "
            "total, "
            "learning_rate, ..."
        )
    run = _foreign(curves, found.names, starts, corpus)
    without = () if corpus else ("no store: baselines were not compared",)
    return Found(run, f"{what}: {found}", without)


def _ours(folder: Path, store: Path | None) -> Found:
    rows = read_log(folder)
    if not rows:
        raise InputError(f"{folder / LOG_NAME}: empty; wait for training.log_step steps, and ask again")
    without = []
    config = None
    if (folder / CONFIG_NAME).is_file():
        config = load_config(folder / CONFIG_NAME)
    else:
        without.append(f"no {CONFIG_NAME}: the schedule was not compared")
    corpus = None
    place = store if store is not None else (None if config is None else config.data.store)
    if store is None and (place is None or not_there(str(place)) is not None):
        named = "" if place is None else f" at {place}"
        without.append(f"no store{named}: baselines and the batch were not compared; name it with --store")
    elif place is not None:
        corpus = _corpus(Store.open(place), TrainingConfig() if config is None else config.training)
    run = run_of(rows, config, corpus)
    steps = f"step {run.last_step:,}" + (f" of {config.training.max_steps:,}" if config is not None else "")
    return Found(run, f"{steps}, {len(rows)} lines of {LOG_NAME}", tuple(without))


def run_of(rows: list[dict[str, Any]], config: Config | None = None, corpus: Corpus | None = None) -> Run:
    """A run by the lines of its log."""
    return Run(_curves(rows, "train"), _curves(rows, "validation"), config, corpus)


def _curves(rows: list[dict[str, Any]], kind: str) -> dict[str, Curve]:
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row.get("kind") == kind:
            for name, value in row.items():
                if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                    points.setdefault(name, []).append((row["step"], float(value)))
    return {name: Curve.of(found) for name, found in points.items()}


def _foreign(
    curves: Mapping[str, Curve],
    names: Mapping[str, tuple[str, bool]],
    starts: list[int],
    corpus: Corpus | None,
) -> Run:
    training = {ours: curves[tag] for tag, (ours, held_out) in names.items() if not held_out}
    held_out = {ours: curves[tag] for tag, (ours, held_out) in names.items() if held_out}
    last = max((int(curve.steps[-1]) for curve in training.values()), default=0)
    # Some number their validations instead.
    epochs = max((len(c) for c in held_out.values()), default=0)
    for name, curve in held_out.items():
        if len(curve) > 1 and curve.steps[-1] <= epochs + 1 and last > 10 * epochs:
            held_out[name] = Curve(curve.steps * last // int(curve.steps[-1]), curve.values)
    loader, step = training.pop("loader_seconds", None), training.pop("step_seconds", None)
    if (
        loader is not None
        and step is not None
        and len(loader) == len(step)
        and "percent_data" not in training
    ):
        # Both ways of counting a step, with what it waits for and without, are on the safe side here.
        share = 100 * loader.values / np.maximum(loader.values + step.values, 1e-9)
        training["percent_data"] = Curve(loader.steps, share)
    return Run(training, held_out, None, corpus, starts)


def _corpus(store: Store, training: TrainingConfig) -> Corpus:
    """The size of a store's training split, and what it costs to know nothing of the held-out one."""
    chosen = store.indices(VALIDATION)
    chosen = (chosen if len(chosen) else store.indices(TRAIN))[:UTTERANCES]
    if not len(chosen):
        raise InputError(f"{store.path}: holds no utterances to train or validate on; prepare a corpus")
    mels = np.concatenate([store[int(index)].mel.astype(np.float32) for index in chosen])
    delta = training.huber_delta if training.use_huber_loss else None
    from_silence = mels - store.silence
    trained = store.indices(TRAIN)
    return Corpus(
        utterances=len(trained),
        frames=int(store.frames[trained].sum()),
        mean_error=float(np.abs(mels).mean()),
        silence_error=float(np.abs(from_silence).mean()),
        mean_loss=_distance(mels, delta),
        silence_loss=_distance(from_silence, delta),
    )


def _distance(apart: np.ndarray, delta: float | None) -> float:
    """Huber's, or the mean absolute one without a delta."""
    size = np.abs(apart)
    if delta is None:
        return float(size.mean())
    return float(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).mean())
