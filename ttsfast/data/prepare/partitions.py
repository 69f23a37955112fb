"""What a worker of ``prepare --shard i/n`` leaves behind: the survey of its partition, in one file.

Workers do not talk to each other. Partition i has every n-th block of the listing, a block being what shares
a work file of features; its record is written last, so a partition that has one is complete. The records
together hold all that ``finalize`` needs: the corpus itself is not looked at again.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ttsfast.data.checks.clip import ClipFigures
from ttsfast.data.corpus.listings import Corpus, CorpusItem, Exclusion
from ttsfast.data.prepare import extraction
from ttsfast.data.prepare.extraction import RecordingInfo
from ttsfast.data.prepare.options import PrepareOptions
from ttsfast.data.prepare.survey import SurveyedUtterance
from ttsfast.errors import InputError
from ttsfast.files import atomic_write

_RECORD = re.compile(r"part-([0-9a-f]{16})-(\d+)-of-(\d+)\.json")


@dataclass(frozen=True)
class Partition:
    """Worker ``index`` (from 1) of ``count``."""

    index: int
    count: int

    @classmethod
    def parse(cls, value: str) -> Partition:
        """From ``i/n``; raises InputError for anything else."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--shard is {value!r}, must be i/n with i from 1 to n, such as 3/8")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def places(self, utterances: int) -> list[int]:
        """Which utterances of the listing are this partition's."""
        return [p for p in range(utterances) if p // extraction.CHUNK % self.count == self.index - 1]


@dataclass(frozen=True)
class JoinedPartitions:
    """All partitions of a preparation, joined."""

    root: Path
    options: PrepareOptions
    listed: list[Exclusion]
    """Faults of the listing itself."""
    surveyed: list[SurveyedUtterance]
    """In the listing's order."""


def write_partition(
    work: Path,
    corpus: Corpus,
    options: PrepareOptions,
    partition: Partition,
    surveyed: list[SurveyedUtterance],
) -> None:
    """Publish a partition's record."""
    common = _common(corpus, options)
    body = {
        "common": common,
        "surveyed": [
            {
                "place": one.place,
                "item": {**asdict(one.item), "audio": one.audio},
                "text": one.text,
                "recording": asdict(one.recording),
                "problems": [asdict(problem) for problem in one.problems],
            }
            for one in surveyed
        ],
    }
    content = json.dumps(body, ensure_ascii=False).encode()
    name = f"part-{_plan(common)}-{partition.index}-of-{partition.count}.json"
    with atomic_write(work / name) as handle:
        handle.write(content + hashlib.sha256(content).hexdigest().encode())


def read_partitions(work: Path) -> JoinedPartitions:
    """Join the partitions of the one preparation that is complete.

    Raises InputError when none is there; when some are missing (and says which); when two preparations are;
    and for a record that is damaged.
    """
    records: dict[tuple[str, int], dict[int, Path]] = {}
    for path in work.iterdir() if work.is_dir() else ():
        if match := _RECORD.fullmatch(path.name):
            records.setdefault((match[1], int(match[3])), {})[int(match[2])] = path
    if not records:
        raise InputError(
            f"{work.parent}: no partition of a preparation is there; run `ttsfast prepare ... --shard i/n` "
            "for each i"
        )
    complete = {key: paths for key, paths in records.items() if set(paths) >= set(range(1, key[1] + 1))}
    if not complete:
        (_, count), paths = max(records.items(), key=lambda item: len(item[1]) / item[0][1])
        missing = [f"{i}/{count}" for i in range(1, count + 1) if i not in paths]
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise InputError(
            f"{work.parent}: partition {missing[0]}{more} is missing; run `ttsfast prepare ... --shard "
            f"{missing[0]}`"
        )
    if len({plan for plan, _ in complete}) > 1:
        raise InputError(
            f"{work.parent}: partitions of {len(complete)} preparations with other options or another "
            f"listing are complete; remove {work} and prepare one of them again"
        )
    (plan, count), paths = next(iter(complete.items()))
    bodies = [_read(paths[index], plan) for index in range(1, count + 1)]
    common = bodies[0]["common"]
    root = Path(common["root"])
    options = PrepareOptions.from_dict(common["options"], exclude_bad=common["exclude_bad"])
    try:
        surveyed = sorted(
            (_surveyed(value, root) for b in bodies for value in b["surveyed"]), key=lambda x: x.place
        )
        listed = [Exclusion(**value) for value in common["listed"]]
    except (KeyError, TypeError) as error:
        raise InputError(f"{paths[1]}: not the record of a partition ({error!r}); {_REMEDY}") from error
    if [one.place for one in surveyed] != list(range(common["utterances"])):
        raise InputError(f"{work.parent}: the partitions do not make up the listing; {_REMEDY}")
    return JoinedPartitions(root, options, listed, surveyed)


_REMEDY = "remove it and run `ttsfast prepare ... --shard` for it again"


def _common(corpus: Corpus, options: PrepareOptions) -> dict[str, Any]:
    """What all partitions must agree on."""
    return {
        "root": str(corpus.root),
        "options": options.to_dict(),
        "exclude_bad": options.exclude_bad,
        "block": extraction.CHUNK,
        "utterances": len(corpus.items),
        "listing": _digest([[i.id, i.text, i.speaker, i.truncated, i.split] for i in corpus.items]),
        "listed": [asdict(exclusion) for exclusion in corpus.exclusions],
    }


def _plan(common: dict[str, Any]) -> str:
    """Names a preparation: its partitions belong together, wherever the corpus is mounted."""
    return _digest({name: value for name, value in common.items() if name != "root"})[:16]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read(path: Path, plan: str) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        body = json.loads(content[:-64])
        if hashlib.sha256(content[:-64]).hexdigest().encode() != content[-64:]:
            raise ValueError("its hash does not fit")
        if _plan(body["common"]) != plan:
            raise ValueError("it is of another preparation than its name says")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not the record of a partition ({error}); {_REMEDY}") from error
    return body


def _surveyed(value: dict[str, Any], root: Path) -> SurveyedUtterance:
    item = CorpusItem(**{**value["item"], "audio": str(root / value["item"]["audio"])})
    return SurveyedUtterance(
        place=value["place"],
        item=item,
        text=value["text"],
        audio=value["item"]["audio"],
        recording=_recording(value["recording"]),
        problems=tuple(Exclusion(**problem) for problem in value["problems"]),
    )


def _recording(value: dict[str, Any]) -> RecordingInfo:
    figures = value["figures"]
    return RecordingInfo(**{**value, "figures": None if figures is None else ClipFigures(**figures)})
