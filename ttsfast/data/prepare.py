"""From a corpus folder to a feature store, in steps that each can be interrupted and taken up again.

1. Look at everything: texts, recordings. Faults are listed together, before any folder is made.
2. Log-mels, utterance by utterance, into a work folder inside the store's (``features.py``).
3. Statistics over the training split, in float64; then features are normalised and written as shards.
4. The manifest, last: from then on the folder is a store. The work folder goes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ttsfast.data import features
from ttsfast.data.corpora import Corpus, CorpusItem, Exclusion, count_exclusions, read_corpus
from ttsfast.data.features import FeatureOptions
from ttsfast.data.loader import available_cores
from ttsfast.data.manifest import NAME, Entries, Manifest, read_manifest
from ttsfast.data.mel import MelContract
from ttsfast.data.split import split_of
from ttsfast.data.store import STD_FLOOR
from ttsfast.data.text import Symbols, TextFrontend, normalize_text
from ttsfast.data.writer import Item, statistics, write_shards
from ttsfast.errors import InputError
from ttsfast.files import fsync_folder

WORK = ".ttsfast-work"
_OURS = re.compile(r"mel-[0-9a-f]{12}-\d{5}\.safetensors")
_LEFTOVER = re.compile(r"\.(mel-[0-9a-f]{12}-\d{5}\.safetensors|manifest\.json)\..*\.tmp")


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How a corpus becomes a store. All but the last three shape the store and are in its fingerprint."""

    frontend: TextFrontend = field(default_factory=lambda: TextFrontend("en"))
    contract: MelContract = field(default_factory=lambda: MelContract.preset("librosa-22k"))
    layout: str = "auto"
    symbols: Symbols | None = None
    """A character set to hold to, another store's say; None: the characters of the corpus."""
    validation_fraction: float = 0.05
    seed: int = 0
    resample: bool = False
    mixdown: bool = False
    trim: bool = False
    max_duration: float | None = None
    """Seconds; longer utterances are left out, and listed."""
    exclude_bad: bool = False
    """Go on without what is faulty, and list it, where otherwise nothing is written."""
    jobs: int = -1
    """Processes for the features; -1: one for every core."""
    force: bool = False
    """Replace a store that was made otherwise, or that is damaged."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation_fraction < 1:
            raise InputError(f"validation_fraction is {self.validation_fraction}, must be from 0 to below 1")
        if self.max_duration is not None and not self.max_duration > 0:
            raise InputError(f"max_duration is {self.max_duration}, must be above 0 seconds")
        if self.jobs < 1 and self.jobs != -1:
            raise InputError(f"jobs is {self.jobs}, must be 1 or more, or -1 for every core")

    @property
    def features(self) -> FeatureOptions:
        """The part that shapes log-mels."""
        return FeatureOptions(self.contract, self.resample, self.mixdown, self.trim)

    def shaping(self) -> dict[str, Any]:
        """Everything that shapes the store, flat, by name."""
        return {
            "features_version": features.VERSION,
            "layout": self.layout,
            "symbols": None if self.symbols is None else self.symbols.to_list(),
            "validation_fraction": self.validation_fraction,
            "seed": self.seed,
            "resample": self.resample,
            "mixdown": self.mixdown,
            "trim": self.trim,
            "max_duration": self.max_duration,
            "std_floor": STD_FLOOR,
            **{f"contract.{name}": value for name, value in self.contract.to_dict().items()},
            **{f"frontend.{name}": value for name, value in self.frontend.to_dict().items()},
        }


@dataclass(frozen=True)
class PrepareReport:
    """What preparation did."""

    store: Path
    fingerprint: str
    unchanged: bool
    """The store was there already, made from the same input in the same way: nothing was done."""
    computed: int
    """Utterances whose features were computed in this run; the others were left by an interrupted one."""
    utterances: int
    train: int
    validation: int
    frames: int
    seconds: float
    """Of audio, by its frames."""
    speakers: int
    symbols: int
    exclusions: tuple[Exclusion, ...]

    @property
    def exclusion_counts(self) -> dict[str, int]:
        """Reason: how many."""
        return count_exclusions(self.exclusions)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is no fault, but will be missed later; a line each, with the remedy."""
        if self.validation:
            return ()
        return (
            "nothing is held out, and training needs an utterance to validate on; add distinct texts, raise "
            "--validation-fraction, or list ids in the corpus's validation.txt",
        )

    def __str__(self) -> str:
        """For a person: a few lines."""
        did = "nothing to do, it is complete" if self.unchanged else f"{self.computed} computed in this run"
        lines = [
            f"{self.store}: {self.utterances} utterances, {self.seconds / 3600:.2f} h ({did})",
            f"  {self.train} to train on, {self.validation} held out; {self.speakers} speakers, "
            f"{self.symbols} symbols; fingerprint {self.fingerprint[:12]}",
        ]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  left out: {count} x {reason}" for reason, count in self.exclusion_counts.items()]
        lines += [f"    {exclusion.id}: {exclusion.detail}" for exclusion in self.exclusions]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        plain = {name: value for name, value in vars(self).items() if name not in ("store", "exclusions")}
        return plain | {
            "store": str(self.store),
            "warnings": list(self.warnings),
            "exclusion_counts": self.exclusion_counts,
            "exclusions": [vars(exclusion) for exclusion in self.exclusions],
        }


