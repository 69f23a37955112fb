"""What is wrong with recordings as files of sound: silent, torn, clipped, band-limited, out of phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.check import Check, Subject, some, worst
from ttsfast.data.checks.clip import SILENT_PEAK
from ttsfast.data.checks.finding import ERROR, NOTE, WARNING, Evidence, Finding

MUCH = 0.05
"""Of a corpus: beyond this share a fault shapes what is learned, below it is a few bad clips."""


class Silent(Check):
    """Nothing but digital silence."""

    name = "silent"
    needs = "audio"
    effect = (
        "text is taught to be silence, and silence enters the statistics that all features are measured by"
    )
    remedy = "record or export these again, or take their lines out of the listing"

    def find(self, subject: Subject) -> Iterator[Finding]:
        read = [row for row in subject.rows if row.figures is not None]
        silent = [
            Evidence(row.id, f"its peak is {row.figures.peak:.2g} of full scale")
            for row in read
            if row.figures is not None and row.figures.silent
        ]
        if silent:
            n = len(silent)
            what = f"{some(n, len(read), 'recording', 'is', 'are')} silent throughout"
            yield self.finding(ERROR, what, silent, peak=SILENT_PEAK)


class Hole(Check):
    """Digital silence in the midst of sound, where a file was damaged, gated or cut."""

    name = "hole"
    needs = "audio"
    effect = "sound that the text asks for is not there, so that the alignment learns to pass over letters"
    remedy = "export these again from their source, or take their lines out of the listing"
    shortest = 0.02
    """Seconds. Natural recordings that were measured (1,652 clips of two speakers) have no such run."""
    in_gated = 0.3
    """Where pauses are digital throughout, in synthetic or gated speech: twice the longest run there is
    between the sounds of espeak-ng (0.14 s)."""
    ruined = 0.2
    """Share of a recording's length."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        heard = subject.heard
        if not heard:
            return
        gated = float(np.median([figures.still for _, figures in heard])) > 0
        limit = self.in_gated if gated else self.shortest
        torn = [(row, f) for row, f in heard if f.gap >= limit]
        if not torn:
            return
        evidence = worst(
            (
                f.gap,
                Evidence(row.id, f"{f.gap:.2f} s of {f.seconds:.2f} s are one and the same sample", f.gap_at),
            )
            for row, f in torn
        )
        ruined = max(f.gap / f.seconds for _, f in torn) > self.ruined or len(torn) > MUCH * len(heard)
        n = len(torn)
        what = f"{some(n, len(heard), 'recording', 'has', 'have')} holes of digital silence"
        yield self.finding(ERROR if ruined else WARNING, what, evidence, seconds=limit)


class Clipped(Check):
    """Flat tops: louder than the converter could take, even if the file was made quieter afterwards."""

    name = "clipping"
    needs = "audio"
    effect = "clipping adds harmonics to every loud vowel; the voice learns them as its timbre and crackles"
    remedy = "record or export these at a lower gain; making them quieter now mends nothing"
    share = 2e-4
    """Of the samples. Of 1,652 natural recordings that were measured two have 1e-4; 1.6 dB over
    full scale gives 4e-5 to 1e-3."""
    bad = 1e-3
    """3.5 dB over full scale: audible as crackle."""
    scaled = 0.97
    """A flat top below this was not made by this file's own full scale."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        heard = subject.heard
        clipped = [(row, f) for row, f in heard if f.clipped >= self.share]
        if not clipped:
            return
        bad = [f for _, f in clipped if f.clipped >= self.bad]
        evidence = worst(
            (f.clipped, Evidence(row.id, f"{f.clipped:.2%} of its samples lie in flat tops at {f.peak:.2f}"))
            for row, f in clipped
        )
        n = len(clipped)
        quiet = sum(f.peak < self.scaled for _, f in clipped)
        scaled = f" ({quiet} of them scaled down since)" if quiet else ""
        severity = ERROR if len(bad) > MUCH * len(heard) else WARNING
        what = f"{some(n, len(heard), 'recording', 'is', 'are')} clipped{scaled}"
        yield self.finding(severity, what, evidence, share=self.share, bad=self.bad)


class Offset(Check):
    """A mean that is not 0."""

    name = "dc offset"
    needs = "audio"
    effect = "the lowest mel bins show the offset and not the voice; edges of clips become clicks"
    remedy = "filter below 20 Hz (`sox in.wav out.wav highpass 20`)"
    share = 0.1
    """Of the deviation: three times the most that was measured in clean recordings (0.032)."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        heard = subject.heard
        found = [(row, f) for row, f in heard if abs(f.offset) >= self.share]
        if found:
            n = len(found)
            evidence = worst(
                (abs(f.offset), Evidence(row.id, f"its mean is {f.offset:+.2f} of its deviation"))
                for row, f in found
            )
            what = f"{some(n, len(heard), 'recording', 'has', 'have')} a DC offset"
            yield self.finding(WARNING, what, evidence, share=self.share)


