"""Was the data prepared right: all checks of a corpus, or of a store with its recordings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ttsfast.data.checks.check import DEFAULT_REDUCTION, Check, Row, Subject, own_checks
from ttsfast.data.checks.clip import ClipFigures
from ttsfast.data.checks.run import ALL, run_checks
from ttsfast.data.corpus.audio import read_samples
from ttsfast.data.corpus.listings import read_corpus
from ttsfast.data.corpus.text import TextFrontend
from ttsfast.data.features.contract import DEFAULT_PRESET, MelContract
from ttsfast.data.features.options import FeatureOptions
from ttsfast.data.prepare.extraction import inspect_recordings
from ttsfast.data.prepare.options import PrepareOptions
from ttsfast.data.prepare.survey import select_usable, subject_of, survey_corpus
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.recordings import Recordings
from ttsfast.data.store.store import Store
from ttsfast.data.store.texts import written_texts
from ttsfast.devices import available_cores
from ttsfast.doctor.diagnosis import Diagnosis
from ttsfast.doctor.mismatch import Mismatch
from ttsfast.errors import InputError, in_their_code
from ttsfast.files import is_folder
from ttsfast.progress import track


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """How a corpus is to be read; a store says itself how it was made."""

    language: str = "en"
    phonemes: bool = False
    layout: str = "auto"
    contract: str = DEFAULT_PRESET
    trim: bool = False
    reduction: int = DEFAULT_REDUCTION
    corpus: Path | None = None
    """Of a store, where it is now; where the store says when None."""
    listen: bool = True
    """Train a small recogniser on it for a minute or two, to find texts that recordings do not say."""
    jobs: int = -1


@dataclass(frozen=True)
class Examination:
    """What was found, and what it was found in."""

    diagnosis: Diagnosis
    subject: Subject


def examine_dataset(path: Path | str, options: DatasetOptions) -> Examination:
    """Look at a corpus or a store, at recordings, texts and features.

    Raises:
        InputError: ``path`` is neither a corpus nor a store, or cannot be read as one; or a check of the
            user's own fails.
    """
    started = time.monotonic()
    path = Path(path)
    if not is_folder(path):
        what = "a file, not a folder" if path.is_file() else "no such folder"
        raise InputError(f"{path}: {what}; give a corpus with its listing, or a feature store")
    stored = (path / NAME).is_file()
    subject = _store(path, options) if stored else _corpus(path, options)
    own = own_checks()
    subject = _measured(subject, [check for check in own if check.needs == "audio"])
    heard = [Mismatch()] if options.listen else []
    checked = run_checks(subject, (*ALL, *heard, *own))
    read = sum(row.figures is not None for row in subject.rows)
    hours = sum(map(subject.seconds, subject.rows)) / 3600
    diagnosis = Diagnosis(
        subject=str(path),
        kind="store" if stored else "corpus",
        looked_at=f"{len(subject.rows)} utterances, {hours:.2f} h, {read} recordings read",
        findings=checked.findings,
        passed=checked.passed,
        not_run=checked.not_run,
        seconds=time.monotonic() - started,
    )
    return Examination(diagnosis, subject)


def _corpus(path: Path, options: DatasetOptions) -> Subject:
    prepared = PrepareOptions(
        frontend=TextFrontend(options.language, phonemes=options.phonemes),
        contract=MelContract.preset(options.contract),
        layout=options.layout,
        trim=options.trim,
        jobs=options.jobs,
        # Whether a recording is of this rate, and mono, is said of all of them.
        resample=True,
        mixdown=True,
        exclude_bad=True,
    )
    corpus = read_corpus(path.absolute(), options.layout)
    surveyed = survey_corpus(corpus, range(len(corpus.items)), prepared)
    _, left_out = select_usable(corpus.root, surveyed, corpus.exclusions, prepared)
    return subject_of(surveyed, left_out, prepared, reduction=options.reduction)


def _store(path: Path, options: DatasetOptions) -> Subject:
    store = Store.open(path)
    manifest = store.manifest
    folder = Path(manifest.corpus) if options.corpus is None else options.corpus
    if options.corpus is not None and not is_folder(folder):
        raise InputError(f"{folder}: no such folder; name the corpus of {path} with --corpus")
    there = is_folder(folder)
    audio = [str(folder / name) for name in store.entries.audio]
    figures: list[ClipFigures | None] = [None] * len(audio)
    if there:
        resample, mixdown, trim = (
            bool(manifest.options.get(name)) for name in ("resample", "mixdown", "trim")
        )
        features = FeatureOptions(store.contract, resample, mixdown, trim)
        jobs = available_cores() if options.jobs == -1 else options.jobs
        figures = [found.figures for found in inspect_recordings(audio, features, jobs)]
    written = written_texts(store, options.corpus)
    rows = [
        Row(
            id=entry.id,
            text=written.get(entry.id, entry.text),
            symbols=entry.text,
            speaker=store.speakers[entry.speaker],
            split=entry.split,
            frames=entry.frames,
            truncated=entry.truncated,
            audio=place if there else "",
            figures=found,
        )
        for entry, place, found in zip(store.entries, audio, figures, strict=True)
    ]
    return Subject(
        rows=rows,
        left_out=manifest.exclusions,
        language=store.frontend.language,
        phonemes=store.frontend.phonemes,
        contract=store.contract,
        reduction=options.reduction,
        trimmed=bool(manifest.options.get("trim")),
        store=store,
        recordings=Recordings(path, manifest, options.corpus) if there else None,
    )


def _measured(subject: Subject, checks: Sequence[Check]) -> Subject:
    """The same with what checks of the user's own measure in each recording."""
    if not checks or not subject.read:
        return subject
    rows = []
    for row in track(subject.rows, "measuring for your own checks", len(subject.rows)):
        if row.figures is not None:
            samples, rate = read_samples(row.audio)
            try:
                own = {check.name: check.measure(samples, rate) for check in checks}
            except Exception as error:
                raise InputError(f"{row.audio}: a check failed: {in_their_code(error)}; mend it") from error
            row = replace(row, own=own)
        rows.append(row)
    return replace(subject, rows=rows)
