"""What an evaluation found, and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttsfast.data.features.contract import MelContract
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.spoken import SpokenSample
from ttsfast.evaluation.targets import DEFINITIONS
from ttsfast.evaluation.verdict import State, Verdict, judge, overall, table
from ttsfast.evaluation.words import Words
from ttsfast.files import atomic_write

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class Measured:
    """One utterance that was measured."""

    id: str
    text: str
    speaker: str
    """Empty where the corpus has only one."""
    recorded_frames: int
    spoken_frames: int
    """Free-running."""
    stopped: bool


@dataclass
class Evaluation:
    """What :func:`evaluate` found."""

    split: str
    figures: Figures
    """By the names of :data:`DEFINITIONS`; what could not be measured is absent."""
    baselines: dict[str, Figures]
    teacher_forced: Figures
    """All that the teacher-forced pass measured."""
    free_running: Figures
    """All that the free-running pass measured."""
    measured: list[Measured]
    """Every utterance, from the shortest to the longest."""
    words: Words | None
    """None where nothing listened."""
    vocoder: str
    """The name of what made sound of mels."""
    stop_threshold: float
    contract: MelContract
    language: str
    """Of the sentences, as in BCP 47."""
    phonemes: bool
    """Whether the texts of the store are phonemes."""
    written: dict[str, str]
    """By utterance, the sentence of its phonemes, where that is known; empty for a store of letters."""
    samples: list[SpokenSample] = field(default_factory=list)
    """Spread evenly over the lengths."""
    worst: list[SpokenSample] = field(default_factory=list)
    """The worst of the others, the worst of all first."""

    @property
    def verdicts(self) -> list[Verdict]:
        """Every figure against its target and baselines."""
        return judge(self.figures, self.baselines)

    @property
    def verdict(self) -> State:
        """Of the whole voice."""
        return overall(self.verdicts)

    @property
    def utterances(self) -> int:
        """How many were measured."""
        return len(self.measured)

    @property
    def frames(self) -> int:
        """Recorded, of all utterances."""
        return sum(row.recorded_frames for row in self.measured)

    def sentence(self, name: str, text: str) -> tuple[str, str]:
        """What to show of an utterance whose text in the store is ``text``, and its language (BCP 47)."""
        if name in self.written:
            return self.written[name], self.language
        return text, self.language + ("-fonipa" if self.phonemes else "")

    @property
    def by_speaker(self) -> dict[str, Figures]:
        """The figures of each speaker's utterances; empty where the corpus has only one."""
        names = sorted({row.speaker for row in self.measured} - {""})
        return {
            name: self.figures.part({row.id for row in self.measured if row.speaker == name})
            for name in names
        }

    def to_dict(self) -> dict[str, Any]:
        """The content of ``metrics.json``; a figure that could not be measured is null."""
        verdicts = self.verdicts
        return {
            **{name: self.figures.get(name) for name in DEFINITIONS},
            "passed": overall(verdicts) is State.PASS,
            "verdict": overall(verdicts).value,
            "verdicts": {v.name: v.state.value for v in verdicts if v.state is not None},
            "intervals": {v.name: list(v.interval) for v in verdicts if v.interval is not None},
            "targets": {v.name: v.wanted for v in verdicts if v.state is not None},
            "baselines": {name: dict(figures) for name, figures in self.baselines.items()},
            "teacher_forced": dict(self.teacher_forced),
            "free_running": dict(self.free_running),
            "split": self.split,
            "utterances": self.utterances,
            "frames": self.frames,
            "stop_threshold": self.stop_threshold,
            "vocoder": self.vocoder,
            "mel_contract": self.contract.to_dict(),
            "definitions": DEFINITIONS,
            "by_speaker": {name: dict(figures) for name, figures in self.by_speaker.items()},
            "words": None if self.words is None else self.words.to_dict(),
            "by_utterance": {row.id: self.figures.of(row.id) for row in self.measured},
        }

    def save(self, path: Path) -> None:
        """Write :meth:`to_dict` as JSON, atomically."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        with atomic_write(path) as handle:
            handle.write((text + "\n").encode())

    def table(self) -> Group:
        """For a terminal: each figure, its target, and the baselines beside it."""
        return table(
            self.verdicts,
            f"{self.utterances} utterances of the split {self.split!r}: {self.verdict.value}",
        )
