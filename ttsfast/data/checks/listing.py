"""What is wrong with a listing: unusable lines, columns swapped, repetitions, splits, too little speech."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import PurePath

from ttsfast.data.checks.check import Check, Row, Subject, some
from ttsfast.data.checks.finding import ERROR, NOTE, WARNING, Evidence, Finding
from ttsfast.data.corpus.split import TEST, TRAIN, VALIDATION, text_key


class LeftOut(Check):
    """Lines and recordings that preparation would refuse, or has left out."""

    name = "left out"
    effect = "they are missing from what is learned, or `ttsfast prepare` stops at them"
    remedy = "correct each as its line says, or prepare with --exclude-bad"
    most = 0.1
    """Of the listing. A case is known where 1,681 of 1,968 files were left out and training went on."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        by_reason: dict[str, list[Evidence]] = defaultdict(list)
        for one in subject.left_out:
            by_reason[one.reason].append(Evidence(one.id, one.detail))
        total = len(subject.rows) + len({one.id for one in subject.left_out})
        for reason, evidence in sorted(by_reason.items(), key=lambda item: -len(item[1])):
            n = len(evidence)
            chosen = reason == "too long"
            bad = n > self.most * total
            yield self.finding(
                (WARNING if bad else NOTE) if chosen else ERROR,
                f"{some(n, total, 'utterance', 'cannot', 'cannot')} be used ({reason})"
                if not chosen
                else f"{some(n, total, 'utterance', 'is', 'are')} longer than the limit",
                evidence,
                remedy="raise --max-duration, or cut them in two" if chosen else "",
                share=n / total,
            )


class Columns(Check):
    """Columns of the listing read as something they are not."""

    name = "columns"
    words = 3
    """In a speaker's name, on average: names have one or two."""
    least = 8
    alike = 0.1
    """Distinct texts over utterances; parallel corpora of ten speakers reach this."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        rows = subject.rows
        speakers = Counter(row.speaker for row in rows)
        if len(rows) < self.least:
            return
        length = sum(len(speaker.split()) for speaker in speakers) / len(speakers)
        if len(speakers) > 1 and (length >= self.words or len(speakers) > 0.9 * len(rows)):
            sentences = length >= self.words
            yield self.finding(
                ERROR,
                f"{len(speakers)} speakers of {len(rows)} utterances, "
                + ("with sentences for names" if sentences else "each heard once or so"),
                [Evidence(row.id, f"speaker {row.speaker[:60]!r}") for row in rows],
                effect="every utterance is a speaker of its own, and names are read aloud",
                remedy="the columns are path|speaker|text: put them in this order, or name another --layout",
                speakers=len(speakers),
            )
            return
        keys = Counter(text_key(row.text) for row in rows)
        if len(keys) <= max(1, self.alike * len(rows)) and len(keys) <= max(2, len(speakers)):
            common = keys.most_common(1)[0][0]
            same = [
                Evidence(row.id, f"text {row.text[:60]!r}") for row in rows if text_key(row.text) == common
            ]
            yield self.finding(
                ERROR,
                f"{len(rows)} utterances have {len(keys)} text{'s' if len(keys) > 1 else ''} between them",
                same,
                effect="the model learns to say these, whatever it is given",
                remedy="the text is in another column: put the columns in the layout's order, or name "
                "another --layout",
                texts=len(keys),
            )
            return
        numbers = [row for row in rows if row.text.replace(".", "").replace(":", "").strip().isdigit()]
        ids = [
            row for row in rows if text_key(row.text) in (text_key(row.id), text_key(PurePath(row.id).stem))
        ]
        for found, what in ((numbers, "a number"), (ids, "the id")):
            if len(found) > 0.5 * len(rows):
                yield self.finding(
                    ERROR,
                    f"{some(len(found), len(rows), 'text', 'is', 'are')} {what}",
                    [Evidence(row.id, f"text {row.text[:60]!r}") for row in found],
                    effect="speech is paired with what stands in another column",
                    remedy="the text is in another column: put the columns in the layout's order",
                )


class SpeakerNames(Check):
    """Names that differ by a capital letter or a space alone."""

    name = "speaker names"
    effect = "one person becomes two speakers, each with half of the data"
    remedy = "write the name in one way"

    def find(self, subject: Subject) -> Iterator[Finding]:
        counts = Counter(row.speaker for row in subject.rows)
        spelt: dict[str, list[str]] = defaultdict(list)
        for speaker in counts:
            spelt["".join(c for c in speaker.casefold() if c.isalnum())].append(speaker)
        for names in spelt.values():
            if len(names) > 1:
                yield self.finding(
                    WARNING,
                    f"the speakers {', '.join(map(repr, names))} are spelt almost alike",
                    [Evidence(name, f"{counts[name]} utterances") for name in names],
                )


class FewOfSpeaker(Check):
    """Speakers with next to no speech."""

    name = "speakers with little"
    effect = "their voice is a guess, and their clips teach the others nothing"
    remedy = "record more of them, or leave them out"
    seconds = 60.0
    """VCTK, the corpus that most models of several speakers are trained on, has 20 minutes of each."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        lengths: dict[str, float] = defaultdict(float)
        for row in subject.rows:
            lengths[row.speaker] += subject.seconds(row)
        total = sum(lengths.values())
        if len(lengths) < 2 or total == 0 or total < self.seconds * len(lengths):
            # Where there is little of all, that is said once.
            return
        few = [
            Evidence(s, f"{t:.0f} s")
            for s, t in sorted(lengths.items(), key=lambda i: i[1])
            if t < self.seconds
        ]
        if few:
            n = len(few)
            what = f"{some(n, len(lengths), 'speaker', 'has', 'have')} less than a minute of speech"
            yield self.finding(WARNING, what, few, seconds=self.seconds)


