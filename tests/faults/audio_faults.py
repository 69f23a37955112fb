"""Recordings that are wrong."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import soxr
from spoken import SPOKEN, Clip, Corpus, fault, some

from ttsfast.data.corpus.espeak import SAMPLE_RATE


def _noise(random: Random, size: int) -> np.ndarray:
    return np.random.default_rng(random.randrange(2**32)).standard_normal(size)


def _room(random: Random, seconds: float) -> np.ndarray:
    """What a microphone hears when nobody speaks."""
    return 1e-4 * _noise(random, round(seconds * SAMPLE_RATE))


def _with_noise(random: Random, decibels: float):  # type: ignore[no-untyped-def]
    def change(wave: np.ndarray) -> np.ndarray:
        return wave + _noise(random, len(wave)) * np.sqrt(np.mean(wave**2)) * 10 ** (-decibels / 20)

    return change


def _clipped(gain: float, scale: float = 1.0):  # type: ignore[no-untyped-def]
    def change(wave: np.ndarray) -> np.ndarray:
        return np.round(np.clip(wave / np.abs(wave).max() * gain, -1, 1) * scale * 32767) / 32768

    return change


def _narrow(rate: int):  # type: ignore[no-untyped-def]
    def change(wave: np.ndarray) -> np.ndarray:
        return soxr.resample(soxr.resample(wave, SAMPLE_RATE, rate), rate, SAMPLE_RATE)[: len(wave)]

    return change


def _quietest(wave: np.ndarray) -> int:
    block = SAMPLE_RATE // 100
    levels = np.square(wave[: len(wave) // block * block]).reshape(-1, block).mean(axis=1)
    inner = levels[len(levels) // 4 : -len(levels) // 4]
    return (len(levels) // 4 + int(inner.argmin())) * block


@fault("error", "silent")
def one_clip_of_zeros(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(np.zeros_like, some(random, 0))


@fault("error", "silent")
def clips_of_zeros(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(np.zeros_like, some(random, 0.12))


@fault("error", "silent")
def clips_of_dither(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: np.round(_noise(random, len(w)) * 0.5) / 32768, some(random, 0.05))


@fault("error", "silent")
def clips_of_one_value(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: np.full_like(w, 0.1), some(random, 0.05))


@fault("error", "hole")
def second_half_zeroed(corpus: Corpus, random: Random) -> Corpus:
    def change(wave: np.ndarray) -> np.ndarray:
        half = wave.copy()
        half[len(wave) // 4 + int(np.abs(wave[len(wave) // 4 : len(wave) // 2]).argmax()) :] = 0
        return half

    return corpus.waves(change, some(random, 0.1))


@fault("error", "hole")
def middle_zeroed(corpus: Corpus, random: Random) -> Corpus:
    def change(wave: np.ndarray) -> np.ndarray:
        torn = wave.copy()
        torn[len(wave) // 3 : len(wave) // 3 + round(0.4 * SAMPLE_RATE)] = 0
        return torn

    return corpus.waves(change, some(random, 0.15))


@fault("error", "clipping")
def half_of_the_clips_at_twenty_times_their_gain(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(_clipped(20), some(random, 0.5))


@fault("error", "clipping")
def clipped_then_scaled_down(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(_clipped(2.5, 0.3))


@fault("error", "clipping")
def clipped_on_one_side(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: np.minimum(w, 0.4 * w.max()), some(random, 0.3))


@fault("warning", "clipping")
def one_clip_a_little_over_full_scale(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(_clipped(1.3), some(random, 0))


@fault("warning", "dc offset")
def dc_offset(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: w + 0.05)


@fault("warning", "dc offset")
def dc_offset_in_a_few(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: w - 0.03, some(random, 0.05))


@fault("warning", "band")
def telephone_throughout(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(_narrow(8000))


@fault("warning", "band")
def a_third_upsampled_from_8_khz(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(_narrow(8000), some(random, 0.33))


@fault("warning", "band")
def a_few_upsampled_from_11_khz(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(_narrow(11025), some(random, 0.05))


@fault("warning", "band")
def nothing_above_7_khz(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(_narrow(14000))


@fault("error", "noise")
def noise_as_loud_as_speech(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(_with_noise(random, 0))


@fault("warning", "noise")
def noise_in_a_third(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(_with_noise(random, 10), some(random, 0.33))


@fault("warning", "noise")
def hum(corpus: Corpus, random: Random) -> Corpus:
    def change(wave: np.ndarray) -> np.ndarray:
        tone = np.sin(np.arange(len(wave)) * 2 * np.pi * 50 / SAMPLE_RATE)
        return wave + tone * np.sqrt(np.mean(wave**2)) * 0.35

    return corpus.waves(change, some(random, 0.5))


@fault("warning", "noise")
def one_clip_of_nothing_but_noise(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: 0.05 * _noise(random, len(w)), some(random, 0))


@fault("error", "level")
def four_clips_60_db_too_quiet(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: w * 1e-3, random.sample(range(SPOKEN), 4))


@fault("warning", "level")
def one_clip_18_db_too_quiet(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: w * 0.125, some(random, 0))


@fault("warning", "level")
def a_quiet_speaker(corpus: Corpus, random: Random) -> Corpus:
    named = corpus.each(lambda c: replace(c, speaker="ann"))
    quiet = range(0, SPOKEN, 2)
    return named.each(lambda c: replace(c, speaker="bob", wave=c.wave * np.float32(0.15)), quiet)


@fault("error", "channels")
def channels_of_opposite_phase(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: np.stack([w, -w], axis=1), some(random, 0.2))


@fault("warning", "channels")
def a_dead_channel(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: np.stack([w, 0 * w], axis=1), some(random, 0.2))


@fault("warning", "channels")
def channels_of_two_people(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: np.stack([w, np.roll(w[::-1], 999)], axis=1), some(random, 0.2))


@fault("note", "channels")
def stereo_throughout(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: np.stack([w, w], axis=1))


@fault("note", "sample rate")
def another_rate_throughout(corpus: Corpus, random: Random) -> Corpus:
    def change(clip: Clip) -> Clip:
        return replace(clip, wave=soxr.resample(clip.wave, SAMPLE_RATE, 44100), rate=44100)

    return corpus.each(change)


@fault("warning", "sample rate")
def a_few_at_another_rate(corpus: Corpus, random: Random) -> Corpus:
    def change(clip: Clip) -> Clip:
        return replace(clip, wave=soxr.resample(clip.wave, SAMPLE_RATE, 48000), rate=48000)

    return corpus.each(change, some(random, 0.1))


@fault("warning", "silence at the ends")
def silence_at_both_ends(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: np.concatenate([_room(random, 1.2), w, _room(random, 1.2)]))


@fault("warning", "silence at the ends")
def silence_behind_one(corpus: Corpus, random: Random) -> Corpus:
    return corpus.waves(lambda w: np.concatenate([w, _room(random, 0.8)]), some(random, 0))


@fault("warning", "pause")
def long_pauses(corpus: Corpus, random: Random) -> Corpus:
    def change(wave: np.ndarray) -> np.ndarray:
        place = _quietest(wave)
        return np.concatenate([wave[:place], _room(random, 1.5), wave[place:]])

    return corpus.waves(change, some(random, 0.1))


@fault("warning", "cut off")
def cut_at_the_loudest(corpus: Corpus, random: Random) -> Corpus:
    def change(wave: np.ndarray) -> np.ndarray:
        late = 2 * len(wave) // 3
        return wave[: late + int(np.abs(wave[late:]).argmax())]

    return corpus.waves(change, some(random, 0.1))


@fault("warning", "duration")
def one_clip_at_double_speed(corpus: Corpus, random: Random) -> Corpus:
    return corpus.each(lambda c: replace(c, rate=44100), _long(corpus, random, 1))


@fault("warning", "duration")
def one_clip_at_half_speed(corpus: Corpus, random: Random) -> Corpus:
    return corpus.each(lambda c: replace(c, rate=11025), _long(corpus, random, 1))


@fault("warning", "duration")
def clips_with_the_next_behind_them(corpus: Corpus, random: Random) -> Corpus:
    waves = [clip.wave for clip in corpus.clips]
    chosen = [i for i in some(random, 0.05) if i + 1 < SPOKEN]
    joined = {i: np.concatenate([waves[i], waves[i + 1]]) for i in chosen}
    clips = [replace(c, wave=joined.get(i, c.wave)) for i, c in enumerate(corpus.clips)]
    return replace(corpus, clips=clips)


@fault("warning", "pace of speakers")
def a_speaker_with_a_wrong_header(corpus: Corpus, random: Random) -> Corpus:
    named = corpus.each(lambda c: replace(c, speaker=("ann", "bob", "eve")[int(c.id[-1]) % 3]))
    wrong = [i for i, clip in enumerate(named.clips) if clip.speaker == "eve"]
    return named.each(lambda c: replace(c, rate=44100), wrong)


@fault("warning", "few frames", "en")
def a_reader_too_fast_for_the_reduction_factor(corpus: Corpus, random: Random) -> Corpus:
    """In English only: in Persian letters, which leave out vowels, double speed comes to 1.4 symbols a step
    at most, and as many are aligned (the check allows 1.5).
    """
    return corpus.each(lambda c: replace(c, rate=44100))


@fault("warning", "long")
def a_clip_of_half_a_minute(corpus: Corpus, random: Random) -> Corpus:
    waves = np.concatenate([clip.wave for clip in corpus.clips[:25] if clip.wave is not None])
    text = " ".join(clip.text for clip in corpus.clips[:25])
    return corpus.each(lambda c: replace(c, wave=waves, text=text), [30])


def _long(corpus: Corpus, random: Random, count: int) -> list[int]:
    """Places of clips of two seconds and more."""
    return random.sample([i for i in range(SPOKEN) if len(corpus.clips[i].wave) > 2 * SAMPLE_RATE], count)
