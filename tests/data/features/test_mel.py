"""The mel contract against librosa and against the published HiFi-GAN recipe, in float64 and to 1e-4."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast.data.features.contract import PRESETS, MelContract, silence_level
from ttsfast.data.features.filterbank import mel_filters
from ttsfast.data.features.mel import log_mel
from ttsfast.errors import InputError

LIBROSA = MelContract.preset("librosa-22k")
HIFIGAN = MelContract.preset("hifigan-22k")
SPEECH = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "ljspeech-mini" / "wavs"


def waves() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(40_000).astype(np.float32)
    # Speech-like dynamics: a decaying chirp over very quiet noise, then digital silence.
    time = np.arange(40_000) / 22050
    chirp = np.exp(-3 * time) * np.sin(2 * np.pi * (200 + 900 * time) * time)
    return {
        "noise": 0.3 * noise,
        "quiet noise": 1e-5 * noise,
        "tone": np.sin(2 * np.pi * 441 * time).astype(np.float32),
        "chirp": (chirp + 1e-5 * noise).astype(np.float32),
        "silence": np.zeros(5_000, dtype=np.float32),
        "half silent": np.concatenate([0.1 * noise[:5_000], np.zeros(20_000, dtype=np.float32)]),
    }


def speech() -> np.ndarray:
    if not SPEECH.is_dir():
        pytest.skip("the LJ Speech sample is not on this machine")
    return soundfile.read(SPEECH / "LJ001-0003.wav", dtype="float32")[0]


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert actual.size > 0
    assert np.isfinite(actual).all()
    assert np.isfinite(expected).all()
    assert np.abs(actual - expected).max() <= tolerance


def librosa_log_mel(wave: np.ndarray) -> np.ndarray:
    mel = librosa.feature.melspectrogram(
        y=wave, sr=22050, n_fft=1024, hop_length=256, win_length=1024, n_mels=80, fmin=0, fmax=8000, power=1.0
    )
    return np.log(np.maximum(mel, 1e-5)).T


def hifigan_mel(wave: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """HiFi-GAN's features before the logarithm, (T, 80), written down from the published recipe."""
    signal = torch.from_numpy(wave).to(dtype)[None, None]
    signal = torch.nn.functional.pad(signal, (384, 384), mode="reflect")[0]
    window = torch.hann_window(1024, dtype=dtype)
    spectrum = torch.stft(signal, 1024, 256, 1024, window, center=False, return_complex=True)
    magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
    filters = torch.from_numpy(slaney_filters(22050, 1024, 80, 0.0, 8000.0)).to(dtype)
    return (filters @ magnitude)[0].T.clamp(min=1e-5).numpy()


