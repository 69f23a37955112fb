"""Utterances to look at and listen to: which ones, and what is shown of them."""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ttsfast.data.corpus.audio import read_audio
from ttsfast.data.corpus.finder import RecordingFinder
from ttsfast.data.features.contract import MelContract
from ttsfast.evaluation.samples import ValidationSample
from ttsfast.evaluation.targets import DEFINITIONS, FROM_FREE_RUNNING

if TYPE_CHECKING:
    from ttsfast.data.store.store import Store
    from ttsfast.data.store.utterance_table import Entry
    from ttsfast.models.voice import Voice
    from ttsfast.synthesis.vocoder import Vocoder

WORST_BY = "mcd_dtw"
"""Distortion grows with whatever goes wrong: a word left out, one too many, an end that does not come."""


@dataclass
class SpokenSample:
    """One utterance to look at and listen to. Mels are (T, C) in the contract's log units."""

    id: str
    text: str
    speaker: str
    symbols: list[str]
    target: np.ndarray
    teacher_forced: np.ndarray
    free_running: np.ndarray
    attention_teacher_forced: np.ndarray | None
    """(S, N)"""
    attention_free_running: np.ndarray | None
    """(S', N)"""
    stopped: bool
    figures: dict[str, float]
    """Of this utterance alone, under the names of :data:`DEFINITIONS`."""
    synthesised: np.ndarray
    """(samples,) the free-running mel through the vocoder"""
    copy_synthesis: np.ndarray
    """(samples,) the recording's mel through the vocoder"""
    original: np.ndarray | None
    """(samples,) the recording; None when the corpus is not at hand"""


class Keeper:
    """Keeps what a free-running pass, and a teacher-forced one after it, say of the utterances to show."""

    def __init__(self, names: Collection[str], worst: int) -> None:
        self._names, self._count = frozenset(names), worst
        self._worst: list[tuple[float, str]] = []
        self._free: dict[str, ValidationSample] = {}
        self._forced: dict[str, ValidationSample] = {}

    def free_running(self, sample: ValidationSample) -> None:
        """Keep the sample if it is one of the names, or among the worst so far."""
        if sample.id in self._names:
            self._free[sample.id] = sample
        elif WORST_BY in sample.figures:
            self._free[sample.id] = sample
            heapq.heappush(self._worst, (sample.figures[WORST_BY], sample.id))
            if len(self._worst) > self._count:
                _, better = heapq.heappop(self._worst)
                del self._free[better]

    def teacher_forced(self, sample: ValidationSample) -> None:
        """Keep the sample if it was kept free-running."""
        if sample.id in self._free:
            self._forced[sample.id] = sample

    @property
    def worst(self) -> list[str]:
        """The worst utterances beside those asked for by name, the worst of all first."""
        return [name for _, name in sorted(self._worst, reverse=True)]

    def of(self, name: str) -> tuple[ValidationSample, ValidationSample]:
        """What was kept of one utterance: free-running, and teacher-forced."""
        return self._free[name], self._forced[name]


def spoken(
    voice: Voice,
    store: Store,
    index: int,
    free: ValidationSample,
    forced: ValidationSample,
    vocoder: Vocoder,
    corpus: Path | None,
) -> SpokenSample:
    """Make an utterance of ``store`` visible and audible.

    Raises:
        InputError: its recording is missing from ``corpus``.
    """
    entry = store.entries[index]
    heard, target = log_mel(voice, free.predicted), log_mel(voice, forced.target)
    return SpokenSample(
        id=entry.id,
        text=entry.text,
        speaker=speaker(store, entry),
        symbols=[voice.symbols.decode(np.array([symbol])) for symbol in forced.text],
        target=target,
        teacher_forced=log_mel(voice, forced.predicted),
        free_running=heard,
        attention_teacher_forced=forced.attention,
        attention_free_running=free.attention,
        stopped=free.stopped,
        figures={
            name: source[name]
            for name in DEFINITIONS
            for source in (free.figures if name in FROM_FREE_RUNNING else forced.figures,)
            if name in source
        },
        synthesised=vocoder(heard),
        copy_synthesis=vocoder(target),
        original=_original(corpus, entry, voice.contract),
    )


def speaker(store: Store, entry: Entry) -> str:
    """The name of an utterance's speaker; empty where the corpus has only one."""
    return store.speakers[entry.speaker] if len(store.speakers) > 1 else ""


def log_mel(voice: Voice, normalised: np.ndarray) -> np.ndarray:
    """(T, C) in the contract's log units."""
    return normalised.astype(np.float32) * voice.mel_std + voice.mel_mean


def _original(corpus: Path | None, entry: Entry, contract: MelContract) -> np.ndarray | None:
    if corpus is None:
        return None
    path = RecordingFinder(corpus).again(entry.audio, f"utterance {entry.id!r}")
    return read_audio(path, contract.sample_rate, resample=True, mixdown=True)
