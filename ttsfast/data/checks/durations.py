"""How long utterances are for what they say: where text and recording do not belong together, without hearing
a word.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ttsfast.data.checks.check import Check, Row, Subject, some, worst
from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding

_SILENCE = 0.5
"""Seconds. What is longer is told of as silence, and must not make a text look too short."""
_PAUSES = re.compile("[.!?…؟。！？۔।:;,،؛—–]+")


LONG = 3.0
"""Times the median of letters: longer texts are compared with the pace, and do not set it."""


@dataclass(frozen=True)
class Pace:
    """What utterances of a speaker last: ``start``, and so much for each letter, word and pause; and how they
    scatter about it.

    Letters alone leave twice the scatter, in which half a text or double speed is lost.
    """

    start: float
    each: np.ndarray
    """(3,) seconds."""
    scatter: float
    """Of the logarithm of measured over expected, a robust deviation."""

    @classmethod
    def of(cls, counts: np.ndarray, seconds: np.ndarray) -> Pace:
        """Fitted by least absolute deviations (reweighted least squares), which a tenth of wrong pairs moves
        little. ``counts`` is (n, 3), letters, words and pauses; ``seconds`` is (n,), n at least 4.
        """
        # One text of a whole page would draw the line to itself, however little it is told to weigh.
        near = counts[:, 0] <= LONG * np.median(counts[:, 0])
        inputs, seconds = np.column_stack([np.ones(len(counts)), counts])[near], seconds[near]
        weights = 1.0 / np.sqrt(np.maximum(seconds, 1e-3))
        for _ in range(20):
            scaled = inputs * weights[:, None]
            fitted, *_ = np.linalg.lstsq(scaled, seconds * weights, rcond=None)
            off = np.abs(seconds - inputs @ fitted)
            weights = 1.0 / np.sqrt(np.maximum(off, 0.02))
        found = cls(float(fitted[0]), fitted[1:], 0.0)
        ratios = np.log(np.maximum(seconds, 1e-3) / found.expected(counts[near]))
        scatter = 1.4826 * float(np.median(np.abs(ratios - np.median(ratios))))
        return replace(found, scatter=scatter)

    def expected(self, counts: np.ndarray) -> np.ndarray:
        """Seconds (n,), at least a tenth of what the letters alone would take."""
        least = np.maximum(0.1 * abs(self.each[0]) * counts[:, 0], 0.05)
        return np.maximum(self.start + counts @ self.each, least)


def said(row: Row) -> int:
    """What of a text takes time: its letters and digits, spaces and marks not."""
    return sum(character.isalnum() for character in row.symbols)


def _counts(rows: Sequence[Row]) -> np.ndarray:
    """(n, 3): letters, words, and marks that a reader pauses at, of which several in a row are one."""
    counted = [(said(r), len(r.symbols.split()), len(_PAUSES.findall(r.symbols))) for r in rows]
    return np.array(counted, dtype=float)


def _speaking(subject: Subject, row: Row) -> float:
    """Seconds, without those of a silence beyond :data:`_SILENCE`."""
    seconds, figures = subject.seconds(row), row.figures
    if figures is None:
        return seconds
    ends = () if subject.trimmed else (figures.before, figures.after)
    return seconds - sum(max(0.0, silence - _SILENCE) for silence in (figures.pause, *ends))


def _timed(subject: Subject) -> list[tuple[Row, float, int]]:
    """Utterances that have a length and a text, in the order of the listing."""
    timed = ((row, _speaking(subject, row), said(row)) for row in subject.rows if not row.truncated)
    return [(row, seconds, length) for row, seconds, length in timed if seconds > 0 and length > 0]


class Shifted(Check):
    """Texts that belong to the recording before or after their own, or to none."""

    name = "shifted"
    effect = "every text is taught the sound of another: attention never forms, whatever the loss says"
    remedy = "restore the order of the listing: a line was lost or added at the first one named"
    least = 12
    """Utterances in a stretch that is looked at; of fewer, chance decides."""
    gain = 0.35
    """How much better another row's text must explain the durations (correlation of logarithms)."""
    unrelated = 0.3
    """Own correlation below which texts explain nothing; of two readers that were
    measured it is 0.90 and 0.96."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        timed = _timed(subject)
        if len(timed) < self.least:
            return
        seconds = np.log([seconds for _, seconds, _ in timed])
        lengths = np.log([length for *_, length in timed])
        if lengths.std() < 0.1 or seconds.std() < 0.1:
            return
        own = _correlation(seconds, lengths)
        shifts = {k: _stretch(seconds, lengths, k, self.least) for k in (-3, -2, -1, 1, 2, 3)}
        k, (first, last, advantage) = max(shifts.items(), key=lambda item: item[1][2])
        there = slice(first, last)
        moved = np.roll(lengths, -k)
        if advantage > 0 and last - first >= self.least:
            before = _correlation(seconds[there], lengths[there])
            after = _correlation(seconds[there], moved[there])
            if after - before > self.gain and after > 0.6:
                rows = [row for row, *_ in timed[there]]
                by = f"{abs(k)} line{'s' if abs(k) > 1 else ''}"
                yield self.finding(
                    ERROR,
                    f"{some(len(rows), len(timed), 'text', 'is', 'are')} {by} "
                    f"{'late' if k > 0 else 'early'}: durations fit the text {by} "
                    f"{'below' if k > 0 else 'above'}, from {rows[0].id!r} on",
                    [Evidence(row.id, "its text is another's") for row in rows],
                    own=before,
                    shifted=after,
                )
                return
        if own < self.unrelated and len(timed) >= 2 * self.least:
            yield self.finding(
                ERROR,
                f"texts and recordings do not belong together: length and duration correlate by {own:.2f}",
                remedy="look where the listing comes from: its texts, or its ids, are in another order",
                own=own,
                least=self.unrelated,
            )


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _stretch(seconds: np.ndarray, lengths: np.ndarray, shift: int, least: int) -> tuple[int, int, float]:
    """The stretch of rows whose durations fit the lengths ``shift`` rows below better than their own, by the
    most in sum (the largest sum of neighbours); its advantage in squared deviations."""
    slope, start = np.polyfit(lengths, seconds, 1) if lengths.std() > 0 else (1.0, 0.0)
    # Where most pairs are wrong the fitted slope is none: one is what durations follow.
    slope, start = (slope, start) if slope > 0.5 else (0.8, float(np.mean(seconds - 0.8 * lengths)))
    own = (seconds - start - slope * lengths) ** 2
    other = (seconds - start - slope * np.roll(lengths, -shift)) ** 2
    inside = np.arange(len(lengths)) + shift
    scale = float(np.median(np.minimum(own, other))) + 1e-6
    gain = np.where((inside >= 0) & (inside < len(lengths)), own - other, 0.0) / scale
    # One pair far off must not make a stretch.
    gain = np.clip(gain, -30, 30)
    best, first, total, begin = 0.0, 0, 0.0, 0
    last = 0
    for place, value in enumerate(gain):
        if total <= 0:
            total, begin = 0.0, place
        total += value
        if total > best:
            best, first, last = total, begin, place + 1
    return first, last, best


class Duration(Check):
    """Utterances far shorter or longer than their text."""

    name = "duration"
    effect = "words that are not said, or said without a text, pull the alignment of all others"
    remedy = "listen to these: correct the text, or a header with the wrong sample rate, or leave them out"
    far = 6.0
    """Robust deviations of the logarithm; of 1,164 clips of two readers the farthest lies at 5."""
    factor = 1.5
    """Of the expected duration, either way, at least: readers vary by a fifth."""
    ruined = 2.5
    """At half or double speed, or with half a text, a clip teaches nothing right."""
    least = 20
    """Utterances of a speaker, to know the pace by, five for each of its four numbers; else all speakers
    together."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        timed = _timed(subject)
        groups: dict[str, list[tuple[Row, float, int]]] = defaultdict(list)
        for one in timed:
            groups[one[0].speaker].append(one)
        few = [one for group in groups.values() if len(group) < self.least for one in group]
        groups = {speaker: group for speaker, group in groups.items() if len(group) >= self.least}
        found = [found for group in groups.values() for found in self._apart(group, group)]
        if few and len(timed) >= self.least:
            found += self._apart(few, timed)
        if not found:
            return
        n = len(found)
        evidence = worst(
            (
                abs(np.log(ratio)),
                Evidence(row.id, f"{seconds:.2f} s for {length} letters, {ratio:.2f} times what is usual"),
            )
            for row, seconds, length, ratio in found
        )
        ruined = max(max(ratio, 1 / ratio) for *_, ratio in found) > self.ruined
        what = f"{some(n, len(timed), 'utterance', 'is', 'are')} far too short or too long for the text"
        yield self.finding(
            ERROR if ruined else WARNING, what, evidence, factor=self.factor, deviations=self.far
        )

    def _apart(
        self, group: Sequence[tuple[Row, float, int]], among: Sequence[tuple[Row, float, int]]
    ) -> Iterator[tuple[Row, float, int, float]]:
        pace = Pace.of(_counts([row for row, *_ in among]), np.array([s for _, s, _ in among]))
        limit = max(np.log(self.factor), self.far * pace.scatter)
        expected = pace.expected(_counts([row for row, *_ in group]))
        for (row, seconds, length), usual in zip(group, expected, strict=True):
            # Of a word or two, a breath more is a great deal.
            if abs(seconds - usual) > 0.5 and abs(np.log(seconds / usual)) > limit:
                yield row, seconds, length, float(seconds / usual)


