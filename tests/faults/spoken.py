"""Clean corpora in memory, for faults to be planted in: a few sentences that espeak-ng speaks, and what
checks see of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from ttsfast.data.checks.check import Row, Subject
from ttsfast.data.checks.clip import ClipFigures, measure
from ttsfast.data.corpus.audio import trim_silence
from ttsfast.data.corpus.espeak import SAMPLE_RATE, available, speak
from ttsfast.data.corpus.listings import Exclusion
from ttsfast.data.corpus.text import TextFrontend
from ttsfast.data.features.contract import MelContract
from ttsfast.demo.corpus import demo_sentences

CONTRACT = MelContract.preset("hifigan-22k")
SPOKEN, WRITTEN = 40, 200
"""Sentences with sound, and in all."""


@dataclass(frozen=True)
class Clip:
    """One utterance."""

    id: str
    text: str
    wave: np.ndarray | None
    """(n,) or (n, channels) float32; None of a sentence that nobody has spoken yet."""
    rate: int = SAMPLE_RATE
    speaker: str = ""
    split: str | None = None


@dataclass(frozen=True)
class Corpus:
    """Some of them."""

    clips: Sequence[Clip]
    language: str
    phonemes: bool = False
    left_out: Sequence[Exclusion] = ()

    def each(self, change: Callable[[Clip], Clip], chosen: Sequence[int] | None = None) -> Corpus:
        """The same with the spoken clips, or the chosen ones, changed."""
        places = set(range(SPOKEN) if chosen is None else chosen)
        return replace(self, clips=[change(c) if i in places else c for i, c in enumerate(self.clips)])

    def waves(
        self, change: Callable[[np.ndarray], np.ndarray], chosen: Sequence[int] | None = None
    ) -> Corpus:
        """The same with their samples changed."""
        return self.each(lambda c: replace(c, wave=change(c.wave).astype(np.float32)), chosen)

    def texts(self, change: Callable[[str], str], chosen: Sequence[int] | None = None) -> Corpus:
        """The same with their texts changed, those of sentences without sound included."""
        return self.each(
            lambda c: replace(c, text=change(c.text)), range(len(self.clips)) if chosen is None else chosen
        )


@lru_cache(maxsize=2)
def clean(language: str) -> Corpus:
    """A corpus without a fault."""
    if not available():
        pytest.skip("espeakng-loader is not installed")
    texts, _ = demo_sentences(language, WRITTEN, 0, 0)
    waves = [
        np.pad(trim_silence(speak(text, language, rate=190), SAMPLE_RATE), SAMPLE_RATE // 50)
        for text in texts[:SPOKEN]
    ]
    return Corpus(
        [Clip(f"{language}-{i:04d}", text, waves[i] if i < SPOKEN else None) for i, text in enumerate(texts)],
        language,
    )


_measured: dict[tuple[int, int], tuple[np.ndarray, ClipFigures]] = {}


def _figures(wave: np.ndarray, rate: int) -> ClipFigures:
    # Most clips of a corpus with a fault are those of the clean one.
    key = (id(wave), rate)
    if key not in _measured:
        _measured[key] = (wave, measure(wave[:, None] if wave.ndim == 1 else wave, rate))
    return _measured[key][1]


def subject(corpus: Corpus) -> Subject:
    """What checks see of it."""
    symbols = TextFrontend(corpus.language).batch([clip.text for clip in corpus.clips])
    rows = []
    for number, (clip, spelt) in enumerate(zip(corpus.clips, symbols, strict=True), start=1):
        frames, figures = 0, None
        if clip.wave is not None:
            frames = CONTRACT.frames(round(len(clip.wave) * SAMPLE_RATE / clip.rate))
            figures = _figures(clip.wave, clip.rate)
        rows.append(
            Row(clip.id, clip.text, spelt, clip.speaker, clip.split, frames, line=number, figures=figures)
        )
    return Subject(rows, corpus.left_out, corpus.language, corpus.phonemes, CONTRACT)


@dataclass(frozen=True)
class Fault:
    """One known way to break a corpus, with what was written down for it before its check."""

    name: str
    severity: str
    check: str
    """The one that names the cause."""
    plant: Callable[[Corpus, random.Random], Corpus]
    languages: Sequence[str] = field(default=("en", "fa"))


FAULTS: list[Fault] = []


def fault(
    severity: str, check: str, *languages: str, into: list[Fault] = FAULTS
) -> Callable[[Callable[[Corpus, random.Random], Corpus]], Callable[[Corpus, random.Random], Corpus]]:
    """Put a function into a list of faults."""

    def keep(plant: Callable[[Corpus, random.Random], Corpus]) -> Callable[[Corpus, random.Random], Corpus]:
        into.append(Fault(plant.__name__, severity, check, plant, languages or ("en", "fa")))
        return plant

    return keep


def some(random: random.Random, share: float) -> list[int]:
    """Places of so many of the spoken clips, one at least."""
    return random.sample(range(SPOKEN), max(1, round(share * SPOKEN)))


def write(corpus: Corpus, folder: Path, count: int = SPOKEN) -> Path:
    """Its first clips with sound as a corpus on disk, in JSON lines."""
    import soundfile

    folder.mkdir(parents=True)
    lines = []
    for clip in [clip for clip in corpus.clips if clip.wave is not None][:count]:
        soundfile.write(folder / f"{clip.id}.wav", clip.wave, clip.rate)
        entry = {"id": clip.id, "audio": f"{clip.id}.wav", "text": clip.text}
        lines.append(json.dumps(entry | ({"speaker": clip.speaker} if clip.speaker else {})))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder
