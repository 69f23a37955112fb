"""What one recording is measured by: a few figures, taken in one pass over its samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from ttsfast.data.checks.snr import wada_snr

SILENT_PEAK = 4 / 32768
"""A recording that never rises above the last two of 16 bits is silent; dither reaches half of that."""
QUIET_DB = 40.0
"""A 5 ms block is quiet so far below the loudest one: what ``--trim`` takes for silence, too."""
_SILENT_DB = -150.0
_LOUDEST = 1e6
"""Of full scale: what lies beyond is measured as this, so that the square of a sample is a number."""
_SPECTRUM = 1024
_BAND_HZ = 250.0
_CUT_DB = 25.0
"""A recording is cut off at a frequency when all above lies so far below what is next to it. Speech falls by
6 to
12 dB an octave, and the filter of any resampler by 60 dB within a tenth of one."""
_LOWEST_CUT = 2000.0
_FLAT = 3
"""Samples in a row at the very top that make a flat top."""


@dataclass(frozen=True, slots=True)
class ClipFigures:
    """Of the loudest channel, where there are several. Levels in dB are of full scale."""

    rate: int
    channels: int
    seconds: float
    digest: str
    """Of the samples as they are: equal recordings have equal ones."""
    peak: float
    """Of the absolute samples; 1 is full scale."""
    offset: float
    """The mean of the samples, over their deviation: DC."""
    level: float
    """Of the blocks that are not quiet."""
    clipped: float
    """Share of the samples that lie in flat tops."""
    gap: float
    """Seconds of the longest run of one and the same sample in the midst of sound, or that sound ends in."""
    gap_at: float
    still: float
    """Share of the samples in runs of one and the same sample of 10 ms and more."""
    before: float
    """Seconds of quiet at the beginning."""
    after: float
    """Seconds of quiet at the end."""
    pause: float
    """Seconds of the longest quiet between sounds."""
    pause_at: float
    start: float
    """Level of the first 10 ms below the loudest block."""
    end: float
    """Level of the last 10 ms below the loudest block."""
    snr: float
    """How far the speech stands above the noise, in dB: by WADA-SNR or above the quietest blocks, whichever
    is more. Noise is no louder than these, so the second is a lower bound; the first takes speech for noise
    where it is synthetic, or has no pause."""
    band: float
    """The frequency in Hz that it is cut off at; half the rate where it is not."""
    correlation: float
    """Of the first two channels; 1 of one."""
    balance: float
    """How many dB the quieter of the first two channels lies below the other; 0 of one."""

    @property
    def silent(self) -> bool:
        """Nothing is heard in it: no sample stands out, or all are one and the same."""
        return self.peak <= SILENT_PEAK or self.still > 0.99


def measure(samples: np.ndarray, rate: int) -> ClipFigures:
    """Measure a recording.

    Args:
        samples: (n, channels) float32, n at least 1, as they are in the file. Where any is beyond a million
            times full scale or not a number, those count as that much, and as 0.
        rate: of the file.
    """
    power = np.einsum("ij,ij->j", samples, samples, dtype=np.float64) / len(samples)
    wave = np.ascontiguousarray(samples[:, int(power.argmax())])
    magnitudes = np.abs(wave)
    peak = float(magnitudes.max())
    if not peak <= _LOUDEST:
        return measure(np.clip(np.nan_to_num(samples), -_LOUDEST, _LOUDEST), rate)
    deviation = float(wave.std(dtype=np.float64))
    block = max(1, rate // 200)
    levels = _levels(wave, block)
    loudest = float(levels.max())
    sounding = levels > loudest - QUIET_DB
    first, last = np.flatnonzero(sounding)[[0, -1]]
    level = _decibels(float(np.mean(10 ** (levels[sounding] / 10))))
    pause, pause_at = _longest(~sounding[first : last + 1])
    still, gap, gap_at = _stillness(wave, rate, levels, block)
    correlation, balance = _channels(samples, power)
    return ClipFigures(
        rate=rate,
        channels=samples.shape[1],
        seconds=len(wave) / rate,
        digest=blake2b(samples.tobytes(), digest_size=8).hexdigest(),
        peak=peak,
        offset=float(wave.mean(dtype=np.float64)) / deviation if deviation > 0 else 0.0,
        level=level,
        clipped=_clipped(wave, peak) / len(wave),
        gap=gap,
        gap_at=gap_at,
        still=still,
        before=float(first * block / rate),
        after=float((len(levels) - 1 - last) * block / rate),
        pause=pause * block / rate,
        pause_at=float((first + pause_at) * block / rate),
        start=loudest - float(levels[:2].max()),
        end=loudest - float(levels[-2:].max()),
        snr=max(wada_snr(magnitudes), level - _quietest(levels)),
        band=_cut_off(wave, rate),
        correlation=correlation,
        balance=balance,
    )


def _decibels(power: float | np.ndarray) -> float:
    return float(10 * np.log10(max(float(power), 1e-20)))


def _levels(wave: np.ndarray, block: int) -> np.ndarray:
    """Of each block in dB; a last one that is not full counts where it is all there is."""
    count = max(1, len(wave) // block)
    blocks = wave[: count * block].reshape(count, -1)
    power = np.einsum("ij,ij->i", blocks, blocks) / blocks.shape[1]
    return 10 * np.log10(np.maximum(power, 1e-20))


def _quietest(levels: np.ndarray) -> float:
    """The level that 5% of the blocks lie below, digital silence left out."""
    heard = levels[levels > _SILENT_DB]
    return float(np.percentile(heard, 5)) if len(heard) else _SILENT_DB


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs of True begin, and how long they are."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return edges[::2], edges[1::2] - edges[::2]


def _longest(mask: np.ndarray) -> tuple[int, int]:
    """How long the longest run of True is, and where it begins."""
    starts, lengths = _runs(mask)
    if len(starts) == 0:
        return 0, 0
    longest = int(lengths.argmax())
    return int(lengths[longest]), int(starts[longest])


def _stillness(wave: np.ndarray, rate: int, levels: np.ndarray, block: int) -> tuple[float, float, float]:
    """Share of the samples in still runs; seconds of the longest one that is a hole in sound; where."""
    starts, lengths = _runs(wave[1:] == wave[:-1])
    long = lengths >= rate // 100
    starts, lengths = starts[long], lengths[long]
    if len(starts) == 0:
        return 0.0, 0.0, 0.0
    # A pause fades, a hole does not: there is sound in the 20 ms before and behind it, or loud sound before
    # it and nothing behind. What only begins at once is a sound after silence.
    first, behind = starts // block, (starts + lengths) // block
    before = np.array([levels[max(0, b - 3) : b + 1].max() for b in first]) - levels.max()
    after = np.array([levels[b : b + 4].max(initial=-np.inf) for b in behind]) - levels.max()
    last = starts + lengths >= len(wave) - 1
    hole = (starts > 0) & np.where(last, before > -20, (before > -30) & (after > -30))
    longest = int(np.where(hole, lengths, 0).argmax())
    gap = float(lengths[longest] / rate) if hole.any() else 0.0
    return float(lengths.sum() / len(wave)), gap, float(starts[longest] / rate) if gap else 0.0


def _clipped(wave: np.ndarray, peak: float) -> int:
    """Samples in flat tops: runs at the largest value, or the smallest, whatever scale they were brought
    to."""
    if peak == 0:
        return 0
    count = 0
    for top, side in ((float(wave.max()), wave), (-float(wave.min()), -wave)):
        if top > peak / 4:
            _, lengths = _runs(side >= top * 0.998)
            count += int(lengths[lengths >= _FLAT].sum())
    return count


def _cut_off(wave: np.ndarray, rate: int) -> float:
    """The frequency above which there is next to nothing; half the rate where there is something
    throughout."""
    count = len(wave) // _SPECTRUM
    if count == 0:
        return rate / 2
    frames = wave[: count * _SPECTRUM].reshape(count, _SPECTRUM) * _window()
    spectrum = np.fft.rfft(frames)
    power = np.mean(spectrum.real**2 + spectrum.imag**2, axis=0)
    width = max(1, round(_BAND_HZ * _SPECTRUM / rate))
    bands = power[: len(power) // width * width].reshape(-1, width).mean(axis=1)
    levels = 10 * np.log10(np.maximum(bands, 1e-20))
    above = np.maximum.accumulate(levels[::-1])[::-1]
    hertz = width * rate / _SPECTRUM
    for place in range(int(_LOWEST_CUT / hertz), len(levels) - 2):
        # One band for the filter's slope.
        if levels[place - 1] - above[place + 1] > _CUT_DB:
            return place * hertz
    return rate / 2


@lru_cache(maxsize=1)
def _window() -> np.ndarray:
    return np.hanning(_SPECTRUM).astype(np.float32)


def _channels(samples: np.ndarray, power: np.ndarray) -> tuple[float, float]:
    """Correlation and balance of the first two channels."""
    if samples.shape[1] == 1:
        return 1.0, 0.0
    balance = abs(_decibels(power[0]) - _decibels(power[1]))
    scale = float(np.sqrt(power[0] * power[1]))
    product = float(np.einsum("i,i->", samples[:, 0], samples[:, 1], dtype=np.float64)) / len(samples)
    return (product / scale if scale > 0 else 1.0), balance
