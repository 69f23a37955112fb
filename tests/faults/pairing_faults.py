"""Texts, recordings, speakers and splits that do not belong together."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
from spoken import SPOKEN, Corpus, fault, some

from ttsfast.data.corpus.listings import Exclusion


def _given(corpus: Corpus, texts: list[str]) -> Corpus:
    clips = [replace(clip, text=text) for clip, text in zip(corpus.clips, texts, strict=True)]
    return replace(corpus, clips=clips)


def _texts(corpus: Corpus) -> list[str]:
    return [clip.text for clip in corpus.clips]


@fault("error", "shifted")
def all_texts_a_line_late(corpus: Corpus, random: Random) -> Corpus:
    texts = _texts(corpus)
    return _given(corpus, texts[-1:] + texts[:-1])


@fault("error", "shifted")
def all_texts_two_lines_early(corpus: Corpus, random: Random) -> Corpus:
    texts = _texts(corpus)
    return _given(corpus, texts[2:] + texts[:2])


@fault("error", "shifted")
def a_line_lost_in_the_middle(corpus: Corpus, random: Random) -> Corpus:
    texts, lost = _texts(corpus), SPOKEN // 2
    return _given(corpus, texts[:lost] + texts[lost + 1 :] + texts[:1])


@fault("error", "shifted")
def a_line_added_after_a_third(corpus: Corpus, random: Random) -> Corpus:
    texts, added = _texts(corpus), SPOKEN // 3
    return _given(corpus, texts[:added] + texts[:1] + texts[added:-1])


@fault("error", "shifted")
def texts_in_any_order(corpus: Corpus, random: Random) -> Corpus:
    texts = _texts(corpus)
    random.shuffle(texts)
    return _given(corpus, texts)


@fault("error", "shifted")
def texts_sorted_and_recordings_not(corpus: Corpus, random: Random) -> Corpus:
    return _given(corpus, sorted(_texts(corpus)))


@fault("error", "duration")
def the_shortest_and_the_longest_swapped(corpus: Corpus, random: Random) -> Corpus:
    texts = _texts(corpus)
    order = sorted(range(SPOKEN), key=lambda i: len(texts[i]))
    first, last = order[0], order[-1]
    texts[first], texts[last] = texts[last], texts[first]
    return _given(corpus, texts)


@fault("warning", "duration")
def half_of_a_long_text_missing(corpus: Corpus, random: Random) -> Corpus:
    longest = max(range(SPOKEN), key=lambda i: len(corpus.clips[i].text))
    return corpus.texts(lambda text: text[: len(text) // 2], [longest])


@fault("error", "duration")
def a_text_many_times_too_long(corpus: Corpus, random: Random) -> Corpus:
    shortest = min(range(SPOKEN), key=lambda i: len(corpus.clips[i].wave))
    return corpus.texts(lambda text: " ".join([text] * 8), [shortest])


@fault("error", "repeated audio")
def one_recording_under_two_texts(corpus: Corpus, random: Random) -> Corpus:
    first, second = random.sample(range(SPOKEN), 2)
    wave = corpus.clips[first].wave
    return corpus.each(lambda c: replace(c, wave=np.array(wave)), [second])


@fault("warning", "repeated audio")
def one_utterance_twice(corpus: Corpus, random: Random) -> Corpus:
    again = replace(corpus.clips[random.randrange(SPOKEN)], id="again")
    return replace(corpus, clips=[*corpus.clips, again])


@fault("warning", "repeated text")
def one_text_read_thirty_times(corpus: Corpus, random: Random) -> Corpus:
    text = corpus.clips[SPOKEN].text
    return corpus.texts(lambda _: text, range(SPOKEN, SPOKEN + 30))


@fault("error", "columns")
def every_text_is_a_speaker(corpus: Corpus, random: Random) -> Corpus:
    clips = [replace(c, speaker=c.text, text="ann") for c in corpus.clips]
    return replace(corpus, clips=clips)


@fault("error", "columns")
def every_file_is_a_speaker(corpus: Corpus, random: Random) -> Corpus:
    return replace(corpus, clips=[replace(c, speaker=c.id) for c in corpus.clips])


@fault("error", "columns")
def one_text_for_all(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda _: "wavs")


@fault("error", "columns")
def numbers_for_texts(corpus: Corpus, random: Random) -> Corpus:
    clips = [replace(c, text=f"{len(c.text) / 20:.2f}") for c in corpus.clips]
    return replace(corpus, clips=clips)


@fault("warning", "speaker names")
def a_speaker_spelt_in_two_ways(corpus: Corpus, random: Random) -> Corpus:
    clips = [replace(c, speaker=("Ann", "ann ")[i % 2]) for i, c in enumerate(corpus.clips)]
    return replace(corpus, clips=clips)


@fault("warning", "speakers with little")
def a_speaker_with_three_clips(corpus: Corpus, random: Random) -> Corpus:
    few = some(random, 0.05)
    clips = [
        replace(c, speaker="bob" if i in few else "ann", wave=None if c.wave is None else np.tile(c.wave, 2))
        for i, c in enumerate(corpus.clips)
    ]
    return replace(corpus, clips=clips).texts(lambda text: f"{text} {text}", range(SPOKEN))


@fault("warning", "leak")
def held_out_texts_in_training(corpus: Corpus, random: Random) -> Corpus:
    clips = [replace(c, split="validation" if i % 10 == 0 else "train") for i, c in enumerate(corpus.clips)]
    clips = [replace(c, text=clips[i + 1].text) if i % 20 == 0 else c for i, c in enumerate(clips)]
    kept = [replace(c, wave=None) if i % 20 == 0 else c for i, c in enumerate(clips)]
    return replace(corpus, clips=kept)


@fault("error", "splits")
def lists_swapped(corpus: Corpus, random: Random) -> Corpus:
    clips = [replace(c, split="train" if i % 10 == 0 else "validation") for i, c in enumerate(corpus.clips)]
    return replace(corpus, clips=clips)


def _left_out(corpus: Corpus, reason: str, count: int) -> Corpus:
    kept, gone = corpus.clips[count:], corpus.clips[:count]
    lines = [Exclusion(clip.id, reason, f"metadata.csv: {clip.id}: {reason}") for clip in gone]
    return replace(corpus, clips=kept, left_out=lines)


@fault("error", "left out")
def a_recording_that_cannot_be_read(corpus: Corpus, random: Random) -> Corpus:
    return _left_out(corpus, "bad audio", 1)


@fault("error", "left out")
def most_recordings_missing(corpus: Corpus, random: Random) -> Corpus:
    return _left_out(corpus, "missing audio", 150)


@fault("error", "left out")
def lines_without_a_text(corpus: Corpus, random: Random) -> Corpus:
    return _left_out(corpus, "empty text", 3)


@fault("warning", "left out")
def many_longer_than_the_limit(corpus: Corpus, random: Random) -> Corpus:
    return _left_out(corpus, "too long", 60)