class Band(Check):
    """Nothing above a frequency that the features go beyond: telephone, upsampled, or coded at a low rate."""

    name = "band"
    needs = "audio"
    remedy = (
        "take the recordings from their source, or leave the narrow ones out; no resampling brings "
        "back what is gone"
    )
    slack = 400.0
    """Hz below the contract's ``fmax``: the resolution of the measurement and the slope of a filter."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        heard, wanted = subject.heard, subject.contract.fmax - self.slack
        narrow = [(row, f) for row, f in heard if f.band < wanted]
        if not narrow:
            return
        n, cut = len(narrow), float(np.median([f.band for _, f in narrow]))
        evidence = worst(
            (-f.band, Evidence(row.id, f"nothing above {f.band / 1000:.1f} kHz, at a rate of {f.rate} Hz"))
            for row, f in narrow
        )
        mixed = n < len(heard)
        effect = (
            "the voice changes its sound from sentence to sentence, by which clips it learned a word from"
            if mixed
            else "the voice sounds as dull as they do, and the upper mel bins teach nothing"
        )
        what = f"{some(n, len(heard), 'recording', 'has', 'have')} nothing above {cut / 1000:.1f} kHz"
        yield self.finding(WARNING, what, evidence, effect=effect, hertz=cut, wanted=wanted)


class Channels(Check):
    """Several channels, and those that do not belong together."""

    name = "channels"
    needs = "audio"
    opposed = -0.3
    """Correlation. Two microphones on one speaker correlate by 0.3 and more; an inverted channel by -1."""
    apart = 0.3
    lost = 30.0
    """dB: one channel holds next to nothing."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        heard = subject.heard
        several = [(row, f) for row, f in heard if f.channels > 1]
        for chosen, severity, said, effect, remedy in (
            (
                [(row, f) for row, f in several if f.correlation < self.opposed],
                ERROR,
                "channels of opposite phase",
                "averaged by --mixdown they cancel: what is left is noise, or silence",
                "take one channel of them (`sox in.wav out.wav remix 1`), or turn one round (`remix 1,2i`)",
            ),
            (
                [(r, f) for r, f in several if f.balance > self.lost and f.correlation >= self.opposed],
                WARNING,
                "a channel with nothing in it",
                "averaged by --mixdown they are half as loud as the others",
                "take the other channel of them (`sox in.wav out.wav remix 1`)",
            ),
            (
                [
                    (row, f)
                    for row, f in several
                    if self.opposed <= f.correlation < self.apart and f.balance <= self.lost
                ],
                WARNING,
                "channels that differ",
                "averaged by --mixdown they comb each other: echo, and a hollow sound",
                "take one channel of them (`sox in.wav out.wav remix 1`)",
            ),
        ):
            if chosen:
                evidence = worst(
                    (
                        -f.correlation,
                        Evidence(row.id, f"correlation {f.correlation:+.2f}, {f.balance:.0f} dB apart"),
                    )
                    for row, f in chosen
                )
                n = len(chosen)
                what = f"{some(n, len(heard), 'recording', 'has', 'have')} {said}"
                yield self.finding(
                    severity, what, evidence, effect=effect, remedy=remedy, correlation=self.opposed
                )
        if several and len(several) == len(heard):
            n = len(several)
            yield self.finding(
                NOTE,
                f"{some(n, n, 'recording', 'has', 'have')} several channels",
                [Evidence(row.id, f"{f.channels} channels") for row, f in several],
                effect="none: a voice is mono",
                remedy="prepare with --mixdown, which averages them",
            )
        elif several:
            counts = Counter(f.channels for _, f in heard)
            usual = counts.most_common(1)[0][0]
            odd = [Evidence(r.id, f"{f.channels} channels") for r, f in heard if f.channels != usual]
            yield self.finding(
                NOTE,
                f"{some(len(odd), len(heard), 'recording', 'has', 'have')} another number of "
                f"channels than the rest ({usual})",
                odd,
                effect="they came another way than the others, and may sound otherwise",
                remedy="look where they come from; --mixdown averages channels",
            )


class Rates(Check):
    """Sample rates that differ."""

    name = "sample rate"
    needs = "audio"
    effect = "they came another way than the others, and may sound otherwise"
    remedy = "look where they come from; --resample converts all of them at preparation"

    def find(self, subject: Subject) -> Iterator[Finding]:
        heard = subject.heard
        counts = Counter(f.rate for _, f in heard)
        if len(counts) > 1:
            usual = counts.most_common(1)[0][0]
            odd = [Evidence(row.id, f"{f.rate} Hz") for row, f in heard if f.rate != usual]
            what = (
                f"{some(len(odd), len(heard), 'recording', 'has', 'have')} another sample rate "
                f"than the rest ({usual} Hz)"
            )
            yield self.finding(WARNING, what, odd, rate=usual)
        elif (
            counts and (rate := next(iter(counts))) != subject.contract.sample_rate and subject.store is None
        ):
            yield self.finding(
                NOTE,
                f"the recordings have a rate of {rate} Hz, features are made at "
                f"{subject.contract.sample_rate} Hz",
                effect="none: they are converted, once",
                remedy="prepare with --resample",
                rate=rate,
            )


CHECKS = (Silent(), Channels(), Hole(), Clipped())
LAST = (Band(), Rates(), Offset())
"""What a recording at the wrong speed, or of another text, has besides."""
