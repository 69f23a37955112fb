"""Audio in and out: what is refused and how it is said; resampling, trimming and clipping."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile

from ttsfast.data.corpus import audio
from ttsfast.data.corpus.audio import read_audio, resample_audio, trim_silence, write_wav
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


FORMATS: dict[str, tuple[str, dict[str, Any], float]] = {
    "wav": ("wav", {}, 1e-4),
    "wav 24 bit": ("wav", {"subtype": "PCM_24"}, 1e-6),
    "wav float": ("wav", {"subtype": "FLOAT"}, 1e-7),
    "wav extensible": ("wav", {"format": "WAVEX"}, 1e-4),
    "wav RF64": ("wav", {"format": "RF64"}, 1e-4),
    "flac": ("flac", {}, 1e-4),
    "ogg vorbis": ("ogg", {}, 0.02),
    "mp3": ("mp3", {}, 0.02),
}


def write_format(folder: Path, name: str, wave: np.ndarray) -> Path:
    suffix, options, _ = FORMATS[name]
    if suffix.upper() not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {suffix}")
    path = folder / f"a.{suffix}"
    soundfile.write(path, wave, RATE, **options)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read(tmp_path: Path, name: str) -> None:
    wave = tone(1.0)
    back = read_audio(write_format(tmp_path, name, wave), RATE)
    assert back.dtype == np.float32
    # Lossy coders are apart at the ends, and nowhere by a sample's shift.
    assert len(back) == len(wave)
    assert np.abs(back - wave)[2000:-2000].max() <= FORMATS[name][2]


def noisy() -> np.ndarray:
    # As loud as to fill the coders' frames.
    return tone(2.0) + 0.05 * np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)


@pytest.mark.parametrize("kept", [0.999, 0.7, 0.3, 0.02])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, name: str, kept: float) -> None:
    path = write_format(tmp_path, name, noisy())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=rf"{path.name}: (is cut short|cannot be read as)") as caught:
        read_audio(path, RATE)
    assert "\n" not in str(caught.value)


def test_a_coder_that_cannot_seek_is_read_to_its_end(tmp_path: Path) -> None:
    wave = tone()
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="GSM610")
    back = read_audio(tmp_path / "a.wav", RATE)
    # Whole blocks of 320 samples.
    assert 0 <= len(back) - len(wave) < 640
    assert np.abs(back[: len(wave)] - wave)[2000:-2000].max() < 0.1


def test_more_than_a_block_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = np.stack([tone(), tone(frequency=300.0)], axis=1)
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    for block in (999, 2 * len(wave), 2 * len(wave) + 2):
        monkeypatch.setattr(audio, "_BLOCK", block)
        assert np.array_equal(read_audio(tmp_path / "a.wav", RATE, mixdown=True), wave.mean(axis=1))


def test_what_a_header_announces_takes_no_memory(tmp_path: Path) -> None:
    path = write_format(tmp_path, "mp3", noisy())
    content = bytearray(path.read_bytes())
    frames = max(content.find(b"Xing"), content.find(b"Info")) + 8
    content[frames : frames + 4] = b"\x7f\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp3: is cut short or damaged: .* are not there"):
        read_audio(path, RATE)


@pytest.mark.parametrize("container", ["AIFF", "AU", "CAF", "W64"])
def test_a_format_that_does_not_tell_its_end_is_refused_whatever_its_name(
    tmp_path: Path, container: str
) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), RATE, format=container)
    with pytest.raises(InputError, match=r"a\.wav: is .*; convert it to wav or FLAC$"):
        read_audio(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize("name", ["flac", "ogg vorbis", "mp3"])
def test_a_file_that_is_damaged_inside_is_named(tmp_path: Path, name: str) -> None:
    path = write_format(tmp_path, name, noisy())
    content = bytearray(path.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 600)
    content[middle] = bytes(byte ^ 0x5A for byte in content[middle])
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path.name}: (is cut short or damaged|cannot be read as)"):
        read_audio(path, RATE)


def test_what_follows_or_streams_is_no_cut(tmp_path: Path) -> None:
    path = write_format(tmp_path, "wav", noisy())
    content = path.read_bytes()
    place = content.index(b"data") + 4
    expected = read_audio(path, RATE)
    # An odd chunk before the data, with its byte of padding, and another after it.
    odd = b"junk" + (3).to_bytes(4, "little") + b"abc\0"
    path.write_bytes(content[: place - 4] + odd + content[place - 4 :] + odd)
    assert np.array_equal(read_audio(path, RATE), expected)
    path.write_bytes(content[: place - 4] + odd + content[place - 4 : -10])
    with pytest.raises(InputError, match="its data should go on for 10 bytes"):
        read_audio(path, RATE)
    # As programs write them that do not know the length ahead.
    path.write_bytes(content[:place] + b"\xff" * 4 + content[place + 4 :])
    assert np.array_equal(read_audio(path, RATE), expected)


def announce(content: bytes, size: int, order: Literal["little", "big"] = "little") -> bytes:
    """A wav file with another size in the header of its data."""
    place = content.index(b"data") + 4
    return content[:place] + size.to_bytes(4, order) + content[place + 4 :]


PLACEHOLDERS = [
    *(0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFDB, 0x7FFFFFD3, 0xFFFFF000, 0x7FFF0000),
    *(0x7FFFEFDC, 2_000_000_000, 1_000_000_000, 999_999_964, 0x40000000, 0),
]


@pytest.mark.parametrize("size", PLACEHOLDERS, ids=hex)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_streamed_wav_is_read_whole_and_its_cut_is_found(tmp_path: Path, size: int, subtype: str) -> None:
    path = tmp_path / "a.wav"
    wave = noisy()[:10_001]
    soundfile.write(path, wave, RATE, subtype=subtype)
    whole = read_audio(path, RATE)
    content = announce(path.read_bytes(), size)
    path.write_bytes(content)
    assert np.array_equal(read_audio(path, RATE), whole)
    width = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[subtype]
    # Without a chunk behind the samples, and inside the last of them.
    end = content.index(b"data") + 8 + width * len(wave)
    path.write_bytes(content[: end - width + 1])
    with pytest.raises(InputError, match="its last sample is not whole"):
        read_audio(path, RATE)
    # What its header announces, and no placeholder.
    path.write_bytes(announce(content, width * len(wave) + 12_345_679))
    with pytest.raises(InputError, match="its data should go on for 1234"):
        read_audio(path, RATE)


def test_an_empty_wav_is_not_taken_for_a_streamed_one(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), RATE, subtype="PCM_16")
    content = path.read_bytes()
    path.write_bytes(content + b"LIST" + (6).to_bytes(4, "little") + b"INFOxx")
    with pytest.raises(InputError, match="holds no samples"):
        read_audio(path, RATE)


def test_a_streamed_rf64_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noisy(), RATE, format="RF64")
    whole = read_audio(path, RATE)
    content = bytearray(path.read_bytes())
    content[28:36] = b"\xff" * 8
    path.write_bytes(announce(bytes(content), 0xFFFFFFFF))
    assert np.array_equal(read_audio(path, RATE), whole)


def test_a_streamed_flac_is_read_whole_and_its_cut_is_found(tmp_path: Path) -> None:
    """Its header leaves the number of samples open: 0 in 36 bits."""
    path = write_format(tmp_path, "flac", noisy())
    whole = read_audio(path, RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    # Nor does it know the hash of what it had still to read.
    content[26:42] = bytes(16)
    path.write_bytes(content)
    assert np.array_equal(read_audio(path, RATE), whole)
    last = content.rfind(b"\xff\xf8")
    # In the header of a frame libsndfile does not see that one has begun.
    for end in (len(content) - 1, len(content) // 2, last + 100, last + 6, last + 1):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=r"(its last frame is not whole|cannot be read as audio)"):
            read_audio(path, RATE)


@pytest.mark.parametrize("seconds", [0.1, 0.3, 2.0])
def test_loudness_is_brought_to_what_was_asked_for(tmp_path: Path, seconds: float) -> None:
    pytest.importorskip("pyloudnorm", reason="pyloudnorm is not installed (extra 'loudness')")
    levels = {}
    for level in (0.02, 0.5):
        # BS.1770: a tone of 997 Hz and full scale has a loudness of -3.01 LUFS.
        write_wav(tmp_path / "a.wav", tone(seconds, frequency=997.0, level=level), RATE)
        wave = read_audio(tmp_path / "a.wav", RATE, loudness=-23.0)
        levels[level] = float(np.sqrt(2 * np.mean(wave**2)))
    assert 20 * np.log10(levels[0.5]) == pytest.approx(-20.0, abs=0.3)
    assert levels[0.02] == pytest.approx(levels[0.5], rel=1e-3)


def test_what_has_no_loudness_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyloudnorm", reason="pyloudnorm is not installed (extra 'loudness')")
    write_wav(tmp_path / "a.wav", np.zeros(RATE), RATE)
    with pytest.raises(InputError, match=r"a\.wav: is too soft to have a loudness; replace or remove it"):
        read_audio(tmp_path / "a.wav", RATE, loudness=-23.0)


def test_an_mp3_that_does_not_tell_its_length_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_format(tmp_path, "mp3", noisy())
    content = path.read_bytes()
    path.write_bytes(b"ID3\4\0\0\0\0\1\2" + bytes(130) + content)
    assert len(read_audio(path, RATE)) == 2 * RATE
    # libsndfile goes by the first frame's bit rate, and reads too little where it varies.
    for mode, whole in [("CONSTANT", True), ("VARIABLE", False)]:
        soundfile.write(path, noisy(), RATE, bitrate_mode=mode, compression_level=0.5)
        content = path.read_bytes()
        tag = max(content.find(b"Info"), content.find(b"Xing"))
        assert 0 < tag < 200
        path.write_bytes(content[:tag] + b"none" + content[tag + 4 :])
        if whole:
            assert 2 * RATE <= len(read_audio(path, RATE)) < 2 * RATE + 4000
        else:
            with pytest.raises(
                InputError, match=r"a\.mp3: .* samples can be read \(encode it again, as FLAC"
            ):
                read_audio(path, RATE)


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


@pytest.mark.parametrize("samples", [1, 1001, 20_000])
@pytest.mark.parametrize(("source", "target"), [(48_000, RATE), (16_000, RATE), (RATE, 16_000)])
def test_resampled_bits_are_librosas(samples: int, source: int, target: int) -> None:
    import librosa

    wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    expected = librosa.resample(wave, orig_sr=source, target_sr=target, res_type="soxr_hq")
    found = resample_audio(wave, source, target)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


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