class CorpusFaults(InputError):
    """The corpus has faults; ``faults`` lists every one, the message counts them and names the first."""

    def __init__(self, root: Path, faults: list[Exclusion]) -> None:
        self.faults = faults
        counts = ", ".join(f"{count} x {reason}" for reason, count in count_exclusions(faults).items())
        super().__init__(
            f"{root}: {len(faults)} faults ({counts}); the first: {faults[0].id}: {faults[0].detail}; "
            "mend the corpus, or leave what is faulty out with --exclude-bad"
        )


def prepare(corpus_folder: Path | str, store_folder: Path | str, options: PrepareOptions) -> PrepareReport:
    """Prepare a store; after a crash it does only what is missing, and over a finished one nothing.

    Raises:
        CorpusFaults: something in the corpus is faulty and ``exclude_bad`` is not set; nothing is written.
        InputError: nothing usable is left; or the folder holds other files, another store (the message says
            what differs), or a damaged one; or another preparation is at work in it.
    """
    folder = Path(store_folder)
    root = Path(corpus_folder).absolute()
    _check_folder(folder)
    jobs = available_cores() if options.jobs == -1 else options.jobs
    corpus = read_corpus(root, options.layout)
    # What "auto" found, so that naming it the next time changes nothing.
    options = replace(options, layout=corpus.layout)
    items, exclusions = _look(corpus, options, jobs)
    fingerprint = _fingerprint(options, items, exclusions)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if (folder / NAME).exists():
            manifest = _existing(folder, options, fingerprint, items)
            if manifest is not None:
                _clean(folder, manifest)
                return _report(folder, manifest, unchanged=True, computed=0)
        work = folder / WORK
        work.mkdir(exist_ok=True)
        audio, recordings = [item.corpus.audio for item in items], [item.recording for item in items]
        chunks = features.plan_chunks(audio, recordings, options.features, work)
        computed = features.compute_missing(chunks, options.features, jobs)
        mean, std = statistics(items, chunks)
        symbols = options.symbols or Symbols.of(item.text for item in items)
        speakers = sorted({item.corpus.speaker for item in items})
        entries, shards = write_shards(folder, fingerprint, items, chunks, mean, std, symbols, speakers)
        manifest = Manifest(
            fingerprint=fingerprint,
            options=options.shaping(),
            contract=options.contract,
            frontend=options.frontend,
            symbols=symbols,
            speakers=tuple(speakers),
            mel_mean=mean,
            mel_std=std,
            corpus=str(root),
            shards=tuple(shards),
            entries=Entries.of(entries),
            exclusions=tuple(exclusions),
        )
        manifest.write(folder)
        _clean(folder, manifest)
    return _report(folder, manifest, unchanged=False, computed=computed)


def _look(corpus: Corpus, options: PrepareOptions, jobs: int) -> tuple[list[Item], list[Exclusion]]:
    """Everything about the corpus that can be known before features are computed."""
    faults = list(corpus.exclusions)
    texts = options.frontend.batch([item.text for item in corpus.items])
    recordings = features.inspect([item.audio for item in corpus.items], options.features, jobs)
    usable, too_long = [], []
    for item, text, recording in zip(corpus.items, texts, recordings, strict=True):
        problems = _text_problem(item, text, options.symbols)
        if recording.fault:
            problems.append(Exclusion(item.id, recording.reason, recording.fault))
        seconds = recording.frames * options.contract.hop_length / options.contract.sample_rate
        if problems:
            faults += problems
        elif options.max_duration is not None and seconds > options.max_duration:
            detail = f"{seconds:.2f} s, max_duration is {options.max_duration:g} s"
            too_long.append(Exclusion(item.id, "too long", detail))
        else:
            usable.append((item, text, recording))
    if faults and not options.exclude_bad:
        raise CorpusFaults(corpus.root, faults)
    if not usable:
        raise InputError(
            f"{corpus.root}: none of {len(corpus.items)} utterances is left; mend the corpus, or raise "
            "max_duration"
        )
    # By letters, whatever the frontend makes of them.
    letters = [normalize_text(item.text, options.frontend.language) for item, _, _ in usable]
    listed = [item.split for item, _, _ in usable]
    splits = split_of(letters, listed, fraction=options.validation_fraction, seed=options.seed)
    items = [
        Item(item, text, Path(os.path.relpath(item.audio, corpus.root)).as_posix(), split, recording)
        for (item, text, recording), split in zip(usable, splits, strict=True)
    ]
    return items, faults + too_long