def slaney_filters(rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Slaney's filterbank from its definition: 200/3 Hz a mel below 1 kHz, 27 mels for a factor 6.4 above."""

    def to_mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    def to_hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    edges = [to_hz(mel) for mel in np.linspace(to_mel(fmin), to_mel(fmax), n_mels + 2)]
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    rows = []
    for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
        triangle = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
        rows.append(np.maximum(triangle, 0) * 2 / (high - low))
    return np.array(rows)


def test_filterbank_is_slaneys() -> None:
    assert np.abs(mel_filters(LIBROSA) - slaney_filters(22050, 1024, 80, 0.0, 8000.0)).max() < 1e-6


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
@pytest.mark.parametrize("mel_norm", ["slaney", "none"])
@pytest.mark.parametrize(
    ("fmin", "fmax", "n_fft"), [(0.0, 8000.0, 1024), (990.0, 11025.0, 2048), (1e3, 3e3, 4096)]
)
def test_filterbank_is_librosas(mel_scale: str, mel_norm: str, fmin: float, fmax: float, n_fft: int) -> None:
    contract = replace(LIBROSA, mel_scale=mel_scale, mel_norm=mel_norm, fmin=fmin, fmax=fmax, n_fft=n_fft)
    expected = librosa.filters.mel(
        sr=22050,
        n_fft=n_fft,
        n_mels=80,
        fmin=fmin,
        fmax=fmax,
        htk=mel_scale == "htk",
        norm="slaney" if mel_norm == "slaney" else None,
    )
    found = mel_filters(contract)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2e-7 * expected.max()


@pytest.mark.parametrize("name", waves())
def test_librosa_preset_is_librosas_own_result(name: str) -> None:
    assert_close(log_mel(waves()[name], LIBROSA), librosa_log_mel(waves()[name]))


@pytest.mark.parametrize("name", waves())
def test_hifigan_preset_is_the_published_recipe(name: str) -> None:
    wave = waves()[name]
    assert_close(log_mel(wave, HIFIGAN), np.log(hifigan_mel(wave, torch.float64)))
    # The recipe in its own float32 rounds quiet bins of loud frames by more than 1e-4 in the logarithm;
    # before the logarithm the two agree.
    assert_close(np.exp(log_mel(wave, HIFIGAN)), hifigan_mel(wave, torch.float32), 2e-5)


def test_presets_agree_with_both_on_real_speech() -> None:
    wave = speech()
    assert_close(log_mel(wave, LIBROSA), librosa_log_mel(wave))
    assert_close(log_mel(wave, HIFIGAN), np.log(hifigan_mel(wave, torch.float64)))
    assert_close(np.exp(log_mel(wave, HIFIGAN)), hifigan_mel(wave, torch.float32), 2e-5)


@pytest.mark.filterwarnings("ignore:n_fft=1024 is too large:UserWarning")
@pytest.mark.parametrize("samples", [1, 2, 255, 256, 257, 511, 512, 1023, 1024, 1025])
def test_short_clips_with_librosa(samples: int) -> None:
    wave = waves()["noise"][:samples]
    assert_close(log_mel(wave, LIBROSA), librosa_log_mel(wave))


@pytest.mark.parametrize("samples", [385, 386, 511, 512, 513, 1023, 1024])
def test_short_clips_with_hifigan(samples: int) -> None:
    wave = waves()["noise"][:samples]
    assert_close(log_mel(wave, HIFIGAN), np.log(hifigan_mel(wave, torch.float64)))


@pytest.mark.parametrize(
    ("contract", "samples", "least"),
    [
        (LIBROSA, 0, 1),
        (HIFIGAN, 0, 385),
        (HIFIGAN, 384, 385),
        (replace(LIBROSA, padding="center_reflect"), 512, 513),
    ],
)
def test_too_short_clips_are_an_error_that_says_how_short(
    contract: MelContract, samples: int, least: int
) -> None:
    with pytest.raises(InputError, match=f"has {samples} samples.* at least {least} "):
        log_mel(np.zeros(samples, dtype=np.float32), contract)
    assert len(log_mel(np.zeros(least, dtype=np.float32), contract)) == contract.frames(least) >= 1


@pytest.mark.parametrize("contract", PRESETS.values(), ids=PRESETS)
def test_silence_lies_at_the_silence_level(contract: MelContract) -> None:
    features = log_mel(np.zeros(3000, dtype=np.float32), contract)
    assert np.array_equal(features, np.full_like(features, np.float32(silence_level(contract))))
    assert silence_level(contract) == pytest.approx(-11.512925, abs=1e-6)
    assert silence_level(replace(contract, log_base="10")) == pytest.approx(-5.0)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"padding": "center_reflect"}, {"pad_mode": "reflect"}),
        ({"power": 2.0}, {"power": 2.0}),
        ({"mel_scale": "htk"}, {"htk": True}),
        ({"mel_norm": "none"}, {"norm": None}),
        ({"win_length": 600}, {"win_length": 600}),
        ({"win_length": 601, "hop_length": 200}, {"win_length": 601, "hop_length": 200}),
        ({"n_fft": 2048, "n_mels": 100}, {"n_fft": 2048, "n_mels": 100}),
        ({"fmin": 60.0, "fmax": 11025.0}, {"fmin": 60, "fmax": 11025}),
        ({"sample_rate": 16000, "fmax": 7600.0}, {"sr": 16000, "fmax": 7600}),
    ],
)
def test_every_parameter_of_the_contract_acts_as_in_librosa(
    changes: dict[str, Any], options: dict[str, Any]
) -> None:
    wave = waves()["chirp"]
    base = {"sr": 22050, "n_fft": 1024, "hop_length": 256, "win_length": 1024, "n_mels": 80, "fmin": 0}
    mel = librosa.feature.melspectrogram(y=wave, **{**base, "fmax": 8000, "power": 1.0, **options})
    expected = np.log(np.maximum(mel, 1e-5)).T
    actual = log_mel(wave, replace(LIBROSA, **changes))
    assert_close(actual, expected)
    if actual.shape == (plain := log_mel(wave, LIBROSA)).shape:
        assert np.abs(actual - plain).max() > 1e-2


