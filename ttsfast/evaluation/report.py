"""The report of a run: one page with its pictures and sounds in files beside it.

run/report.html                  opens from the disk, asks nothing of the network
run/report_files/sample-01/...   synthesised.wav, copy-synthesis.wav, original.wav, mel.svg, alignment-*.svg
run/report_files/worst-01/...    likewise
run/report_files/curves/...      the training's scalars
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ttsfast.data.corpus.audio import write_wav
from ttsfast.data.corpus.split import VALIDATION
from ttsfast.data.features.filterbank import mel_axes
from ttsfast.errors import InputError
from ttsfast.evaluation.report_curves import curves
from ttsfast.evaluation.report_page import SampleView, Sound, page
from ttsfast.evaluation.report_tables import speaker_table, utterance_table
from ttsfast.evaluation.report_words import words_section
from ttsfast.evaluation.result import Evaluation
from ttsfast.evaluation.spoken import SpokenSample
from ttsfast.evaluation.targets import label, number
from ttsfast.files import atomic_write
from ttsfast.pages import plots
from ttsfast.pages.document import Picture

FILES = "report_files"
CURVES = f"{FILES}/curves"
SYNTHESISED = "synthesised"
"""The name of the sound that the voice made."""
SAMPLES = f"{FILES}/samples.json"

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
    samples, worst = (
        [
            _sample(run_folder, f"{FILES}/{kind}-{place:02d}", sample, evaluation)
            for place, sample in enumerate(shown, start=1)
        ]
        for kind, shown in (("sample", evaluation.samples), ("worst", evaluation.worst))
    )
    if samples:
        write_samples(run_folder, [*samples, *worst])
    html = page(
        title=title,
        subtitle=(
            f"{evaluation.utterances} utterances of the {evaluation.split} split"
            f"{', by which the checkpoint was chosen' if chosen else ''}, "
            f"{evaluation.frames * frame_seconds / 60:.1f} minutes of speech{_stop(evaluation)}"
        ),
        note=_note(evaluation),
        held_out=evaluation.split != "train",
        verdicts=evaluation.verdicts,
        samples=samples,
        worst=worst,
        words="" if evaluation.words is None else words_section(evaluation.words),
        speakers=speaker_table(evaluation.by_speaker, evaluation.measured) if evaluation.by_speaker else "",
        utterances=utterance_table(evaluation),
        curves=curves({title: log}, run_folder / CURVES, CURVES),
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


def write_samples(run_folder: Path, samples: Sequence[SampleView]) -> None:
    """Keep what the report shows of utterances, for a comparison with other runs."""
    with atomic_write(run_folder / SAMPLES) as handle:
        rows = [asdict(sample) for sample in samples]
        handle.write(json.dumps(rows, indent=1, ensure_ascii=False).encode())


def read_samples(run_folder: Path) -> list[SampleView]:
    """What :func:`write_samples` kept; empty for a run without a report.

    Raises:
        InputError: it cannot be read.
    """
    path = run_folder / SAMPLES
    if not path.is_file():
        return []
    try:
        return [
            SampleView(
                **{
                    **row,
                    "sounds": [Sound(**sound) for sound in row["sounds"]],
                    "pictures": [Picture(**each) for each in row["pictures"]],
                    "more": [Picture(**each) for each in row["more"]],
                }
            )
            for row in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not readable ({error!r}); run `ttsfast evaluate` again") from error


def _stop(evaluation: Evaluation) -> str:
    """At what the voice's stop fires, where it has one."""
    if "stop_rate" not in evaluation.figures:
        return ""
    on = "them" if evaluation.split == VALIDATION else "the validation split"
    return f"; stop threshold {evaluation.stop_threshold:.3f}, calibrated on {on}"


def _note(evaluation: Evaluation) -> str:
    if not evaluation.phonemes or len(evaluation.written) == evaluation.utterances:
        return ""
    return (
        "Where the sentence is not known, its phonemes stand in its place, which are all that the store has: "
        "name the corpus that has the sentences with --corpus."
    )


def _sample(run_folder: Path, folder: str, sample: SpokenSample, evaluation: Evaluation) -> SampleView:
    contract = evaluation.contract
    (run_folder / folder).mkdir(parents=True, exist_ok=True)
    sounds = []
    for name, file, wave in (
        (SYNTHESISED, "synthesised.wav", sample.synthesised),
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
    size = plots.save_svg(plots.mel_figure(mels, mel_axes(contract)), run_folder / folder / "mel.svg")
    spectrograms = Picture(
        f"{folder}/mel.svg",
        *size,
        alt=f"Log-mel spectrograms of {sample.id}: recorded, teacher-forced and free-running",
        caption="Log-mel: recorded, predicted from true frames, predicted from its own",
    )
    alignments = {
        kind: _alignment(
            run_folder, f"{folder}/alignment-{kind}.svg", sample, kind, attention, frames * frame
        )
        for kind, attention, frames in (
            ("free-running", sample.attention_free_running, len(sample.free_running)),
            ("teacher-forced", sample.attention_teacher_forced, len(sample.target)),
        )
        if attention is not None
    }
    text, language = evaluation.sentence(sample.id, sample.text)
    return SampleView(
        id=sample.id,
        text=text,
        language=language,
        spelt=sample.text if evaluation.phonemes and sample.id in evaluation.written else "",
        facts=_facts(sample, frame),
        sounds=sounds,
        pictures=[spectrograms, *(p for kind, p in alignments.items() if kind == "free-running")],
        more=[p for kind, p in alignments.items() if kind == "teacher-forced"],
    )


def _alignment(
    run_folder: Path, file: str, sample: SpokenSample, kind: str, attention: np.ndarray, seconds: float
) -> Picture:
    size = plots.save_svg(plots.alignment_figure(attention, sample.symbols, seconds), run_folder / file)
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
