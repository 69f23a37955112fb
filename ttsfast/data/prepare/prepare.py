"""From a corpus folder to a feature store, in steps that each can be interrupted and taken up again.

1. The survey: every text, every recording (``survey.py``). Faults are listed together, before any is made.
2. Log-mels, utterance by utterance, into a work folder inside the store's (``extraction.py``).
3. Statistics over the training split, in float64; then features are normalised and written as shards.
4. The manifest, last: from then on the folder is a store. The work folder goes.

Steps 1 and 2 can be shared by workers that know nothing of each other (:func:`prepare_partition`); steps 3
and 4 are then :func:`finalize`, and the store has the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from ttsfast.data.checks.finding import Finding
from ttsfast.data.checks.run import run_checks
from ttsfast.data.corpus.listings import Corpus, Exclusion, read_corpus
from ttsfast.data.corpus.text import Symbols
from ttsfast.data.prepare.options import PrepareOptions
from ttsfast.data.prepare.partitions import Partition, read_partitions, write_partition
from ttsfast.data.prepare.report import PrepareReport, report
from ttsfast.data.prepare.survey import (
    CorpusFaults,
    SurveyedUtterance,
    compute_missing,
    plan_chunks,
    select_usable,
    subject_of,
    survey_corpus,
    with_splits,
)
from ttsfast.data.prepare.writer import publish, statistics, track_statistics
from ttsfast.data.store.folder import (
    WORK,
    check_folder,
    explained_disk_errors,
    folder_lock,
    remove_leftovers,
    withdraw_manifest,
)
from ttsfast.data.store.json_values import list_pieces
from ttsfast.data.store.manifest import NAME, Manifest
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.utterance_table import UtteranceTable
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError
from ttsfast.files import is_folder
from ttsfast.progress import console

__all__ = [
    "CorpusFaults",
    "PartitionReport",
    "PrepareOptions",
    "PrepareReport",
    "finalize",
    "prepare",
    "prepare_partition",
]


@dataclass(frozen=True)
class PartitionReport:
    """What a worker did."""

    store: str
    shard: str
    """Which partition, ``i/n``."""
    utterances: int
    """Of the listing that are this partition's."""
    left_out: int
    computed: int
    """Whose features were computed in this run; the others were left by an interrupted one."""

    def to_dict(self) -> dict[str, object]:
        """Plain values for ``--json``."""
        return vars(self)

    def __str__(self) -> str:
        """For a person: one line."""
        return (
            f"{self.store}: partition {self.shard} is complete: {self.utterances} utterances, "
            f"{self.computed} computed in this run, {self.left_out} left out; `ttsfast finalize` when all "
            "partitions are"
        )


def prepare(corpus_folder: Path | str, store_folder: Path | str, options: PrepareOptions) -> PrepareReport:
    """Prepare a store; after a crash it does only what is missing, and over a finished one nothing.

    Raises:
        CorpusFaults: something in the corpus is faulty and ``exclude_bad`` is not set; nothing is written.
        InputError: nothing usable is left; or the folder holds other files, another store (the message says
            what differs), or a damaged one; or another preparation is at work in it; or it cannot be written
            to, or the disk is full.
    """
    folder = Path(store_folder)
    corpus, options = _read(corpus_folder, folder, options)
    surveyed = survey_corpus(corpus, range(len(corpus.items)), options)
    utterances, exclusions = _choose(corpus.root, surveyed, corpus.exclusions, options)
    with explained_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder):
            made = _assemble(folder, corpus.root, options, utterances, exclusions)
    return replace(made, findings=_findings(utterances, exclusions, options))


