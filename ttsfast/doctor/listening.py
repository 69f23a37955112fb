"""How well each text explains its recording, by ear.

A small recogniser is trained on half of the corpus and listens to the other half, and the other way
round, so that no pair vouches for itself. What it says of a recording's own text is compared with what it
says of all others: a recording of another text lies far off, and one that was cut is explained better by a
part of its text.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from ttsfast.data.checks.check import Row, Subject
from ttsfast.data.corpus.split import text_key
from ttsfast.data.features.mel import log_mel
from ttsfast.data.features.options import FeatureOptions
from ttsfast.doctor.recognizer import Recognizer, fits, log_likelihoods, standardized, steps_of, train
from ttsfast.progress import progress_bar, track

LISTENED = 10 * 3600.0
"""Seconds that are listened to at most, drawn from all: some minutes of one core."""
TRAINED = 1800.0
"""Seconds that each of the two recognisers is trained on at most."""
_SHORTEST = 4
"""Letters of a text that is listened to."""
_SAMPLE = 100
"""Recordings by which it is told whether anything was learned."""
FAR = 3.5
"""Robust deviations below the median from which on a text is not the one that is said, where others of its
length are no worse: chosen, as the next two, on draws of ``bench/mismatches.py`` that it does not report."""
GAIN = 25.0
"""Nats by which a part of a text must explain the recording better than the whole: without a word that is
said, a text loses that and more."""
BETTER = 0.5
"""Deviations by which that part must be nearer to what is usual."""
_RARE = 20
"""Times: a letter that is rarer is left out, for it could not be learned."""
_SCATTER = 0.2
"""Nats a letter, at least: synthetic speech is learned so well that any breath would lie far off."""
_SUSPECT = 1.0
"""Robust deviations that a recording's own text lies below the others, to be looked at again."""
_OTHERS = 30
"""Texts of about one length that a suspect's own is compared with."""
_RIVALS = 400
"""Texts among which the right one of a wrong pair is looked for: its neighbours', then other suspects'."""


@dataclass(frozen=True)
class Suspect:
    """A recording that its own text explains worse than most. Log-likelihoods are in nats."""

    row: Row
    deviations: float
    """Robust deviations that its text lies from the median of all, by nats a letter."""
    margin: float
    """Nats that its own text is ahead of the best of others of about its length; not counted, and infinite,
    where it is nearer to the median than :data:`FAR`."""
    gain: float
    """Nats that the best part of its text, without words at one end, is ahead of the whole."""
    part_deviations: float
    """Of that part, as ``deviations``."""
    missing: str
    """The words that are not in that part."""
    at_end: bool
    """Those are the last words, not the first."""

    @property
    def cut(self) -> bool:
        """A part of its text is what it says."""
        return self.gain > GAIN and self.part_deviations > max(-FAR, self.deviations + BETTER)

    @property
    def wrong(self) -> bool:
        """It does not say its text, nor a part of it."""
        return not self.cut and self.deviations < -FAR and self.margin < 0


@dataclass(frozen=True)
class Heard:
    """What came of listening."""

    rows: Sequence[Row]
    """Those that were listened to."""
    deviations: np.ndarray
    """(n,) of each, as a suspect's."""
    suspects: Sequence[Suspect]
    told_apart: float
    """Share of recordings whose own text is ahead of others of its length: what was learned."""
    right: Mapping[str, Row]
    """Of wrong pairs, by id, the row whose text was said instead, where that is known."""


@dataclass(frozen=True)
class _Line:
    """One utterance to listen to."""

    row: Row
    words: Sequence[tuple[str, Sequence[int]]]
    """With their letters."""

    @cached_property
    def letters(self) -> list[int]:
        return [letter for _, letters in self.words for letter in letters]

    @cached_property
    def half(self) -> int:
        """0 or 1, by the text: all readings of a text are on one side."""
        return crc32(text_key(self.row.text).encode()) & 1

    @property
    def parts(self) -> Iterator[tuple[bool, str, list[int]]]:
        """Its text without words at one end, as long as a quarter of the letters is left: whether that is the
        last end, the words, and the letters that are left."""
        for count in range(1, len(self.words)):
            for at_end, gone, kept in (
                (True, self.words[-count:], self.words[:-count]),
                (False, self.words[:count], self.words[count:]),
            ):
                letters = [letter for _, letters in kept for letter in letters]
                if len(self.letters) > len(letters) >= len(self.letters) / 4:
                    yield at_end, " ".join(word for word, _ in gone), letters


