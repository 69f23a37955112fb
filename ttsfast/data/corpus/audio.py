"""Reading and writing recordings. Nothing is mixed, resampled or trimmed unless it was asked for."""

from __future__ import annotations

import importlib.util
import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ttsfast.data.corpus.parquet import open_recording
from ttsfast.data.corpus.truncation import UNKNOWN_LENGTH, truncation_fault
from ttsfast.data.corpus.wav_header import read_wav_header
from ttsfast.errors import InputError
from ttsfast.files import atomic_write

if TYPE_CHECKING:
    import soundfile

# Floating-point files may pass full scale by some; samples beyond this are in another unit, or damaged, and
# one such recording would outweigh a corpus in its statistics.
LOUDEST = 16.0
# Those of libsndfile's containers of which ``truncation_fault``, or libsndfile itself, tells whether they
# are complete.
_CONTAINERS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
_LOUDNESS_BLOCK = 0.4
# Samples read at a time: a damaged header can announce more than there is memory for.
_BLOCK = 1 << 24


def read_audio(
    path: Path | str,
    sample_rate: int,
    *,
    resample: bool = False,
    mixdown: bool = False,
    trim: bool = False,
    trim_db: float = 40.0,
    loudness: float | None = None,
) -> np.ndarray:
    """Read a recording (wav, flac, ogg, opus, mp3) as float32 mono samples in about [-1, 1], (samples,).

    ``resample`` converts another sample rate (soxr, high quality), ``mixdown`` averages channels, ``trim``
    cuts leading and trailing silence as :func:`trim_silence` does, ``loudness`` brings what is left to so
    many LUFS as :func:`normalise_loudness` does. Raises InputError, naming the file and the
    remedy, for a file that is missing, unreadable or empty, that has another rate or several channels without
    the option that allows it, that ends before its format says it does or is of a format that does not tell,
    that holds NaN or Inf, that lies far beyond full scale (any sample above ``LOUDEST``), or that is silent
    throughout when it is to be trimmed or brought to a loudness.
    """
    samples, rate = read_samples(path)
    return to_mono(
        samples,
        rate,
        path,
        sample_rate,
        resample=resample,
        mixdown=mixdown,
        trim=trim,
        trim_db=trim_db,
        loudness=loudness,
    )


def read_samples(path: Path | str) -> tuple[np.ndarray, int]:
    """A recording as its file has it: samples (samples, channels) float32, and their rate.

    Raises InputError as :func:`read_audio` does for a file that is missing, unreadable, empty or not whole.
    """
    import soundfile

    try:
        with open_recording(path) as opened, _open(_for_libsndfile(opened)) as file:
            if file.format not in _CONTAINERS:
                raise InputError(
                    f"{path}: is {file.format_info}, a format that does not tell whether a file is whole; "
                    "convert it to wav or FLAC"
                )
            samples, rate = _samples(file), file.samplerate
            cut = truncation_fault(opened, file.format, file.frames, len(samples))
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as audio ({_one_line(error)}); replace or remove it"
        ) from error
    if cut:
        raise InputError(f"{path}: is cut short or damaged: {cut}; replace or remove it")
    if samples.shape[0] == 0:
        raise InputError(f"{path}: holds no samples; replace or remove it")
    return samples, rate


def to_mono(
    samples: np.ndarray,
    rate: int,
    path: Path | str,
    sample_rate: int,
    *,
    resample: bool = False,
    mixdown: bool = False,
    trim: bool = False,
    trim_db: float = 40.0,
    loudness: float | None = None,
) -> np.ndarray:
    """What :func:`read_audio` makes of samples (samples, channels) of ``path``; raises as it does for what
    they hold."""
    if samples.shape[1] != 1 and not mixdown:
        raise InputError(
            f"{path}: has {samples.shape[1]} channels, expected mono; convert it or use --mixdown"
        )
    wave = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    bad = np.flatnonzero(~np.isfinite(wave))
    if bad.size:
        first = f"{bad[0] / rate:.3f} s"
        raise InputError(f"{path}: {bad.size} samples are NaN or Inf, first at {first}; replace or remove it")
    # Of every channel: in their average two wrecks can cancel.
    peak = float(np.abs(samples).max())
    if peak > LOUDEST:
        raise InputError(
            f"{path}: its samples reach {peak:.3g}, full scale is 1; scale it to [-1, 1] or remove it"
        )
    if rate != sample_rate:
        if not resample:
            raise InputError(
                f"{path}: the sample rate is {rate} Hz, expected {sample_rate} Hz; use --resample"
            )
        wave = resample_audio(wave, rate, sample_rate)
    if trim:
        wave = trim_silence(wave, sample_rate, trim_db)
        if wave.size == 0:
            raise InputError(f"{path}: is silent throughout; replace or remove it")
    if loudness is not None:
        try:
            wave = normalise_loudness(wave, sample_rate, loudness)
        except ValueError as error:
            raise InputError(f"{path}: {error}; replace or remove it") from error
    return np.ascontiguousarray(wave, dtype=np.float32)