class Speakers(Check):
    """Speakers who speak much faster than the others."""

    name = "pace of speakers"
    effect = "played at the wrong rate, a speaker is another voice at another pitch"
    remedy = "listen to a clip of theirs: a header with the wrong sample rate plays it faster or slower"
    factor = 1.8
    """Between speakers; of one text, readers of corpora differ by half."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        rates: dict[str, list[float]] = defaultdict(list)
        for row, seconds, length in _timed(subject):
            rates[row.speaker].append(length / seconds)
        medians = {speaker: float(np.median(r)) for speaker, r in rates.items() if len(r) >= 3}
        if len(medians) < 2:
            return
        odd = []
        for speaker, rate in medians.items():
            # Of two speakers, each is odd to the other: which of them is wrong, an ear must say.
            others = float(np.median([r for other, r in medians.items() if other != speaker]))
            if max(rate / others, others / rate) > self.factor:
                odd.append(Evidence(speaker, f"{rate:.1f} letters a second, the others {others:.1f}"))
        if odd:
            what = f"{some(len(odd), len(medians), 'speaker', 'speaks', 'speak')} at another pace"
            yield self.finding(WARNING, what, odd, factor=self.factor)


class FewFrames(Check):
    """More symbols than there are frames, or decoder steps, to align them with."""

    name = "few frames"
    remedy = "correct the text, leave these out, or train with a smaller model.reduction_factor"
    spare = 1.5
    """Symbols for each decoder step that attention bridges: the demo's corpora have them, and it aligns."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        hop = subject.contract.hop_length / subject.contract.sample_rate
        counted = [
            (row, row.frames or int(subject.seconds(row) / hop), len(row.symbols))
            for row in subject.rows
            if subject.seconds(row) > 0 and row.symbols
        ]
        r = subject.reduction
        none = [(row, frames, n) for row, frames, n in counted if n > frames]
        tight = [
            (row, frames, n) for row, frames, n in counted if n <= frames and n > self.spare * -(-frames // r)
        ]
        for chosen, severity, than, effect in (
            (none, ERROR, "more symbols than frames", "no alignment exists: each symbol needs a frame"),
            (
                tight,
                WARNING,
                f"over {self.spare:g} symbols for each decoder step of {r} frames",
                "attention must skip symbols, and learns to",
            ),
        ):
            if chosen:
                n = len(chosen)
                evidence = worst(
                    (symbols / max(frames, 1), Evidence(row.id, f"{symbols} symbols in {frames} frames"))
                    for row, frames, symbols in chosen
                )
                what = f"{some(n, len(counted), 'utterance', 'has', 'have')} {than}"
                yield self.finding(severity, what, evidence, effect=effect, reduction=r)


CHECKS = (Shifted(), Speakers(), Duration())
LAST = (FewFrames(),)
"""What a wrong text, or a wrong pace, may be the cause of."""
