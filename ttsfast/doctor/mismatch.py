"""Texts and recordings that do not belong together, by ear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ttsfast.data.checks.check import Check, Row, Subject, some, worst
from ttsfast.data.checks.finding import ERROR, NOTE, WARNING, Evidence, Finding
from ttsfast.doctor.listening import FAR, GAIN, Heard, Suspect, listen


class Mismatch(Check):
    """Recordings of another text than their own, and those that end before it does."""

    name = "mismatch"
    needs = "features"
    effect = "the model is taught that letters sound as others do, and the alignment of all others suffers"
    remedy = "give these the text that they say, or leave them out (--fix does)"
    least = 900.0
    """Seconds of speech to learn from."""
    learned = 0.5
    """Of recordings, whose own text must be ahead of 30 of its length: by chance it is for one of 31."""
    many = 0.01
    """Of a corpus: beyond this share they are no oversight."""
    chance = 0.003
    """Of a clean corpus, the share that may seem to lack words: those that are spelt unlike they sound."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        seconds = sum(subject.seconds(row) for row in subject.rows)
        if seconds < self.least:
            yield self.finding(
                NOTE,
                f"nobody listened whether recordings say their texts: {seconds / 60:.0f} minutes are too few "
                f"to learn from, {self.least / 60:.0f} are needed",
                effect="none; only the lengths of texts and recordings were compared",
                remedy="listen to some yourself, or record more",
                seconds=self.least,
            )
            return
        heard = listen(subject)
        if heard.told_apart < self.learned:
            yield self.finding(
                WARNING,
                f"what recordings say could not be learned from their texts: of {heard.told_apart:.0%} their "
                "own was ahead of others of its length",
                effect="a voice will hardly learn what a recogniser cannot: texts may be in another order or "
                "language, or the sound too bad",
                remedy="listen to some with their texts at hand",
                told_apart=heard.told_apart,
                least=self.learned,
            )
            return
        yield from self._wrong([one for one in heard.suspects if one.wrong], heard)
        yield from self._cut([one for one in heard.suspects if one.cut], heard, subject)
        listened = sum(map(subject.seconds, heard.rows))
        if len(heard.rows) < 0.9 * len(subject.rows):
            yield self.finding(
                NOTE,
                f"{listened / 3600:.1f} of {seconds / 3600:.1f} hours were listened to, drawn from all",
                effect="of the rest only the lengths of texts and recordings were compared",
                remedy="nothing needs to be done",
            )

    def _wrong(self, wrong: Sequence[Suspect], heard: Heard) -> Iterator[Finding]:
        if not wrong:
            return
        n, total = len(wrong), len(heard.rows)
        yield self.finding(
            ERROR if n > self.many * total else WARNING,
            f"{some(n, total, 'recording', 'does', 'do')} not say the text given{_shift(wrong, heard)}",
            worst((-one.deviations, Evidence(one.row.id, _instead(one, heard.right))) for one in wrong),
            deviations=FAR,
        )

    def _cut(self, cut: Sequence[Suspect], heard: Heard, subject: Subject) -> Iterator[Finding]:
        if not cut:
            return
        n, total = len(cut), len(heard.rows)
        yield self.finding(
            WARNING if n > self.chance * total else NOTE,
            f"{some(n, total, 'recording', 'lacks', 'lack')} words of the text at an end",
            worst(
                (
                    one.gain,
                    Evidence(
                        one.row.id,
                        f"{one.missing!r} is not heard at its {'end' if one.at_end else 'beginning'}",
                        subject.seconds(one.row) if one.at_end else 0.0,
                    ),
                )
                for one in cut
            ),
            effect="letters without a sound: the voice learns to swallow words, and to stop early",
            remedy="listen to these; export them whole, or take the words that are not there out of the text",
            nats=GAIN,
        )


def _instead(one: Suspect, right: Mapping[str, Row]) -> str:
    if (row := right.get(one.row.id)) is not None:
        return f"it says the text of {row.id!r}: {row.text[:60]!r}"
    return f"its text fits {-one.deviations:.0f} deviations worse than is usual"


def _shift(wrong: Sequence[Suspect], heard: Heard) -> str:
    """Whether most of them say the text of a row that lies so many before, or behind."""
    places = {row.id: place for place, row in enumerate(heard.rows)}
    steps = Counter(
        places[heard.right[one.row.id].id] - places[one.row.id] for one in wrong if one.row.id in heard.right
    )
    step, count = steps.most_common(1)[0] if steps else (0, 0)
    if count < 3 or count < len(wrong) / 2:
        return ""
    lines = f"{abs(step)} line{'s' if abs(step) > 1 else ''}"
    return f": {count} of them that of the row {lines} {'below' if step > 0 else 'above'}"
