"""One sentence on the way, recipe beside recipe: sounds, and strips of how its alignment came about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ttsfast.benchmarks.convergence.figures import HeldOut, stop_threshold
from ttsfast.benchmarks.convergence.pictures import strip
from ttsfast.benchmarks.convergence.runs import Run
from ttsfast.config import Config
from ttsfast.data.corpus.audio import write_wav
from ttsfast.data.loading.batch import collate
from ttsfast.data.store.texts import written_texts
from ttsfast.evaluation.samples import free_running_samples, teacher_forced_samples
from ttsfast.files import output_folder
from ttsfast.models.build import build_model
from ttsfast.pages.plots import save_svg

FOLDER = "convergence_files"
"""Beside the page."""
MINUTES = (1, 2, 5, 10, 20, 40)
"""Of training, near which it is heard and seen; and once more when the run has ended."""


@dataclass(frozen=True)
class Moment:
    """A snapshot that is heard."""

    name: str
    step: int
    sound: str
    """A file in the folder of the page."""


def moments(run: Run) -> list[tuple[str, int]]:
    """Name and step: the snapshots nearest to :data:`MINUTES`, as far as was trained, and the last one."""
    *before, last = run.snapshots
    trained = [row for row in before if row["seconds"] > 0]
    nearest = {}
    for minutes in MINUTES:
        if trained and 60 * minutes < last["seconds"]:
            row = min(trained, key=lambda row: abs(math.log(row["seconds"] / (60 * minutes))))
            nearest[int(row["step"])] = f"{row['seconds'] / 60:.1f} min"
    return [(name, step) for step, name in nearest.items()] + [
        (f"{last['seconds'] / 60:.1f} min, the end", int(last["step"]))
    ]


def write_samples(folder: Path, runs: Sequence[tuple[Run, Config]], held_out: HeldOut) -> dict[str, Any]:
    """Speak the middle one of the held-out utterances by length, with the first seed of each recipe.

    Args:
        folder: of the page.
        runs: one of each recipe, trained.
        held_out: what was measured on.

    Returns:
        The utterance's ``id``, ``text`` and ``language``, and by ``recipes`` the :class:`Moment` s with their
        ``strip`` (file, width, height), where the model has an alignment to show.
    """
    store = held_out.store
    index = held_out.indices[len(held_out.indices) // 2]
    name = store.entries[index].id
    made: dict[str, Any] = {}
    for run, config in runs:
        recipe = run.body["recipe"]
        for old in output_folder(folder / FOLDER / recipe).glob("step-*.wav"):
            old.unlink()
        heard, seen = [], {}
        for moment, (wave, attention) in _spoken(run, config, held_out, index):
            sound = f"{FOLDER}/{recipe}/step-{moment[1]:06d}.wav"
            write_wav(folder / sound, wave, held_out.voice.contract.sample_rate)
            heard.append(asdict(Moment(*moment, sound)))
            if attention is not None:
                seen[moment[0]] = attention
        made[recipe] = {"moments": heard}
        if seen:
            file = f"{FOLDER}/{recipe}/alignment.svg"
            made[recipe]["strip"] = [file, *save_svg(strip(seen), folder / file)]
    return {
        "id": name,
        "text": written_texts(store).get(name, store.entries[index].text),
        "language": store.frontend.language,
        "recipes": made,
    }


@torch.no_grad()
def _spoken(
    run: Run, config: Config, held_out: HeldOut, index: int
) -> Iterator[tuple[tuple[str, int], tuple[np.ndarray, np.ndarray | None]]]:
    """By moment the sound, free-running, and attention, teacher-forced."""
    store, voice = held_out.store, held_out.voice
    batch = collate([store[index]], pad_value=store.silence)
    model = build_model(config.model, voice).eval()
    for moment in moments(run):
        model.load_state_dict(load_file(run.weights_at(moment[1])))
        threshold = stop_threshold(model, config, held_out)
        (free,) = free_running_samples(
            model, [batch], "cpu", stop_threshold=threshold, max_frames=voice.max_frames
        )
        (fed,) = teacher_forced_samples(model, [batch], "cpu")
        yield moment, (held_out.wave(free.predicted), fed.attention)
