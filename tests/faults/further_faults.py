"""Further faults of the kinds of the other files, written after all thresholds and before any of them was
tried, with no threshold at hand. ``bench/dataset_faults.py`` reports what is found of them. No threshold is
chosen by them; of what they showed, three gaps were closed after the first try.
"""

from __future__ import annotations

from random import Random

import numpy as np
import soxr
from audio_faults import _noise, _quietest, _room
from pairing_faults import _given, _left_out, _texts
from spoken import SPOKEN, Corpus, Fault, fault, some
from text_faults import _any

from ttsfast.data.corpus.espeak import SAMPLE_RATE

FURTHER: list[Fault] = []


@fault("error", "silent", into=FURTHER)
def nothing_but_a_click(corpus: Corpus, random: Random) -> Corpus:
    """A switch, then zeros."""
    return corpus.waves(lambda w: np.where(np.arange(len(w)) == 1000, 0.5, 0), some(random, 0.05))


@fault("error", "hole", into=FURTHER)
def packets_lost(corpus: Corpus, random: Random) -> Corpus:
    """Five times 60 ms of zeros where it is loud, in a fifth of the recordings."""

    def change(wave: np.ndarray) -> np.ndarray:
        torn = wave.copy()
        for part in np.array_split(np.arange(len(wave)), 5):
            loud = int(part[0] + np.abs(wave[part]).argmax())
            torn[loud : loud + round(0.06 * SAMPLE_RATE)] = 0
        return torn

    return corpus.waves(change, some(random, 0.2))


@fault("warning", "clipping", into=FURTHER)
def driven_into_saturation(corpus: Corpus, random: Random) -> Corpus:
    """Round tops, as of tape or a valve."""
    return corpus.waves(lambda w: 0.9 * np.tanh(6 * w / np.abs(w).max()), some(random, 0.33))


@fault("error", "clipping", into=FURTHER)
def clipped_and_filtered_since(corpus: Corpus, random: Random) -> Corpus:
    """At six times the gain, with the offset of the flat tops filtered away."""

    def change(wave: np.ndarray) -> np.ndarray:
        flat = np.clip(6 * wave / np.abs(wave).max(), -1, 1)
        return 0.7 * (flat - np.convolve(flat, np.ones(2001) / 2001, "same"))

    return corpus.waves(change, some(random, 0.4))


@fault("warning", "dc offset", into=FURTHER)
def an_offset_that_drifts(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: w + np.linspace(0, 0.1, len(w)), some(random, 0.3))


@fault("warning", "band", into=FURTHER)
def a_low_bit_rate(corpus: Corpus, random: Random) -> Corpus:
    """Nothing above 6 kHz but the noise of 16 bits."""

    def change(wave: np.ndarray) -> np.ndarray:
        narrow = soxr.resample(soxr.resample(wave, SAMPLE_RATE, 12000), 12000, SAMPLE_RATE)[: len(wave)]
        return np.round(narrow * 32767 + 0.5 * _noise(random, len(narrow))) / 32768

    return corpus.waves(change, some(random, 0.25))


@fault("warning", "noise", into=FURTHER)
def somebody_else_behind_a_third(corpus: Corpus, random: Random) -> Corpus:
    """Another sentence, 10 dB below."""
    other = np.concatenate([clip.wave for clip in corpus.clips[:20] if clip.wave is not None])

    def change(wave: np.ndarray) -> np.ndarray:
        since = random.randrange(len(other) - len(wave))
        return wave + 0.32 * other[since : since + len(wave)]

    return corpus.waves(change, some(random, 0.33))


@fault("warning", "noise", into=FURTHER)
def a_fan_in_all(corpus: Corpus, random: Random) -> Corpus:
    """Noise that falls with the frequency, 8 dB below the speech."""

    def change(wave: np.ndarray) -> np.ndarray:
        rumble = np.convolve(_noise(random, len(wave)), np.exp(-np.arange(60) / 12), "same")
        return wave + rumble / rumble.std() * np.sqrt(np.mean(wave**2)) * 10 ** (-8 / 20)

    return corpus.waves(change)


@fault("error", "level", into=FURTHER)
def a_tenth_45_db_too_quiet(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: w * 10 ** (-45 / 20), some(random, 0.1))


@fault("warning", "channels", into=FURTHER)
def a_channel_that_lags(corpus: Corpus, random: Random) -> Corpus:
    """By 5 ms: mixed down, the sum is a comb."""
    lag = round(0.005 * SAMPLE_RATE)
    return corpus.waves(lambda w: np.stack([w, np.roll(w, lag)], axis=1), some(random, 0.3))