def _for_libsndfile(file: BinaryIO) -> BinaryIO | str:
    """What libsndfile reads ``file`` from: its own name, where it has one, which is faster than by calls of
    Python; a copy with the length in the header, where libsndfile does without none.
    """
    magic = file.read(4)
    if magic in (b"RIFF", b"RIFX", b"RF64"):
        header = read_wav_header(file)
        if header is not None and header.streamed and (header.announced == 0 or magic == b"RF64"):
            file.seek(0)
            content = bytearray(file.read())
            width = header.size_place.stop - header.size_place.start
            content[header.size_place] = header.there.to_bytes(width, header.order)
            return io.BytesIO(content)
    file.seek(0)
    return file if isinstance(file, io.BytesIO) else file.name


def _open(source: BinaryIO | str) -> soundfile.SoundFile:
    """Open a file with libsndfile; a FLAC that does not tell its length as a stream, in which none seeks."""
    import soundfile

    class Stream(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False

    file = soundfile.SoundFile(source)
    if file.frames < UNKNOWN_LENGTH:
        return file
    file.close()
    if not isinstance(source, str):
        source.seek(0)
    return Stream(source)


def _samples(file: soundfile.SoundFile) -> np.ndarray:
    """All samples (samples, channels) float32 of an open file, whatever its header announces."""
    size = max(1, _BLOCK // file.channels)
    blocks = [file.read(size, dtype="float32", always_2d=True)]
    while len(blocks[-1]) == size:
        blocks.append(file.read(size, dtype="float32", always_2d=True))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def resample_audio(wave: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Convert samples (samples,) from one rate to another with soxr's high-quality filter.

    There are ``samples * target_rate / source_rate`` of them then, rounded up: librosa's bits, without the
    seconds that importing librosa takes.
    """
    import soxr

    length = math.ceil(len(wave) * (target_rate / source_rate))
    found = soxr.resample(wave, source_rate, target_rate, quality="HQ")[:length]
    return np.pad(found, (0, length - len(found)))


def trim_silence(
    wave: np.ndarray, sample_rate: int, threshold_db: float = 40.0, margin_seconds: float = 0.02
) -> np.ndarray:
    """The part of ``wave`` that :func:`sounding` finds."""
    return wave[sounding(wave, sample_rate, threshold_db, margin_seconds)]


def sounding(
    wave: np.ndarray, sample_rate: int, threshold_db: float = 40.0, margin_seconds: float = 0.02
) -> slice:
    """Which samples are left when what lies before the first and after the last sound is cut.

    A 5 ms block is sound when its RMS is within ``threshold_db`` of the loudest block's. ``margin_seconds``
    are kept on both sides, so that a soft first consonant survives. Of digital silence nothing is left.
    """
    block = max(1, sample_rate // 200)
    blocks = -(-len(wave) // block)
    padded = np.zeros(blocks * block, dtype=np.float64)
    padded[: len(wave)] = wave
    level = np.sqrt(np.mean(padded.reshape(blocks, block) ** 2, axis=1))
    loudest = level.max(initial=0.0)
    if loudest == 0.0:
        return slice(0, 0)
    sound = np.flatnonzero(level >= loudest * 10 ** (-threshold_db / 20))
    margin = round(margin_seconds * sample_rate)
    return slice(max(0, int(sound[0]) * block - margin), (int(sound[-1]) + 1) * block + margin)


def normalise_loudness(wave: np.ndarray, sample_rate: int, loudness: float) -> np.ndarray:
    """Scale samples (samples,) to an integrated loudness in LUFS (EBU R128, ITU-R BS.1770-4).

    By one factor; what then passes full scale is not clipped. Recordings under 0.4 s, the standard's block,
    are measured as one block. Raises ValueError for what is so soft that it has no loudness.
    """
    check_loudness_library()
    import pyloudnorm

    seconds = len(wave) / sample_rate
    with np.errstate(divide="ignore"):
        meter = pyloudnorm.Meter(sample_rate, block_size=min(_LOUDNESS_BLOCK, seconds))
        found = meter.integrated_loudness(wave.astype(np.float64))
    if not math.isfinite(found):
        raise ValueError("is too soft to have a loudness")
    return wave * np.float32(10 ** ((loudness - found) / 20))


def check_loudness_library() -> None:
    """Raise InputError where what measures loudness is not installed."""
    if importlib.util.find_spec("pyloudnorm") is None:
        raise InputError("loudness is measured by pyloudnorm; pip install 'ttsfast[loudness]'")


def write_wav(path: Path | str, wave: np.ndarray, sample_rate: int) -> None:
    """Write samples (samples,) in [-1, 1] as 16-bit mono PCM, atomically.

    What exceeds the range is clipped at full scale and never wraps around. Raises ValueError for samples that
    are not one-dimensional, floating-point and finite.
    """
    import soundfile

    samples = np.asarray(wave)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"expected floating-point samples (samples,), got {samples.dtype} {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError(f"{os.fspath(path)}: the samples hold NaN or Inf")
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm16(samples), sample_rate, format="WAV", subtype="PCM_16")
    with atomic_write(Path(path)) as handle:
        handle.write(buffer.getbuffer())


def pcm16(samples: np.ndarray) -> np.ndarray:
    """Finite samples in [-1, 1] as int16; what exceeds the range is clipped at full scale."""
    return np.clip(np.rint(samples.astype(np.float64) * 32768.0), -32768, 32767).astype(np.int16)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