def prepare_partition(
    corpus_folder: Path | str, store_folder: Path | str, options: PrepareOptions, partition: Partition
) -> PartitionReport:
    """Do one worker's partition of a preparation, into the folder of all; :func:`finalize` ends it.

    Workers may run at any time, on any machine that sees both folders, as often as one likes.

    Raises:
        CorpusFaults: something in this partition, or in the listing, is faulty and ``exclude_bad`` is not
            set.
        InputError: the folder holds other files or a complete store; or it cannot be written to, or the disk
            is full.
    """
    folder = Path(store_folder)
    corpus, options = _read(corpus_folder, folder, options)
    if (folder / NAME).exists() and not options.force:
        raise InputError(
            f"{folder}: holds a complete store; use another folder, add to it with `ttsfast append`, or "
            "--force to prepare what will replace it"
        )
    surveyed = survey_corpus(corpus, partition.places(len(corpus.items)), options)
    usable, exclusions = select_usable(corpus.root, surveyed, corpus.exclusions, options)
    with explained_disk_errors(folder):
        work = folder / WORK
        work.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder, shared=True):
            chunks = plan_chunks(usable, options, work)
            computed = compute_missing(chunks, options)
            write_partition(work, corpus, options, partition, surveyed)
    left_out = len(exclusions) - len(corpus.exclusions)
    return PartitionReport(str(folder), str(partition), len(surveyed), left_out, computed)


def finalize(store_folder: Path | str, *, force: bool = False) -> PrepareReport:
    """Make the store that all partitions together give: the bytes that :func:`prepare` would have written.

    Raises InputError as :func:`prepare` does, and when a partition is missing (the message says which).
    """
    folder = Path(store_folder)
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder; give the one that the partitions were prepared into")
    with explained_disk_errors(folder), folder_lock(folder):
        if (folder / NAME).exists() and not (folder / WORK).is_dir() and not force:
            manifest = read_manifest(folder)
            _sound(folder)
            remove_leftovers(folder, manifest)
            return report(folder, manifest, unchanged=True)
        joined = read_partitions(folder / WORK)
        options = replace(joined.options, force=force)
        utterances, exclusions = _choose(joined.root, joined.surveyed, joined.listed, options)
        made = _assemble(folder, joined.root, options, utterances, exclusions, compute=False)
    return replace(made, findings=_findings(utterances, exclusions, options))


def _read(corpus_folder: Path | str, folder: Path, options: PrepareOptions) -> tuple[Corpus, PrepareOptions]:
    root = Path(corpus_folder).absolute()
    check_folder(folder)
    corpus = read_corpus(root, options.layout, options.allow_roots)
    console.print(corpus.reading, markup=False, highlight=False, soft_wrap=True)
    return corpus, options.for_corpus(corpus.layout, len(corpus.items))


def _choose(
    root: Path, surveyed: Sequence[SurveyedUtterance], listed: Sequence[Exclusion], options: PrepareOptions
) -> tuple[list[SurveyedUtterance], list[Exclusion]]:
    """What goes into the store, with its split, and what does not."""
    usable, exclusions = select_usable(root, surveyed, listed, options)
    if not usable:
        raise InputError(
            f"{root}: none of {len(surveyed)} utterances is left; mend the corpus, or raise max_duration"
        )
    return with_splits(usable, options), exclusions


def _findings(
    utterances: Sequence[SurveyedUtterance], exclusions: Sequence[Exclusion], options: PrepareOptions
) -> tuple[Finding, ...]:
    return run_checks(subject_of(utterances, exclusions, options)).findings