@fault("warning", "silence at the ends", into=FURTHER)
def a_late_start_in_a_third(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: np.concatenate([_room(random, 1.0), w]), some(random, 0.33))


@fault("warning", "pause", into=FURTHER)
def three_seconds_of_thought(corpus: Corpus, random: Random) -> Corpus:
    def change(wave: np.ndarray) -> np.ndarray:
        place = _quietest(wave)
        return np.concatenate([wave[:place], _room(random, 3.0), wave[place:]])

    return corpus.waves(change, some(random, 0))


@fault("warning", "cut off", into=FURTHER)
def a_late_record_button(corpus: Corpus, random: Random) -> Corpus:
    """The first sound is in the midst of a vowel."""

    def change(wave: np.ndarray) -> np.ndarray:
        return wave[int(np.abs(wave[: len(wave) // 3]).argmax()) :]

    return corpus.waves(change, some(random, 0.15))


@fault("error", "shifted", into=FURTHER)
def texts_in_reverse_order(corpus: Corpus, random: Random) -> Corpus:
    return _given(corpus, _texts(corpus)[::-1])


@fault("error", "shifted", into=FURTHER)
def every_pair_of_lines_swapped(corpus: Corpus, random: Random) -> Corpus:
    texts = _texts(corpus)
    texts[::2], texts[1::2] = texts[1::2], texts[::2]
    return _given(corpus, texts)


@fault("error", "duration", into=FURTHER)
def the_texts_of_a_paragraph_in_one(corpus: Corpus, random: Random) -> Corpus:
    place, texts = random.randrange(SPOKEN - 6), _texts(corpus)
    texts[place] = " ".join(texts[place : place + 6])
    return _given(corpus, texts)


@fault("error", "columns", into=FURTHER)
def ids_for_texts(corpus: Corpus, random: Random) -> Corpus:
    return _given(corpus, [clip.id for clip in corpus.clips])


@fault("error", "left out", into=FURTHER)
def a_fifth_of_the_recordings_missing(corpus: Corpus, random: Random) -> Corpus:
    return _left_out(corpus, "missing audio", len(corpus.clips) // 5)


@fault("warning", "repeated text", into=FURTHER)
def two_sentences_read_again_and_again(corpus: Corpus, random: Random) -> Corpus:
    first, second = (clip.text for clip in corpus.clips[SPOKEN : SPOKEN + 2])
    changed = corpus.texts(lambda _: first, range(SPOKEN, SPOKEN + 20))
    return changed.texts(lambda _: second, range(SPOKEN + 20, SPOKEN + 40))


@fault("error", "garbled text", "en", into=FURTHER)
def curly_quotes_read_as_windows_1252(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: f"{text[:-1]}, that’s it.".encode().decode("cp1252"), _any(random, 0.03))


@fault("error", "garbled text", "fa", into=FURTHER)
def utf8_read_as_windows_1256(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.encode().decode("cp1256", "replace"), _any(random, 0.05))


@fault("warning", "markup", into=FURTHER)
def line_breaks_of_a_web_page(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.replace(" ", "<br/> ", 1), _any(random, 0.04))


@fault("warning", "digits", into=FURTHER)
def times_of_day(corpus: Corpus, random: Random) -> Corpus:
    time = "at 10:45" if corpus.language == "en" else "ساعت ۱۰:۴۵"
    return corpus.texts(lambda text: f"{text[:-1]} {time}.", _any(random, 0.03))


@fault("warning", "abbreviations", "en", into=FURTHER)
def units_and_latin(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: f"{text[:-1]}, e.g. a few kg, etc.", _any(random, 0.05))


@fault("warning", "look-alike letters", "en", into=FURTHER)
def greek_letters(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: text.replace("o", "ο").replace("v", "ν"), _any(random, 0.03))


@fault("warning", "final punctuation", into=FURTHER)
def commas_at_the_end(corpus: Corpus, random: Random) -> Corpus:
    comma = "," if corpus.language == "en" else "،"
    return corpus.texts(lambda text: text.rstrip(".؟?") + comma)


@fault("warning", "missing zwnj", "fa", into=FURTHER)
def plurals_behind_a_space(corpus: Corpus, random: Random) -> Corpus:
    return corpus.texts(lambda text: f"{text[:-1]} و کتاب ها و خانه های ما.", _any(random, 0.3))