class _Ear:
    """Reads recordings, and says what letters are in them."""

    def __init__(self, subject: Subject, lines: Sequence[_Line]) -> None:
        contract = subject.contract
        self.subject, self.lines = subject, lines
        # Some 40 frames a second hold what is said fastest.
        self.stride = 2 if contract.sample_rate > 60 * contract.hop_length else 1
        self.options = FeatureOptions(contract, resample=True, mixdown=True, trim=subject.trimmed)
        store = subject.store
        self.places = {} if store is None else {name: n for n, name in enumerate(store.entries.id)}
        self.kept: dict[str, Tensor] = {}
        self.nets: list[Recognizer] = []

    def mel(self, line: _Line) -> Tensor:
        """Its standardised log-mel, the store's or of the recording."""
        row, store = line.row, self.subject.store
        if row.id in self.kept:
            return self.kept[row.id]
        if store is not None:
            return standardized(store[self.places[row.id]].mel)
        return standardized(log_mel(self.options.read(row.audio), self.subject.contract))

    def learn(self) -> bool:
        """Train a recogniser for each half on lines of the other; False where one half has none."""
        chosen = [self._chosen(half) for half in (0, 1)]
        for line in track((*chosen[0], *chosen[1]), "reading recordings", sum(map(len, chosen))):
            self.kept[line.row.id] = self.mel(line)
        taught = [
            [
                (mel, line.letters)
                for line in lines
                if fits(line.letters, len(mel := self.kept[line.row.id]) // self.stride)
            ]
            for lines in chosen[::-1]
        ]
        if not all(taught):
            return False
        classes = 1 + max(max(line.letters) for line in self.lines)
        with progress_bar() as bar, torch.random.fork_rng(devices=[]):
            task = bar.add_task("learning letters", total=sum(map(steps_of, taught)))
            for half, pairs in enumerate(taught):
                torch.manual_seed(half)
                net = Recognizer(self.subject.contract.n_mels, classes, self.stride)
                train(net, pairs, half, lambda: bar.advance(task))
                self.nets.append(net)
        return True

    def _chosen(self, half: int) -> list[_Line]:
        """What of a half is trained on."""
        lines = [line for line in self.lines if line.half == half]
        Random(half).shuffle(lines)
        ends = np.cumsum([self.subject.seconds(line.row) for line in lines])
        return lines[: int(np.searchsorted(ends, TRAINED)) + 1]

    def score(self, line: _Line, texts: Sequence[Sequence[int]]) -> np.ndarray:
        """Log-likelihood of each text, by the recogniser that does not know the recording."""
        return log_likelihoods(self.nets[line.half].log_probs(self.mel(line)), texts)


def listen(subject: Subject) -> Heard:
    """Train two recognisers, each on one half of the texts, and let each listen to the other half.

    The global random streams stay as they are.
    """
    lines = _lines(subject)
    ear = _Ear(subject, lines)
    if not ear.learn():
        return Heard([line.row for line in lines], np.zeros(len(lines)), [], 0.0, {})
    per_letter = np.array(
        [
            ear.score(line, [line.letters])[0] / len(line.letters)
            for line in track(lines, "listening", len(lines))
        ]
    )
    centre = float(np.median(per_letter))
    scatter = max(_SCATTER, 1.4826 * float(np.median(np.abs(per_letter - centre))))
    deviations = (per_letter - centre) / scatter
    by_length = sorted(lines, key=lambda line: len(line.letters))
    places = {line.row.id: n for n, line in enumerate(by_length)}

    def margin(line: _Line, deviation: float = -np.inf) -> float:
        if deviation > -FAR:
            return np.inf
        first = max(0, min(places[line.row.id] - _OTHERS // 2, len(lines) - _OTHERS))
        others = [one.letters for one in by_length[first : first + _OTHERS] if one.letters != line.letters]
        own, *rest = ear.score(line, [line.letters, *others])
        return _ahead(own, max(rest, default=-np.inf))

    def suspect(line: _Line, deviation: float) -> Suspect:
        parts = list(line.parts)
        own, *rest = ear.score(line, [line.letters, *(letters for *_, letters in parts)])
        best = max(range(len(parts)), key=rest.__getitem__, default=None)
        if best is None:
            return Suspect(line.row, deviation, margin(line, deviation), -np.inf, -np.inf, "", True)
        at_end, missing, letters = parts[best]
        of_part = float(rest[best] / len(letters) - centre) / scatter
        return Suspect(
            line.row, deviation, margin(line, deviation), _ahead(rest[best], own), of_part, missing, at_end
        )

    suspects = [
        suspect(line, deviation)
        for line, deviation in zip(lines, deviations, strict=True)
        if deviation < -_SUSPECT
    ]
    usual = [line for line, deviation in zip(lines, deviations, strict=True) if abs(deviation) < 1]
    sample = Random(0).sample(usual, min(_SAMPLE, len(usual)))
    told_apart = float(np.mean([margin(line) > 0 for line in sample])) if sample else 0.0

    wrong = {one.row.id for one in suspects if one.wrong}
    right = {}
    for place, line in enumerate(lines):
        if line.row.id in wrong:
            near = lines[max(0, place - 3) : place + 4]
            rivals = [*near, *(one for one in lines if one.row.id in wrong)][:_RIVALS]
            found = ear.score(line, [one.letters for one in rivals])
            best = rivals[int(found.argmax())]
            if (found.max() / len(best.letters) - centre) / scatter > -FAR and best is not line:
                right[line.row.id] = best.row
    return Heard([line.row for line in lines], deviations, suspects, told_apart, right)


def _ahead(first: float, second: float) -> float:
    """Nats; minus infinity where neither is possible."""
    return -np.inf if first == -np.inf else float(first - second)


def _lines(subject: Subject) -> list[_Line]:
    """Those that can be listened to, at most :data:`LISTENED` of them, with letters that are no rarity."""
    rows = [row for row in subject.rows if subject.seconds(row) > 0 and not row.truncated]
    order = Random(0).sample(range(len(rows)), len(rows))
    ends = np.cumsum([subject.seconds(rows[place]) for place in order])
    rows = [rows[place] for place in sorted(order[: int(np.searchsorted(ends, LISTENED))])]
    counts = Counter(c for row in rows for c in row.symbols)
    common = sorted(c for c in counts if unicodedata.category(c)[0] in "LMN" and counts[c] >= _RARE)
    number = {c: n for n, c in enumerate(common, start=1)}
    lines = [
        _Line(row, [(word, [number[c] for c in word if c in number]) for word in row.symbols.split()])
        for row in rows
    ]
    return [line for line in lines if len(line.letters) >= _SHORTEST]
