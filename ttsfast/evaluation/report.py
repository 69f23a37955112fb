"""The report of a run: one page with its pictures and sounds in files beside it.

run/report.html          opens from the disk, asks nothing of the network
run/samples/01/...       synthesised.wav, copy-synthesis.wav, original.wav, mel.png, alignment-*.png
run/curves/...           the training's scalars
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ttsfast.data.corpus.audio import write_wav
from ttsfast.data.corpus.split import VALIDATION
from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.filterbank import mel_axes
from ttsfast.evaluation.report_page import Picture, SampleView, Sound, page
from ttsfast.evaluation.report_tables import speaker_table, utterance_table
from ttsfast.evaluation.report_words import words_section
from ttsfast.evaluation.result import Evaluation
from ttsfast.evaluation.spoken import SpokenSample
from ttsfast.evaluation.targets import label, number
from ttsfast.files import atomic_write
from ttsfast.pages import plots
from ttsfast.terms.spec import TERMS

FILES = "report_files"
CURVES = f"{FILES}/curves"

LOSSES = ("total", *TERMS, "gradient_norm")
HELD_OUT = (
    "mel_l1",
    "diagonal_mass",
    "monotonicity",
    "stop_f1",
    "coverage",
    "duration_error",
    "ran_on",
    "cut_short",
    "stop_rate",
)
MACHINE = ("frames_per_second", "loader_wait_percent")

# An absolute path inside a longer text: at least two levels, or a home or drive at its start.
_PATH = re.compile(r"(?<![\w.:/\\])(?:~?/(?:[^\s/\"',;]+/)+|[A-Za-z]:\\(?:[^\s\\\"',;]+\\)+)")


def write_report(
    run_folder: Path,
    evaluation: Evaluation,
    *,
    title: str,
    log: Sequence[Mapping[str, Any]] = (),
    config: Mapping[str, Mapping[str, Any]] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``report.html`` with its pictures and sounds into ``run_folder``, replacing earlier ones.

    Args:
        run_folder: an existing folder.
        evaluation: with the samples to show.
        title: of the page.
        log: the training log, one mapping per line with ``kind``, ``step`` and scalars.
        config: the configuration, section by section.
        environment: versions and machine, by name.

    Absolute paths in the configuration and the environment are cut to their last part.

    Returns:
        The page's path.
    """
    if (run_folder / FILES).exists():
        shutil.rmtree(run_folder / FILES)
    contract = evaluation.contract
    frame_seconds = contract.hop_length / contract.sample_rate
    chosen = evaluation.split == VALIDATION
    html = page(
        title=title,
        subtitle=(
            f"{evaluation.utterances} utterances of the {evaluation.split} split"
            f"{', by which the checkpoint was chosen' if chosen else ''}, "
            f"{evaluation.frames * frame_seconds / 60:.1f} minutes of speech; stop threshold "
            f"{evaluation.stop_threshold:.3f}, calibrated on {'them' if chosen else 'the validation split'}"
        ),
        language=evaluation.language,
        held_out=evaluation.split != "train",
        verdicts=evaluation.verdicts,
        samples=[
            _sample(run_folder, f"{FILES}/sample-{place:02d}", sample, contract)
            for place, sample in enumerate(evaluation.samples, start=1)
        ],
        worst=[
            _sample(run_folder, f"{FILES}/worst-{place:02d}", sample, contract)
            for place, sample in enumerate(evaluation.worst, start=1)
        ],
        words="" if evaluation.words is None else words_section(evaluation.words),
        speakers=speaker_table(evaluation.by_speaker, evaluation.measured) if evaluation.by_speaker else "",
        utterances=utterance_table(
            evaluation.measured, evaluation.figures, frame_seconds, evaluation.language
        ),
        curves=_curves(run_folder, log),
        settings={
            section: {key: without_folders(value) for key, value in values.items()}
            for section, values in (config or {}).items()
        },
        environment={key: without_folders(value) for key, value in (environment or {}).items()},
    )
    path = run_folder / "report.html"
    with atomic_write(path) as handle:
        handle.write(html.encode("utf-8"))
    return path


def without_folders(value: Any) -> str:
    """``value`` as YAML would show it, absolute paths cut to their last part: a report is to be passed on."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if "\n" not in text:
        for kind in (PurePosixPath, PureWindowsPath):
            whole = kind(text)
            if whole.is_absolute() or text.startswith("~"):
                return whole.name or text
    return _PATH.sub("", text)


def _sample(run_folder: Path, folder: str, sample: SpokenSample, contract: MelContract) -> SampleView:
    (run_folder / folder).mkdir(parents=True, exist_ok=True)
    sounds = []
    for name, file, wave in (
        ("synthesised", "synthesised.wav", sample.synthesised),
        ("original", "original.wav", sample.original),
        ("original, through its log-mel", "copy-synthesis.wav", sample.copy_synthesis),
    ):
        if wave is not None:
            write_wav(run_folder / folder / file, wave, contract.sample_rate)
            sounds.append(Sound(f"{folder}/{file}", name))
    frame = contract.hop_length / contract.sample_rate
    mels = {
        "recorded": sample.target,
        "predicted, teacher-forced": sample.teacher_forced,
        "predicted, free-running": sample.free_running,
    }
    size = plots.save(plots.mel_figure(mels, mel_axes(contract)), run_folder / folder / "mel.png")
    spectrograms = Picture(
        f"{folder}/mel.png",
        *size,
        alt=f"Log-mel spectrograms of {sample.id}: recorded, teacher-forced and free-running",
        caption="Log-mel: recorded, predicted from true frames, predicted from its own",
    )
    alignments = {
        kind: _alignment(
            run_folder, f"{folder}/alignment-{kind}.png", sample, kind, attention, frames * frame
        )
        for kind, attention, frames in (
            ("free-running", sample.attention_free_running, len(sample.free_running)),
            ("teacher-forced", sample.attention_teacher_forced, len(sample.target)),
        )
        if attention is not None
    }
    return SampleView(
        id=sample.id,
        text=sample.text,
        facts=_facts(sample, frame),
        sounds=sounds,
        pictures=[spectrograms, *(p for kind, p in alignments.items() if kind == "free-running")],
        more=[p for kind, p in alignments.items() if kind == "teacher-forced"],
    )


def _alignment(
    run_folder: Path, file: str, sample: SpokenSample, kind: str, attention: np.ndarray, seconds: float
) -> Picture:
    size = plots.save(plots.alignment_figure(attention, sample.symbols, seconds), run_folder / file)
    return Picture(
        file,
        *size,
        alt=f"Attention of {sample.id}, {kind}: text symbols over time",
        caption=f"Attention, {kind}: a clean line from corner to corner reads every symbol",
    )


def _facts(sample: SpokenSample, frame: float) -> list[str]:
    facts = [f"speaker {sample.speaker}"] if sample.speaker else []
    facts.append(
        f"{len(sample.free_running) * frame:.2f} s spoken, {len(sample.target) * frame:.2f} s recorded"
    )
    facts.append("ended by itself" if sample.stopped else "never stopped: cut at the frame limit")
    shown = ("mel_l1", "coverage", "heard", "mcd_dtw")
    return facts + [f"{label(n)}: {number(sample.figures[n])}" for n in shown if n in sample.figures]


def _curves(run_folder: Path, log: Sequence[Mapping[str, Any]]) -> list[Picture]:
    pictures = []
    weights = sorted({name for record in log for name in record if name.startswith("weight_")})
    for file, names, caption in (
        ("held-out.png", HELD_OUT, "Held-out figures, measured while training"),
        ("losses.png", LOSSES, "Training losses, unweighted but for the total, and the gradient's norm"),
        ("weights.png", weights, "Weights of the losses"),
        (
            "machine.png",
            MACHINE,
            "Speed: mel frames per second, and the share of time spent waiting for data",
        ),
    ):
        figure = plots.curves_figure(log, names, label)
        if figure is not None:
            pictures.append(_curve(run_folder, file, figure, caption))
    rates = [(r["step"], r["learning_rate"]) for r in log if "learning_rate" in r]
    if rates:
        steps, values = zip(*rates, strict=True)
        pictures.append(
            _curve(
                run_folder, "learning-rate.png", plots.learning_rate_figure(steps, values), "Learning rate"
            )
        )
    return pictures


def _curve(run_folder: Path, file: str, figure: Any, caption: str) -> Picture:
    (run_folder / CURVES).mkdir(parents=True, exist_ok=True)
    size = plots.save(figure, run_folder / CURVES / file)
    return Picture(f"{CURVES}/{file}", *size, alt=f"{caption}, over training steps", caption=caption)
