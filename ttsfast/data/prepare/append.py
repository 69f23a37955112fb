"""New utterances for a store that is complete: computed by its own rules, beside what is there.

The corpus is the store's own, grown: what the store has must still be in it, unchanged. New utterances are
normalised by the statistics that the store has, and encoded by its symbols; a text that the store knows stays
on its side of the split. New shards are written beside the old ones, then the manifest is replaced: until
that moment the old store is there, and afterwards the new one. Its bytes do not depend on interruptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ttsfast.data.checks.check import Row
from ttsfast.data.checks.finding import Finding
from ttsfast.data.checks.run import run_checks
from ttsfast.data.corpus.listings import Corpus, Exclusion, read_corpus
from ttsfast.data.corpus.parquet import recording_sha256
from ttsfast.data.corpus.split import text_key
from ttsfast.data.prepare.options import PrepareOptions, check_resources
from ttsfast.data.prepare.prepare import fingerprint_of
from ttsfast.data.prepare.report import PrepareReport, report
from ttsfast.data.prepare.survey import (
    CorpusFaults,
    SurveyedUtterance,
    compute_missing,
    letters,
    plan_chunks,
    select_usable,
    subject_of,
    survey_corpus,
    with_splits,
)
from ttsfast.data.prepare.writer import publish
from ttsfast.data.store.folder import WORK, explained_disk_errors, folder_lock, remove_leftovers
from ttsfast.data.store.manifest import Manifest
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError
from ttsfast.progress import progress_bar

_ANEW = "or make the store anew with `ttsfast prepare --force`"


def append(
    corpus_folder: Path | str,
    store_folder: Path | str,
    *,
    exclude_bad: bool = False,
    jobs: int = -1,
    engine: str = "joblib",
    device: str = "cpu",
    allow_roots: Sequence[Path | str] = (),
) -> PrepareReport:
    """Add to a store the utterances that its corpus has gained; with none, nothing is written.

    Args:
        corpus_folder: the corpus that the store was prepared from, as it is now; it may have moved.
        store_folder: a complete store.
        exclude_bad: leave out what is faulty and list it. Faults that the store lists already are left out
            in any case.
        jobs: processes; -1: one for every core.
        engine: what runs them, as in ``PrepareOptions``.
        device: what computes features, as in ``PrepareOptions``.
        allow_roots: folders beside the corpus's that recordings may be in.

    Raises:
        CorpusFaults: something new is faulty (a symbol that the store lacks is a fault, too) and
            ``exclude_bad`` is not set; nothing is written.
        InputError: there is no sound store, or this version of ttsfast computes other features; or an
            utterance of the store is gone from the corpus or has another text, speaker or recording; or
            another preparation is at work; or the folder cannot be written to, or the disk is full.
    """
    check_resources(engine, device, jobs)
    folder, root = Path(store_folder), Path(corpus_folder).absolute()
    manifest = read_manifest(folder)
    with explained_disk_errors(folder), folder_lock(folder):
        # Once more: what was there before the lock may have been replaced.
        manifest = read_manifest(folder)
        problems = verify(folder, quick=True).problems
        if problems:
            raise InputError(problems[0])
        options = _options(folder, manifest, exclude_bad=exclude_bad, jobs=jobs, engine=engine, device=device)
        corpus = read_corpus(root, options.layout, allow_roots)
        _check_kept(corpus, manifest, options)
        utterances, exclusions = _choose_new(corpus, manifest, options)
        if not utterances:
            remove_leftovers(folder, manifest)
            return replace(report(folder, manifest, unchanged=True), exclusions=tuple(exclusions))
        return _add(folder, corpus, manifest, options, utterances, exclusions)


def _options(folder: Path, manifest: Manifest, **changes: Any) -> PrepareOptions:
    try:
        options = PrepareOptions.from_dict(manifest.options, **changes)
    except InputError as error:
        raise InputError(f"{folder}: cannot be appended to: {error}; {_ANEW[3:]}") from error
    # What was the corpus's own character set then is a given one now.
    return replace(options, symbols=manifest.symbols)


def _check_kept(corpus: Corpus, manifest: Manifest, options: PrepareOptions) -> None:
    """Raise InputError unless all that the store has is in the corpus as it was."""
    listed = {item.id: item for item in corpus.items}
    entries = manifest.entries
    gone = [name for name in entries.id if name not in listed]
    if gone:
        # A faulty line may have no id to be found by.
        details = {exclusion.id: exclusion.detail for exclusion in reversed(corpus.exclusions)}
        reason = details.get(gone[0]) or (corpus.exclusions[0].detail if corpus.exclusions else "")
        raise InputError(
            f"{corpus.root}: {len(gone)} utterances of the store are gone, or can no longer be used, the "
            f"first {gone[0]!r}{f' ({reason})' if reason else ''}; put them back, {_ANEW}"
        )
    items = [listed[name] for name in entries.id]
    for index, (item, text) in enumerate(
        zip(items, options.frontend.batch([item.text for item in items]), strict=True)
    ):
        entry = entries[index]
        speaker = manifest.speakers[entry.speaker]
        for what, before, now in (
            ("text", entry.text, text),
            ("speaker", speaker, item.speaker),
            ("mark 'truncated'", entry.truncated, item.truncated),
        ):
            if before != now:
                raise InputError(
                    f"{corpus.root}: the {what} of {item.id!r} was {before!r} and is {now!r}; append keeps "
                    f"what the store has: put it back, {_ANEW}"
                )
    with ThreadPoolExecutor(options.workers) as threads, progress_bar() as bar:
        computed = threads.map(recording_sha256, [item.audio for item in items])
        hashes = bar.track(computed, total=len(items), description="comparing recordings")
        for item, before, now in zip(items, entries.audio_sha256, hashes, strict=True):
            if before != now:
                raise InputError(
                    f"{item.audio}: is not the recording that the store has of {item.id!r}; put that back, "
                    f"{_ANEW}"
                )


def _choose_new(
    corpus: Corpus, manifest: Manifest, options: PrepareOptions
) -> tuple[list[SurveyedUtterance], list[Exclusion]]:
    """The utterances to add, and all that is left out, old and new."""
    stored = set(manifest.entries.id)
    places = [place for place, item in enumerate(corpus.items) if item.id not in stored]
    surveyed = survey_corpus(corpus, places, options)
    usable, exclusions = select_usable(
        corpus.root, surveyed, corpus.exclusions, replace(options, exclude_bad=True)
    )
    known_faults = {(exclusion.id, exclusion.reason) for exclusion in manifest.exclusions}
    faults = [e for e in exclusions if e.reason != "too long" and (e.id, e.reason) not in known_faults]
    if faults and not options.exclude_bad:
        raise CorpusFaults(corpus.root, faults)
    splits = dict(zip(manifest.entries.id, manifest.entries.split, strict=True))
    known = {text_key(letters(i, options)): splits[i.id] for i in corpus.items if i.id in splits}
    return with_splits(usable, options, known), exclusions


def _add(
    folder: Path,
    corpus: Corpus,
    manifest: Manifest,
    options: PrepareOptions,
    utterances: list[SurveyedUtterance],
    exclusions: list[Exclusion],
) -> PrepareReport:
    new = {one.item.speaker for one in utterances} - set(manifest.speakers)
    draft = replace(
        manifest,
        fingerprint=fingerprint_of(manifest.fingerprint, utterances, exclusions),
        history=(*manifest.history, manifest.fingerprint),
        # Behind those who have a number already.
        speakers=(*manifest.speakers, *sorted(new)),
        corpus=str(corpus.root),
        exclusions=tuple(exclusions),
    )
    work = folder / WORK
    work.mkdir(exist_ok=True)
    chunks = plan_chunks(utterances, options, work)
    computed = compute_missing(chunks, options)
    made = report(folder, publish(folder, draft, utterances, chunks), computed=computed)
    return replace(made, findings=_findings(corpus, manifest, options, utterances, exclusions))


def _findings(
    corpus: Corpus,
    manifest: Manifest,
    options: PrepareOptions,
    utterances: list[SurveyedUtterance],
    exclusions: list[Exclusion],
) -> tuple[Finding, ...]:
    """Of all texts and lengths, and of the new recordings, which alone were listened to."""
    subject = subject_of(utterances, exclusions, options)
    listed = {item.id: item for item in corpus.items}
    known = [
        Row(
            id=entry.id,
            text=listed[entry.id].text,
            symbols=entry.text,
            speaker=listed[entry.id].speaker,
            split=entry.split,
            frames=entry.frames,
            truncated=entry.truncated,
            line=listed[entry.id].line,
        )
        for entry in manifest.entries
    ]
    return run_checks(replace(subject, rows=[*known, *subject.rows])).findings
