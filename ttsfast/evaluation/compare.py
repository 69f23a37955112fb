"""Several runs beside one another: what was set differently, what came of it, and how it sounds."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ttsfast.errors import InputError
from ttsfast.evaluation.compare_page import ComparedSample, RunView, page
from ttsfast.evaluation.log import read_log
from ttsfast.evaluation.report import SAMPLES, SYNTHESISED, read_samples, without_folders
from ttsfast.evaluation.report_curves import curves
from ttsfast.evaluation.report_page import SampleView
from ttsfast.files import atomic_write, inside, output_folder
from ttsfast.models.checkpoint import find_checkpoint, read_state
from ttsfast.pages.plots import PALETTE

PAGE, FILES = "compare.html", "compare_files"
MOST = len(PALETTE)
"""Runs that have a colour each."""


@dataclass(frozen=True)
class Run:
    """What a run's folder holds."""

    name: str
    """The folder's, with its parent's where another run is called the same."""
    folder: Path
    step: int
    """Of the best checkpoint."""
    settings: Mapping[str, Any]
    """As ``section.key``."""
    metrics: Mapping[str, Any]
    """Of ``metrics.json``; empty for a run that was not evaluated."""
    log: Sequence[Mapping[str, Any]]
    samples: Sequence[SampleView]
    """That its report shows."""


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found."""

    page: Path
    runs: Sequence[Run]

    @property
    def settings(self) -> dict[str, list[str]]:
        """The settings that are not the same in all runs, with each run's; a dash where it has none."""
        keys = dict.fromkeys(key for run in self.runs for key in run.settings)
        return {
            key: [without_folders(run.settings.get(key, "–")) for run in self.runs]
            for key in keys
            if len({repr(run.settings.get(key, "–")) for run in self.runs}) > 1
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "page": str(self.page),
            "runs": [{"name": run.name, "step": run.step, "metrics": run.metrics} for run in self.runs],
            "settings": self.settings,
        }


def compare(folders: Sequence[Path], output: Path) -> Comparison:
    """Write ``compare.html`` with its pictures and sounds into ``output``, replacing earlier ones.

    Args:
        folders: of at least two runs. Figures and samples are those of each one's last evaluation.
        output: a folder; it is made.

    Raises:
        InputError: fewer runs, or more than :data:`MOST`; one named twice; no checkpoint; a file of a run
            that cannot be read.
    """
    if not 2 <= len(folders) <= MOST:
        raise InputError(f"compare takes two to {MOST} runs, not {len(folders)}; name their folders")
    runs = _read(folders)
    output = output_folder(output)
    if (output / FILES).exists():
        shutil.rmtree(output / FILES)
    comparison = Comparison(output / PAGE, runs)
    html = page(
        runs=[
            RunView(run.name, run.step, max((row["step"] for row in run.log), default=run.step), run.metrics)
            for run in runs
        ],
        settings=comparison.settings,
        samples=_samples(runs, output),
        curves=curves({run.name: run.log for run in runs}, output / FILES / "curves", f"{FILES}/curves"),
    )
    with atomic_write(output / PAGE) as handle:
        handle.write(html.encode())
    return comparison


def _read(folders: Sequence[Path]) -> list[Run]:
    runs = []
    for given in folders:
        checkpoint = find_checkpoint(given, prefer_best=True)
        state, folder = read_state(checkpoint), checkpoint.parent.parent.resolve()
        settings = {
            f"{section}.{key}": value
            for section, values in state["config"].items()
            for key, value in values.items()
        }
        runs.append(
            Run(
                name=folder.name,
                folder=folder,
                step=int(state["step"]),
                settings=settings,
                metrics=_metrics(folder / "metrics.json"),
                log=read_log(folder),
                samples=read_samples(folder),
            )
        )
    times = Counter(run.folder for run in runs)
    if twice := [folder for folder, count in times.items() if count > 1]:
        raise InputError(f"{twice[0]}: named twice; name each run once")
    called = Counter(run.name for run in runs)
    return [
        replace(run, name=f"{run.folder.parent.name}/{run.name}") if called[run.name] > 1 else run
        for run in runs
    ]


def _metrics(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); run `ttsfast evaluate` again") from error
    if not isinstance(read, dict):
        raise InputError(f"{path}: not the figures of an evaluation; run `ttsfast evaluate` again")
    return read


def _samples(runs: Sequence[Run], output: Path) -> list[ComparedSample]:
    """Utterances that at least two reports show, with what is seen and heard of them copied to the page."""
    shown = Counter(sample.id for run in runs for sample in run.samples)
    compared: list[ComparedSample] = []
    for name in (name for name, count in shown.items() if count > 1):
        folder = f"{FILES}/sample-{len(compared) + 1:02d}"
        views = [(run, sample) for run in runs for sample in run.samples if sample.id == name]
        recorded = _view(*views[0], output, f"{folder}/recorded", spoken=False)
        spoken = {
            run.name: _view(run, sample, output, f"{folder}/run-{place}", spoken=True)
            for place, (run, sample) in enumerate(views, start=1)
        }
        compared.append(ComparedSample(recorded, spoken))
    return compared


def _view(run: Run, sample: SampleView, output: Path, folder: str, *, spoken: bool) -> SampleView:
    """An utterance with what is spoken and drawn of it copied into ``folder`` of ``output``, or else with
    its recording."""

    def copied(file: str) -> str:
        source = inside(run.folder, file, f"{run.folder / SAMPLES}: utterance {sample.id!r}")
        (output / folder).mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, output / folder / source.name)
        except FileNotFoundError as error:
            raise InputError(f"{source}: is gone; run `ttsfast evaluate` again") from error
        return f"{folder}/{source.name}"

    return replace(
        sample,
        sounds=[replace(s, file=copied(s.file)) for s in sample.sounds if (s.name == SYNTHESISED) is spoken],
        pictures=[replace(p, source=copied(p.source)) for p in sample.pictures if spoken],
        more=[],
    )