def test_log_base_floor_and_epsilon_act() -> None:
    wave = waves()["chirp"]
    natural = log_mel(wave, LIBROSA)
    assert_close(log_mel(wave, replace(LIBROSA, log_base="10")) * np.float32(np.log(10)), natural, 1e-5)
    assert_close(log_mel(wave, replace(LIBROSA, floor=1e-2)), np.maximum(natural, np.log(1e-2)), 1e-6)
    assert (log_mel(wave, replace(LIBROSA, magnitude_epsilon=1e-3)) > natural).any()


@given(st.integers(1, 5000), st.sampled_from([64, 128, 256]), st.sampled_from(["center_zero", "hifigan"]))
@settings(max_examples=60, deadline=None)
def test_the_frame_count_is_known_ahead(samples: int, hop: int, padding: str) -> None:
    contract = replace(LIBROSA, n_fft=512, win_length=512, hop_length=hop, padding=padding, n_mels=20)
    expected = samples // hop + (padding == "center_zero")
    assert contract.frames(samples) == expected
    if expected > 0 and samples > contract.pad:
        assert log_mel(np.ones(samples, dtype=np.float32), contract).shape == (expected, 20)


@pytest.mark.parametrize("wave", [np.zeros(5000, dtype=np.int16), np.zeros((2, 5000), dtype=np.float32)])
def test_samples_of_another_form_are_refused(wave: np.ndarray) -> None:
    with pytest.raises(ValueError, match="floating-point"):
        log_mel(wave, LIBROSA)


@pytest.mark.parametrize("contract", PRESETS.values(), ids=PRESETS)
def test_a_contract_survives_json(contract: MelContract) -> None:
    values = json.loads(json.dumps(contract.to_dict()))
    assert MelContract.from_dict(values) == contract
    assert MelContract.from_dict({**values, "fmin": 0, "power": 1}) == contract
    assert LIBROSA != HIFIGAN


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sample_rate", 0),
        ("sample_rate", 22050.0),
        ("n_fft", 1023),
        ("n_fft", True),
        ("n_fft", "1024"),
        ("hop_length", 0),
        ("hop_length", 2000),
        ("win_length", 1025),
        ("n_mels", -1),
        ("fmin", -1.0),
        ("fmin", 8000.0),
        ("fmax", 11026.0),
        ("fmax", float("nan")),
        ("mel_norm", None),
        ("mel_scale", "bark"),
        ("power", 1.5),
        ("magnitude_epsilon", float("nan")),
        ("log_base", "2"),
        ("floor", 0.0),
        ("floor", float("inf")),
        ("padding", "center"),
    ],
)
def test_values_that_cannot_work_name_their_key(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"mel contract: {key} is ") as caught:
        MelContract.from_dict({**LIBROSA.to_dict(), key: value})
    assert "\n" not in str(caught.value)


def test_missing_and_unknown_keys_and_presets_are_named() -> None:
    values = LIBROSA.to_dict()
    with pytest.raises(InputError, match="unknown key 'hop'"):
        MelContract.from_dict({**values, "hop": 256})
    del values["floor"]
    with pytest.raises(InputError, match="'floor' is missing"):
        MelContract.from_dict(values)
    with pytest.raises(InputError, match=r"'librosa'.*librosa-22k, hifigan-22k"):
        MelContract.preset("librosa")
    with pytest.raises(InputError, match="hop_length is 255"):
        replace(HIFIGAN, hop_length=255)


def test_a_filter_without_a_frequency_bin_is_an_error() -> None:
    with pytest.raises(InputError, match="n_mels = 400 covers no frequency bin"):
        log_mel(waves()["noise"], replace(LIBROSA, n_mels=400))