def _text_problem(item: CorpusItem, text: str, symbols: Symbols | None) -> list[Exclusion]:
    if not text:
        return [Exclusion(item.id, "empty text", f"nothing is left of {item.text!r}; give it words")]
    if symbols is not None:
        try:
            symbols.encode(text, "the text")
        except InputError as error:
            return [Exclusion(item.id, "unknown symbol", str(error))]
    return []


def _fingerprint(options: PrepareOptions, items: list[Item], exclusions: list[Exclusion]) -> str:
    sources = [
        [
            item.corpus.id,
            item.corpus.text,
            item.corpus.speaker,
            item.corpus.truncated,
            item.audio,
            item.split,
            item.recording.sha256,
        ]
        for item in items
    ]
    content = [options.shaping(), sources, [[e.id, e.reason] for e in exclusions]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_folder(folder: Path) -> None:
    """Refuse to write below a file, or among files that are not ours; makes nothing."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder for the store")
    for parent in folder.parents:
        if parent.exists() and not parent.is_dir():
            raise InputError(
                f"{folder}: cannot be made, {parent} is a file; give another folder for the store"
            )
    if folder.is_dir() and not (folder / NAME).exists():
        strangers = [p.name for p in folder.iterdir() if p.name != WORK and not _OURS.fullmatch(p.name)]
        strangers = [name for name in strangers if not _LEFTOVER.fullmatch(name)]
        if strangers:
            raise InputError(f"{folder}: holds other files ({sorted(strangers)[0]}); give an empty folder")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One preparation at a time; the lock is the system's, so a killed process leaves none behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another preparation is at work there; wait for it") from None
        yield
    finally:
        os.close(descriptor)


def _existing(folder: Path, options: PrepareOptions, fingerprint: str, items: list[Item]) -> Manifest | None:
    """The finished store when it is just what is asked for; None when it is to be replaced."""
    from ttsfast.data.verify import verify

    try:
        manifest = read_manifest(folder)
    except InputError:
        if not options.force:
            raise
        return None
    if options.force:
        if manifest.fingerprint == fingerprint:
            # Its shards will be written anew under the same names, so for a while it is no store.
            (folder / NAME).unlink()
            fsync_folder(folder)
        return None
    if manifest.fingerprint != fingerprint:
        raise InputError(
            f"{folder}: prepared from other input: {_difference(manifest, options, items)}; "
            "use another folder, or --force to replace it"
        )
    problems = verify(folder, quick=True).problems
    if problems:
        raise InputError(f"{problems[0]} (found in a finished store: --force makes it anew)")
    return manifest


def _difference(manifest: Manifest, options: PrepareOptions, items: list[Item]) -> str:
    wanted = json.loads(json.dumps(options.shaping()))
    for name in sorted(set(wanted) | set(manifest.options)):
        before, now = manifest.options.get(name), wanted.get(name)
        if before != now:
            return f"{name} was {before!r}, is {now!r}"
    before = dict(zip(manifest.entries.id, manifest.entries.audio_sha256, strict=True))
    now = {item.corpus.id: item.recording.sha256 for item in items}
    added, removed = len(now.keys() - before.keys()), len(before.keys() - now.keys())
    changed = sum(before[name] != now[name] for name in before.keys() & now.keys())
    if added or removed or changed:
        return f"{added} utterances are new, {removed} are gone, {changed} have another recording"
    return "texts, speakers, splits or the list of exclusions have changed"


def _clean(folder: Path, manifest: Manifest) -> None:
    """Remove what interrupted runs and a replaced store have left."""
    current = {shard.name for shard in manifest.shards}
    for path in folder.iterdir():
        if (_OURS.fullmatch(path.name) and path.name not in current) or _LEFTOVER.fullmatch(path.name):
            path.unlink()
    shutil.rmtree(folder / WORK, ignore_errors=True)


def _report(folder: Path, manifest: Manifest, *, unchanged: bool, computed: int) -> PrepareReport:
    entries = manifest.entries
    frames = int(entries.frames.sum())
    return PrepareReport(
        store=folder,
        fingerprint=manifest.fingerprint,
        unchanged=unchanged,
        computed=computed,
        utterances=len(entries),
        train=entries.split.count("train"),
        validation=entries.split.count("validation"),
        frames=frames,
        seconds=frames * manifest.contract.hop_length / manifest.contract.sample_rate,
        speakers=len(manifest.speakers),
        symbols=len(manifest.symbols),
        exclusions=manifest.exclusions,
    )