class Little(Check):
    """Too little speech to learn a voice from nothing."""

    name = "little data"
    effect = "what is learned does not carry over to new sentences, however long the training"
    remedy = "record more; half an hour of one voice is a beginning, or start from a trained one"
    minutes = 30.0
    """Measured here: 82 minutes of one speaker give speech that is understood with a quarter of the words
    wrong; published recipes begin at five hours for training from nothing."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        minutes = sum(map(subject.seconds, subject.rows)) / 60
        if 0 < minutes < self.minutes:
            what = f"there are {minutes:.1f} minutes of speech in {len(subject.rows)} utterances"
            yield self.finding(WARNING, what, minutes=minutes, least=self.minutes)


class Repeated(Check):
    """One recording under several ids."""

    name = "repeated audio"

    def find(self, subject: Subject) -> Iterator[Finding]:
        groups: dict[str, list[Row]] = defaultdict(list)
        for row, figures in subject.heard:
            groups[figures.digest].append(row)
        several = [group for group in groups.values() if len(group) > 1]
        unlike = [group for group in several if len({text_key(row.text) for row in group}) > 1]
        alike = [group for group in several if len({text_key(row.text) for row in group}) == 1]
        for chosen, severity, said, effect, remedy in (
            (
                unlike,
                ERROR,
                "under several ids with different texts",
                "all but one of the texts are wrong, and the model is taught that text does not matter",
                "listen to each and give it its own recording, or leave out all but the right one",
            ),
            (
                alike,
                WARNING,
                "under several ids",
                "these count several times, and may be learned from and tested on",
                "leave out all but one of each",
            ),
        ):
            if chosen:
                evidence = [
                    Evidence(row.id, f"the samples of {group[0].id}") for group in chosen for row in group[1:]
                ]
                n = len(evidence)
                what = f"{some(n, len(subject.heard), 'recording', 'is', 'are')} there {said}"
                yield self.finding(severity, what, evidence, effect=effect, remedy=remedy)


class RepeatedText(Check):
    """One text read often."""

    name = "repeated text"
    effect = "what is read often is learned by heart, and counts as often in every figure"
    remedy = "keep a few takes of each text"
    most = 0.05
    """Of all utterances of a speaker with one text."""
    least = 40

    def find(self, subject: Subject) -> Iterator[Finding]:
        groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
        sizes: Counter[str] = Counter()
        for row in subject.rows:
            groups[row.speaker, text_key(row.text)].append(row)
            sizes[row.speaker] += 1
        often = [
            group
            for (speaker, _), group in groups.items()
            if sizes[speaker] >= self.least and len(group) > self.most * sizes[speaker]
        ]
        if often:
            evidence = [Evidence(row.id, f"{len(g)} times {row.text[:60]!r}") for g in often for row in g]
            n = len(often)
            texts = "1 text makes" if n == 1 else f"{n} texts make"
            what = f"{texts} up {len(evidence)} of {len(subject.rows)} utterances"
            yield self.finding(WARNING, what, evidence, share=self.most)


class Leak(Check):
    """One text in training and held out."""

    name = "leak"

    def find(self, subject: Subject) -> Iterator[Finding]:
        sides: dict[str, set[str]] = defaultdict(set)
        for row in subject.rows:
            if row.split is not None:
                sides[text_key(row.text)].add(row.split)
        both = {key for key, splits in sides.items() if TRAIN in splits and len(splits) > 1}
        held = [row for row in subject.rows if row.split in (VALIDATION, TEST)]
        leaked = [row for row in held if text_key(row.text) in both]
        if leaked:
            n = len(leaked)
            made = subject.store is not None
            yield self.finding(
                ERROR if made else WARNING,
                f"{some(n, len(held), 'held-out text', 'is', 'are')} in training, too",
                [Evidence(row.id, f"{row.text[:60]!r}") for row in leaked],
                effect="figures of held-out speech are figures of what was learned by heart"
                if made
                else "figures would be of what was learned by heart: preparation holds out all utterances of "
                "such a text, and fewer are left to train on",
                remedy="prepare again: splits go by text" if made else "list utterances of other texts",
            )


class Splits(Check):
    """Splits of sizes that nobody wants."""

    name = "splits"
    most = 0.5
    """Held out; a case is known where the lists were swapped, with 9,000 utterances in validation."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        counts = Counter(row.split for row in subject.rows if row.split is not None)
        total = sum(counts.values())
        if not total:
            return
        held = counts[VALIDATION] + counts[TEST]
        if held > self.most * total:
            yield self.finding(
                ERROR,
                f"{held} of {total} utterances are held out, {counts[TRAIN]} are left to train on",
                effect="the smaller part is learned from",
                remedy="swap the lists, or list fewer ids in validation.txt and test.txt",
                share=held / total,
            )
        elif subject.store is not None and not counts[VALIDATION]:
            yield self.finding(
                ERROR,
                "nothing is held out to validate on",
                effect="training refuses to start: no checkpoint could be chosen",
                remedy="add distinct texts, raise --validation-fraction, or list ids in validation.txt",
            )


class Long(Check):
    """Utterances that training would leave out, or that fill the memory."""

    name = "long"
    effect = "a batch pads all to its longest: memory is lost on silence, or ends"
    remedy = "cut them into sentences, or leave them out with --max-duration"
    seconds = 20.0
    """Corpora for synthesis stay below 15 s or so; clips of up to 140 s are known to have kept a model from
    aligning."""

    def find(self, subject: Subject) -> Iterator[Finding]:
        timed = [(row, subject.seconds(row)) for row in subject.rows]
        long = sorted(((row, s) for row, s in timed if s > self.seconds), key=lambda pair: -pair[1])
        if long:
            n = len(long)
            what = f"{some(n, len(timed), 'utterance', 'is', 'are')} longer than {self.seconds:g} s"
            evidence = [Evidence(row.id, f"{s:.1f} s, {len(row.symbols)} symbols") for row, s in long]
            yield self.finding(WARNING, what, evidence, seconds=self.seconds)


FIRST = (LeftOut(), Columns(), Splits(), Leak(), Repeated())
"""What explains a good deal of all else."""
CHECKS = (RepeatedText(), SpeakerNames(), FewOfSpeaker(), Long(), Little())
