"""Audio in and out: what is refused and how it is said; resampling, trimming and clipping."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ttsfast.data.audio import read_audio, resample_audio, trim_silence, write_wav
from ttsfast.errors import InputError

RATE = 22050


def tone(seconds: float = 0.5, frequency: float = 440.0, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def test_wav_round_trip_is_within_half_a_step(tmp_path: Path) -> None:
    wave = tone()
    write_wav(tmp_path / "a.wav", wave, RATE)
    back = read_audio(tmp_path / "a.wav", RATE)
    assert back.dtype == np.float32
    assert back.shape == wave.shape
    assert np.abs(back - wave).max() <= 0.5001 / 32768
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_loud_samples_clip_at_full_scale_without_wrapping(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.array([1.0, 1.5, 40.0, -1.0, -1.5, -40.0, 0.0]), RATE)
    pcm, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert pcm.tolist() == [32767, 32767, 32767, -32768, -32768, -32768, 0]


@pytest.mark.parametrize(
    "wave", [np.array([0.0, np.nan]), np.array([np.inf]), np.zeros((4, 2)), np.zeros(4, dtype=np.int16)]
)
def test_writing_refuses_what_is_not_finite_mono_float(tmp_path: Path, wave: np.ndarray) -> None:
    with pytest.raises(ValueError):
        write_wav(tmp_path / "a.wav", wave, RATE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "tolerance"), [("flac", 1e-4), ("ogg", 0.05), ("mp3", 0.05)])
def test_other_formats_are_read(tmp_path: Path, suffix: str, tolerance: float) -> None:
    if suffix.upper() not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {suffix}")
    wave = tone(1.0)
    soundfile.write(tmp_path / f"a.{suffix}", wave, RATE)
    back = read_audio(tmp_path / f"a.{suffix}", RATE)
    # Lossy coders may pad the ends; the level in the middle is what must hold.
    assert abs(np.sqrt(np.mean(back[5000:15000] ** 2)) - 0.5 / np.sqrt(2)) < tolerance


def test_another_rate_is_an_error_that_names_both_and_the_remedy(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(rate=16000), 16000)
    with pytest.raises(InputError, match=r"a\.wav.*16000 Hz.*22050 Hz.*--resample") as caught:
        read_audio(tmp_path / "a.wav", RATE)
    assert "\n" not in str(caught.value)


def test_resampling_keeps_pitch_and_level(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(1.0, rate=16000), 16000)
    wave = read_audio(tmp_path / "a.wav", RATE, resample=True)
    assert len(wave) == RATE
    expected = tone(1.0)
    assert np.abs(wave[1000:-1000] - expected[1000:-1000]).max() < 1e-3
    assert np.array_equal(resample_audio(expected, RATE, RATE), expected)


def test_stereo_is_an_error_unless_mixed_down(tmp_path: Path) -> None:
    left, right = tone(), tone(frequency=700)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=r"a\.wav.*2 channels.*--mixdown"):
        read_audio(tmp_path / "a.wav", RATE)
    mixed = read_audio(tmp_path / "a.wav", RATE, mixdown=True)
    assert np.allclose(mixed, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_counted_and_placed(tmp_path: Path, value: float) -> None:
    wave = tone(1.0)
    wave[RATE // 2] = value
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=r"a\.wav: 1 samples.*0\.500 s"):
        read_audio(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize("scale", [100.0, 32768.0, 1e12, 1e30])
def test_samples_far_beyond_full_scale_are_refused(tmp_path: Path, scale: float) -> None:
    wave = tone() / np.abs(tone()).max()
    soundfile.write(tmp_path / "a.wav", wave * scale, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=r"a\.wav: its samples reach .*, full scale is 1; scale it"):
        read_audio(tmp_path / "a.wav", RATE)
    soundfile.write(tmp_path / "b.wav", np.stack([wave, -wave], axis=1) * scale, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=r"b\.wav: its samples reach"):
        read_audio(tmp_path / "b.wav", RATE, mixdown=True)


def test_a_floating_point_file_may_pass_full_scale_by_some(tmp_path: Path) -> None:
    wave = 4 * tone() / np.abs(tone()).max()
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE), wave.astype(np.float32))


def test_missing_empty_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.wav: no such file"):
        read_audio(tmp_path / "none.wav", RATE)
    with pytest.raises(InputError, match="no such file"):
        read_audio(tmp_path, RATE)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    with pytest.raises(InputError, match=r"empty\.wav: holds no samples"):
        read_audio(tmp_path / "empty.wav", RATE)
    for name, content in [
        ("zero.wav", b""),
        ("text.wav", b"not audio" * 99),
        ("cut.wav", b"RIFF\xff\0\0\0WAVE"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: cannot be read") as caught:
            read_audio(tmp_path / name, RATE)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("lead", "tail"), [(0.3, 0.7), (0.0, 0.2), (0.2, 0.0), (0.0, 0.0)])
def test_trimming_leaves_the_sound_and_its_margin(lead: float, tail: float) -> None:
    noise = 1e-4 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    sound = tone(0.5)
    start, stop = int(lead * RATE), int(lead * RATE) + len(sound)
    wave = noise[: stop + int(tail * RATE)].copy()
    wave[start:stop] += sound
    trimmed = trim_silence(wave, RATE)
    margin = 0.02 * RATE
    expected = len(sound) + min(margin, start) + min(margin, len(wave) - stop)
    # Blocks of 5 ms decide, so each end may be one block off.
    assert abs(len(trimmed) - expected) <= 2 * RATE // 200 + 2
    assert np.isclose((trimmed**2).sum(), (wave[start:stop] ** 2).sum(), rtol=1e-3)


def test_a_pause_inside_is_kept() -> None:
    wave = np.concatenate([tone(0.3), np.zeros(RATE), tone(0.3)])
    assert len(trim_silence(wave, RATE)) == len(wave)


def test_silence_throughout(tmp_path: Path) -> None:
    assert trim_silence(np.zeros(1000, dtype=np.float32), RATE).size == 0
    assert trim_silence(np.zeros(0, dtype=np.float32), RATE).size == 0
    write_wav(tmp_path / "a.wav", np.zeros(1000), RATE)
    assert len(read_audio(tmp_path / "a.wav", RATE)) == 1000
    with pytest.raises(InputError, match=r"a\.wav: is silent throughout"):
        read_audio(tmp_path / "a.wav", RATE, trim=True)
