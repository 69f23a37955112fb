"""What a check is, and what it looks at: the utterances of a corpus or of a store, in figures.

A check of one's own is a class such as these, named in the entry point group ``ttsfast.checks`` of any
installed package; ``docs/doctor.md`` has one in ten lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast.data.checks.clip import ClipFigures
from ttsfast.data.checks.finding import Evidence, Finder, Finding
from ttsfast.data.corpus.listings import Exclusion
from ttsfast.data.features.contract import MelContract
from ttsfast.errors import InputError, in_their_code

if TYPE_CHECKING:
    from ttsfast.data.store.recordings import Recordings
    from ttsfast.data.store.store import Store

GROUP = "ttsfast.checks"
NEEDS = ("texts", "audio", "store", "features")
DEFAULT_REDUCTION = 4
"""``model.reduction_factor`` where nobody says another."""


@dataclass(frozen=True, slots=True)
class Row:
    """One utterance."""

    id: str
    text: str
    """As the listing has it; of a store whose corpus is gone, as it was encoded."""
    symbols: str
    """As the front end left it; what is encoded."""
    speaker: str = ""
    split: str | None = None
    frames: int = 0
    """Of its features; 0 where they are not known."""
    truncated: bool = False
    line: int = 0
    """In the listing, from 1; 0 where it is not known."""
    audio: str = ""
    """The recording's path; empty where it is not known."""
    figures: ClipFigures | None = None
    """None where the recording was not read."""
    own: Mapping[str, Any] = field(default_factory=dict)
    """What checks of one's own measured in the recording, by the name of the check."""


@dataclass(frozen=True)
class Subject:
    """A corpus or a store, as checks see it."""

    rows: Sequence[Row]
    """In the order of the listing."""
    left_out: Sequence[Exclusion] = ()
    """Lines and recordings that could not be used."""
    language: str = "en"
    phonemes: bool = False
    contract: MelContract = field(default_factory=lambda: MelContract.preset("hifigan-22k"))
    reduction: int = DEFAULT_REDUCTION
    """Mel frames of a decoder step."""
    trimmed: bool = False
    """Features are, or will be, of recordings without the silence at their ends."""
    listed: bool = False
    """The corpus says itself what is held out."""
    store: Store | None = None
    recordings: Recordings | None = None
    """Of the store, where they are at hand."""

    @cached_property
    def heard(self) -> list[tuple[Row, ClipFigures]]:
        """The utterances whose recording was read, and has sound."""
        return [(r, r.figures) for r in self.rows if r.figures is not None and not r.figures.silent]

    @cached_property
    def characters(self) -> frozenset[str]:
        """All that texts are written with: a few hundred, which is looked at before each of many texts is."""
        return frozenset().union(*(row.text for row in self.rows))

    @cached_property
    def read(self) -> bool:
        """Whether recordings were."""
        return any(row.figures is not None for row in self.rows)

    def seconds(self, row: Row) -> float:
        """How long its features last, or its recording, where there are none yet; 0 where neither is
        known."""
        if row.frames:
            return row.frames * self.contract.hop_length / self.contract.sample_rate
        return 0.0 if row.figures is None else row.figures.seconds


class Check(Finder):
    """Something to look for in a dataset."""

    needs: str = "texts"
    """One of :data:`NEEDS`: what must be at hand."""

    def measure(self, samples: np.ndarray, rate: int) -> Any:
        """Measure a recording (n, channels) float32; called where ``needs`` is "audio". It becomes
        ``row.own[self.name]``. Checks of the package read ``row.figures`` instead.
        """
        return None

    def find(self, subject: Subject) -> Iterable[Finding]:
        """What is wrong with ``subject``; nothing where it is right."""
        raise NotImplementedError


def own_checks() -> list[Check]:
    """Those that other installed packages bring; raises InputError, naming it, for one that is none."""
    found = []
    for entry in entry_points(group=GROUP):
        try:
            made = entry.load()()
        except Exception as error:
            raise InputError(
                f"the check {entry.name!r} ({entry.value}) cannot be made: {in_their_code(error)}; mend it, "
                f"or "
                "remove its package"
            ) from error
        if not isinstance(made, Check) or made.needs not in NEEDS:
            raise InputError(
                f"the check {entry.name!r} ({entry.value}) is none: derive it from "
                f"ttsfast.data.checks.check.Check, with needs one of {', '.join(NEEDS)}"
            )
        found.append(made)
    return found


def some(count: int, total: int, thing: str, one: str, many: str) -> str:
    """A subject and its verb: "3 of 40 recordings are"; "the only recording is"; "all 40 recordings are"."""
    if total == 1:
        return f"the only {thing} {one}"
    chosen = f"all {total}" if count == total else f"{count} of {total}"
    return f"{chosen} {thing}s {one if count == 1 else many}"


def worst(pairs: Iterable[tuple[float, Evidence]]) -> Iterator[Evidence]:
    """Evidence by its weight, the heaviest first."""
    yield from (evidence for _, evidence in sorted(pairs, key=lambda pair: -pair[0]))
