"""How loud recordings are, what they stand above, and what is before, between and after the words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from ttsfast.data.checks.audio import MUCH
from ttsfast.data.checks.check import Check, Subject, some, worst
from ttsfast.data.checks.finding import ERROR, WARNING, Evidence, Finding


class Level(Check):
    """Clips, and speakers, of another level than the rest."""

    name = "level"
    needs = "audio"
    apart = 12.0
    """dB from the speaker's median: a factor of four. The clips of the two natural corpora that were measured
    lie within 7 dB of theirs."""
    ruined = 30.0
    """dB: so far down speech meets the features' floor, -100 dB of a full-scale sine, and its own noise."""
    speakers = 10.0
    """dB between speakers' medians; broadcasting allows 1 (EBU R 128)."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        levels: dict[str, list[float]] = defaultdict(list)
        for row, figures in subject.heard:
            levels[row.speaker].append(figures.level)
        medians = {speaker: float(np.median(values)) for speaker, values in levels.items()}
        found = [
            (row, f, f.level - medians[row.speaker])
            for row, f in subject.heard
            if abs(f.level - medians[row.speaker]) > self.apart
        ]
        if found:
            n = len(found)
            evidence = worst(
                (
                    abs(apart),
                    Evidence(row.id, f"{apart:+.0f} dB from the median of its speaker, {f.level:.0f} dB"),
                )
                for row, f, apart in found
            )
            ruined = max(abs(apart) for *_, apart in found) > self.ruined
            what = (
                f"{some(n, len(subject.heard), 'recording', 'is', 'are')} far louder or quieter than the rest"
            )
            yield self.finding(
                ERROR if ruined else WARNING,
                what,
                evidence,
                effect="loudness jumps from sentence to sentence, and the quiet ones teach noise",
                remedy="bring all clips to one loudness, by gain alone (`ffmpeg-normalize`, EBU R 128)",
                decibels=self.apart,
            )
        if len(medians) > 1 and max(medians.values()) - min(medians.values()) > self.speakers:
            loud, quiet = max(medians, key=medians.__getitem__), min(medians, key=medians.__getitem__)
            apart = medians[loud] - medians[quiet]
            yield self.finding(
                WARNING,
                f"the speakers {quiet!r} and {loud!r} lie {apart:.0f} dB apart",
                [Evidence(speaker, f"median {medians[speaker]:.0f} dB") for speaker in (quiet, loud)],
                effect="the model spends its speaker embedding on loudness",
                remedy="bring the speakers to one loudness, by gain alone (`ffmpeg-normalize`, EBU R 128)",
                decibels=self.speakers,
            )


class Noise(Check):
    """Speech that does not stand far above its noise."""

    name = "noise"
    needs = "audio"
    effect = "the voice learns the noise with the words, and vowels lose their upper harmonics"
    remedy = "record these again, remove the noise, or leave them out"
    least = 15.0
    """dB. The clean part of LibriTTS begins at 20 dB of WADA-SNR (Zen et al., 2019); the clean corpora that
    were measured, synthetic ones among them, at 20 here."""
    ruined = 5.0

    def find(self, subject: Subject) -> Iterator[Finding]:
        heard = subject.heard
        noisy = [(row, f) for row, f in heard if f.snr < self.least]
        if not noisy:
            return
        n, middle = len(noisy), float(np.median([f.snr for _, f in noisy]))
        evidence = worst(
            (-f.snr, Evidence(row.id, f"{f.snr:.0f} dB between speech and noise")) for row, f in noisy
        )
        bad = middle < self.ruined and n > MUCH * len(heard)
        what = f"{some(n, len(heard), 'recording', 'is', 'are')} noisy ({middle:.0f} dB)"
        yield self.finding(ERROR if bad else WARNING, what, evidence, decibels=self.least)


class Edges(Check):
    """Silence before the first word and after the last."""

    name = "silence at the ends"
    needs = "audio"
    effect = (
        "attention must first learn to wait: trimmed corpora align sooner than any change of the "
        "loss makes them"
    )
    remedy = "prepare with --trim"
    longest = 0.5
    """Seconds at one end; a breath is 0.3."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        if subject.trimmed:
            return
        heard = subject.heard
        long = [(row, f) for row, f in heard if max(f.before, f.after) > self.longest]
        if long:
            n = len(long)
            evidence = worst(
                (f.before + f.after, Evidence(row.id, f"{f.before:.2f} s before, {f.after:.2f} s after"))
                for row, f in long
            )
            what = (
                f"{some(n, len(heard), 'recording', 'begins or ends', 'begin or end')} with more than "
                f"{self.longest:g} s of silence"
            )
            yield self.finding(WARNING, what, evidence, seconds=self.longest)


class Pause(Check):
    """Long silence between words."""

    name = "pause"
    needs = "audio"
    effect = "no letter stands for it, so attention stalls there, and the voice stops in mid-sentence"
    remedy = "cut these in two at the pause, or shorten it"
    longest = 1.0
    """Seconds; pauses within read sentences rarely pass 0.7 (0.66 the longest that was measured)."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        heard = subject.heard
        long = [(row, f) for row, f in heard if f.pause > self.longest]
        if long:
            n = len(long)
            evidence = worst(
                (f.pause, Evidence(row.id, f"{f.pause:.2f} s of silence", f.pause_at)) for row, f in long
            )
            what = f"{some(n, len(heard), 'recording', 'pauses', 'pause')} for more than {self.longest:g} s"
            yield self.finding(WARNING, what, evidence, seconds=self.longest)


class Abrupt(Check):
    """Clips that end, or begin, in the midst of a sound."""

    name = "cut off"
    needs = "audio"
    effect = "the last letters have no sound, and the stop token learns to fire in mid-word"
    remedy = "cut these with some silence around the words, or mark them truncated in a JSON listing"
    nearest = 6.0
    """dB below the loudest 5 ms: in the midst of a vowel. The clips of natural corpora that were measured
    begin and end 16 dB below it and more, synthetic ones 7."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        heard = [(row, f) for row, f in subject.heard if not row.truncated]
        cut = [(row, f) for row, f in heard if min(f.start, f.end) < self.nearest]
        if cut:
            n = len(cut)
            evidence = worst(
                (
                    -min(f.start, f.end),
                    Evidence(row.id, f"begins {f.start:.0f} dB below its loudest", 0.0)
                    if f.start < f.end
                    else Evidence(row.id, f"ends {f.end:.0f} dB below its loudest", f.seconds),
                )
                for row, f in cut
            )
            what = f"{some(n, len(heard), 'recording', 'begins or ends', 'begin or end')} in mid-sound"
            yield self.finding(WARNING, what, evidence, decibels=self.nearest)


FIRST = (Edges(), Pause())
"""What makes a recording long."""
CHECKS = (Level(), Noise(), Abrupt())
