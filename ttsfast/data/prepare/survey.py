"""The survey of a corpus: all that can be known of it before features are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from ttsfast.data.checks.check import Row, Subject
from ttsfast.data.corpus.listings import Corpus, CorpusItem, Exclusion, count_exclusions
from ttsfast.data.corpus.split import split_of
from ttsfast.data.corpus.text import Symbols, normalize_text
from ttsfast.data.prepare import extraction
from ttsfast.data.prepare.extraction import Chunk, RecordingInfo
from ttsfast.data.prepare.options import PrepareOptions
from ttsfast.errors import InputError
from ttsfast.files import require_room


@dataclass(frozen=True, slots=True)
class SurveyedUtterance:
    """One listed utterance, and what the survey found of it."""

    place: int
    """In the listing, from 0; lines that are no utterance do not count."""
    item: CorpusItem
    text: str
    """As the frontend left it."""
    audio: str
    """Relative to the corpus folder."""
    recording: RecordingInfo
    problems: tuple[Exclusion, ...]
    """Why it cannot be used; empty for a good one."""
    split: str = ""
    """"train", "validation" or "test", once that is decided."""


class CorpusFaults(InputError):
    """The corpus has faults; ``faults`` lists every one, the message counts them and names the first."""

    def __init__(self, root: Path, faults: list[Exclusion]) -> None:
        self.faults = faults
        counts = ", ".join(f"{count} x {reason}" for reason, count in count_exclusions(faults).items())
        super().__init__(
            f"{root}: {len(faults)} faults ({counts}); the first: {faults[0].id}: {faults[0].detail}; "
            "mend the corpus, or leave what is faulty out with --exclude-bad"
        )


def survey_corpus(corpus: Corpus, places: Sequence[int], options: PrepareOptions) -> list[SurveyedUtterance]:
    """Read the utterances at ``places`` of the listing: their texts and, sample by sample, recordings."""
    items = [corpus.items[place] for place in places]
    texts = options.frontend.batch([item.text for item in items])
    recordings = extraction.inspect_recordings(
        [item.audio for item in items], options.features, options.workers, engine=options.engine
    )
    surveyed = []
    for place, item, text, recording in zip(places, items, texts, recordings, strict=True):
        problems = _text_problem(item, text, options.symbols)
        if recording.fault:
            problems.append(Exclusion(item.id, recording.reason, recording.fault))
        audio = corpus.relative(item.audio)
        # One string in memory for both, where the front end changes nothing.
        text = item.text if text == item.text else text
        surveyed.append(SurveyedUtterance(place, item, text, audio, recording, tuple(problems)))
    return surveyed


def _text_problem(item: CorpusItem, text: str, symbols: Symbols | None) -> list[Exclusion]:
    if not text:
        return [Exclusion(item.id, "empty text", f"nothing is left of {item.text!r}; give it words")]
    if symbols is not None:
        try:
            symbols.encode(text, "the text")
        except InputError as error:
            return [Exclusion(item.id, "unknown symbol", str(error))]
    return []


def select_usable(
    root: Path, surveyed: Sequence[SurveyedUtterance], listed: Sequence[Exclusion], options: PrepareOptions
) -> tuple[list[SurveyedUtterance], list[Exclusion]]:
    """The usable ones, in order, and what is left out: faults of the listing (``listed``) first, then of the
    utterances, then what is too long.

    Raises CorpusFaults unless faults may be left out.
    """
    faults = list(listed)
    usable, too_long = [], []
    for one in surveyed:
        seconds = one.recording.frames * options.contract.hop_length / options.contract.sample_rate
        if one.problems:
            faults += one.problems
        elif options.max_duration is not None and seconds > options.max_duration:
            detail = f"{seconds:.2f} s, max_duration is {options.max_duration:g} s"
            too_long.append(Exclusion(one.item.id, "too long", detail))
        else:
            usable.append(one)
    if faults and not options.exclude_bad:
        raise CorpusFaults(root, faults)
    return usable, faults + too_long


def with_splits(
    usable: Sequence[SurveyedUtterance], options: PrepareOptions, known: Mapping[str, str] | None = None
) -> list[SurveyedUtterance]:
    """The usable utterances, each with its split; ``known`` as :func:`split_of` takes it."""
    splits = split_of(
        [letters(one.item, options) for one in usable],
        [one.item.split for one in usable],
        fraction=options.validation_fraction,
        test_fraction=options.test_fraction or 0.0,
        seed=options.seed,
        known=known,
    )
    return [replace(one, split=split) for one, split in zip(usable, splits, strict=True)]


def subject_of(
    surveyed: Sequence[SurveyedUtterance],
    left_out: Sequence[Exclusion],
    options: PrepareOptions,
    **more: Any,
) -> Subject:
    """What the survey found, as checks see it: the utterances without a problem; ``more`` are other fields of
    the subject.
    """
    rows = [
        Row(
            id=one.item.id,
            text=one.item.text,
            symbols=one.text,
            speaker=one.item.speaker,
            split=one.split or one.item.split,
            frames=one.recording.frames,
            truncated=one.item.truncated,
            line=one.item.line,
            audio=str(one.item.audio),
            figures=one.recording.figures,
        )
        for one in surveyed
        if not one.problems
    ]
    return Subject(
        rows=rows,
        left_out=left_out,
        language=options.frontend.language,
        phonemes=options.frontend.phonemes,
        contract=options.contract,
        trimmed=options.trim,
        **more,
    )


def letters(item: CorpusItem, options: PrepareOptions) -> str:
    """What splits go by: a text's letters, whatever the front end makes of them."""
    return normalize_text(item.text, options.frontend.language)


def plan_chunks(usable: Sequence[SurveyedUtterance], options: PrepareOptions, work: Path) -> list[Chunk]:
    """The work files of the usable utterances, in order.

    Cut by their place in the listing, so that every worker, whatever part of the corpus it knows, and every
    later run with other faults, cuts at the same places.
    """
    blocks = (list(block) for _, block in groupby(usable, lambda one: one.place // extraction.CHUNK))
    return [
        Chunk.planned(
            work, [one.item.audio for one in block], [one.recording for one in block], options.features
        )
        for block in blocks
    ]


def compute_missing(chunks: Sequence[Chunk], options: PrepareOptions) -> int:
    """Compute the features that are missing, by the engine and on the device that ``options`` name.

    Raises InputError, before the first, where the disk has no room for them and for the shards made of them.
    """
    if missing := [chunk for chunk in chunks if not chunk.path.exists()]:
        values = options.contract.n_mels + len(options.features.tracks)
        work, shards = (sum(chunk.frames for chunk in some) for some in (missing, chunks))
        # In float32 first, then in float16.
        require_room(missing[0].path.parent, values * (4 * work + 2 * shards), "preparing the corpus")
    return extraction.compute_missing(
        chunks, options.features, options.workers, engine=options.engine, device=options.device
    )