def _assemble(
    folder: Path,
    root: Path,
    options: PrepareOptions,
    utterances: list[SurveyedUtterance],
    exclusions: list[Exclusion],
    *,
    compute: bool = True,
) -> PrepareReport:
    """Make the store from what is in the work folder, after computing what is missing there.

    Without ``compute`` nothing is: what is missing is an error. The folder is locked.
    """
    fingerprint = fingerprint_of(options.to_dict(), utterances, exclusions)
    if (folder / NAME).exists():
        existing = _existing(folder, options, fingerprint, utterances)
        if existing is not None:
            remove_leftovers(folder, existing)
            return report(folder, existing, unchanged=True)
    work = folder / WORK
    work.mkdir(exist_ok=True)
    chunks = plan_chunks(utterances, options, work)
    computed = compute_missing(chunks, options) if compute else 0
    if missing := [chunk for chunk in chunks if not chunk.path.exists()]:
        raise InputError(
            f"{missing[0].path}: features of {len(missing)} chunks are gone; run `ttsfast "
            "prepare ... --shard i/n` again"
        )
    like = options.like
    mean, std = statistics(utterances, chunks) if like is None else like.statistics
    texts = [*(one.text for one in utterances), *([] if like is None else like.symbols.characters)]
    manifest = Manifest(
        fingerprint=fingerprint,
        history=(),
        options=options.to_dict(),
        contract=options.contract,
        frontend=options.frontend,
        symbols=options.symbols or Symbols.of(texts),
        speakers=tuple(sorted({one.item.speaker for one in utterances})),
        mel_mean=mean,
        mel_std=std,
        statistics_of=len(utterances) if like is None else 0,
        tracks=track_statistics(utterances, chunks, options.features.tracks),
        corpus=str(root),
        shards=(),
        entries=UtteranceTable.of([]),
        exclusions=tuple(exclusions),
    )
    return report(folder, publish(folder, manifest, utterances, chunks), computed=computed)


def fingerprint_of(
    base: object, utterances: Sequence[SurveyedUtterance], exclusions: Sequence[Exclusion]
) -> str:
    """The SHA-256 of the JSON of what a store is made from: ``base`` (plain values, which say how), what
    makes every utterance what it is, and what was left out.
    """
    sources = (
        [
            one.item.id,
            one.item.text,
            one.item.speaker,
            one.item.truncated,
            one.audio,
            one.split,
            one.recording.sha256,
        ]
        for one in utterances
    )
    left_out = ([exclusion.id, exclusion.reason] for exclusion in exclusions)
    digest = hashlib.sha256(f"[{json.dumps(base, sort_keys=True)}, ".encode())
    for piece in chain(list_pieces(sources), ", ", list_pieces(left_out), "]"):
        digest.update(piece.encode())
    return digest.hexdigest()


def _existing(
    folder: Path, options: PrepareOptions, fingerprint: str, utterances: Sequence[SurveyedUtterance]
) -> Manifest | None:
    """The finished store when it is just what is asked for; None when it is to be replaced."""
    try:
        manifest = read_manifest(folder)
    except InputError:
        if not options.force:
            raise
        return None
    if options.force:
        if manifest.fingerprint == fingerprint:
            # Its shards will be written anew under the same names, so for a while it is no store.
            withdraw_manifest(folder)
        return None
    if manifest.fingerprint != fingerprint:
        raise InputError(
            f"{folder}: prepared from other input: {_difference(manifest, options, utterances)}; "
            "use another folder, `ttsfast append` to add what is new, or --force to replace it"
        )
    _sound(folder)
    return manifest


def _sound(folder: Path) -> None:
    problems = verify(folder, quick=True).problems
    if problems:
        raise InputError(f"{problems[0]} (found in a finished store: --force makes it anew)")


def _difference(manifest: Manifest, options: PrepareOptions, utterances: Sequence[SurveyedUtterance]) -> str:
    wanted = json.loads(json.dumps(options.to_dict()))
    for name in sorted(set(wanted) | set(manifest.options)):
        before, now = manifest.options.get(name), wanted.get(name)
        if before != now:
            if name.startswith("like."):
                return "the store that it is like is another, or none"
            return f"{name} was {before!r}, is {now!r}"
    before = dict(zip(manifest.entries.id, manifest.entries.audio_sha256, strict=True))
    now = {one.item.id: one.recording.sha256 for one in utterances}
    added, removed = len(now.keys() - before.keys()), len(before.keys() - now.keys())
    changed = sum(before[name] != now[name] for name in before.keys() & now.keys())
    if added or removed or changed:
        return f"{added} utterances are new, {removed} are gone, {changed} have another recording"
    if manifest.history:
        appended = len(manifest.entries) - manifest.statistics_of
        return f"its last {appended} utterances were appended, and its statistics are not of them"
    return "texts, speakers, splits or the list of exclusions have changed"
