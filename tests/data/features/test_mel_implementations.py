"""The ways to compute log-mels (C++, numpy, torch): equal, and to the bit where that is promised."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast import native
from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.filterbank import hann_window, mel_filters
from ttsfast.data.features.mel import _plan, log_mel, log_mels

LIBROSA = MelContract.preset("librosa-22k")
HIFIGAN = MelContract.preset("hifigan-22k")
CONTRACTS = {
    "librosa-22k": LIBROSA,
    "hifigan-22k": HIFIGAN,
    "powers, base 10": replace(LIBROSA, power=2.0, log_base="10", floor=1e-10, padding="center_reflect"),
    "short window": replace(LIBROSA, n_fft=2048, win_length=900, hop_length=225, mel_scale="htk"),
    # Radices 3, 5, 7, and 1 + a prime.
    "n_fft 1200": replace(LIBROSA, sample_rate=24000, n_fft=1200, win_length=1200, hop_length=300, fmax=12e3),
    "n_fft 840": replace(LIBROSA, n_fft=840, win_length=840, hop_length=210, n_mels=40),
    "n_fft 358": replace(LIBROSA, n_fft=358, win_length=358, hop_length=64, n_mels=20, padding="hifigan"),
}

needs_core = pytest.mark.skipif(native.core is None, reason=f"no C++ extension: {native.why_missing}")


def speech_like(samples: int = 30_000, seed: int = 0) -> np.ndarray:
    """A loud decaying chirp over noise 100 dB below it."""
    time = np.arange(samples) / 22050
    chirp = 0.8 * np.exp(-3 * time) * np.sin(2 * np.pi * (200 + 900 * time) * time)
    return (chirp + 1e-5 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def by_definition(wave: np.ndarray, contract: MelContract) -> np.ndarray:
    mode = "constant" if contract.padding == "center_zero" else "reflect"
    padded = np.pad(wave.astype(np.float64), contract.pad, mode=mode)
    frames = np.lib.stride_tricks.sliding_window_view(padded, contract.n_fft)[:: contract.hop_length]
    spectrum = np.fft.rfft(frames * hann_window(contract))
    power = np.abs(spectrum) ** 2 + contract.magnitude_epsilon
    mel = (np.sqrt(power) if contract.power == 1 else power) @ mel_filters(contract).T.astype(np.float64)
    return np.log(np.maximum(mel, contract.floor)) / (1 if contract.log_base == "e" else np.log(10))


def by_numpy(wave: np.ndarray, contract: MelContract) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "core", None)
        return log_mel(wave, contract)


WAYS: dict[str, Callable[[np.ndarray, MelContract], np.ndarray]] = {
    "C++": log_mel,
    "numpy": by_numpy,
    "torch": lambda wave, contract: log_mels([wave], contract, "cpu")[0],
}


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_the_definition(way: str, contract: MelContract) -> None:
    if way == "C++" and native.core is None:
        pytest.skip(f"no C++ extension: {native.why_missing}")
    wave = speech_like()
    found, expected = WAYS[way](wave, contract), by_definition(wave, contract)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (contract.frames(len(wave)), contract.n_mels)
    assert np.ptp(expected) > 3
    assert np.abs(found - expected).max() <= 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_a_floor_whose_square_is_no_single_precision_is_kept(way: str) -> None:
    if way == "C++" and native.core is None:
        pytest.skip(f"no C++ extension: {native.why_missing}")
    contract = replace(LIBROSA, floor=1e-30)
    wave = speech_like() * np.float32(1e-22)
    found, expected = WAYS[way](wave, contract), by_definition(wave, contract)
    assert np.ptp(expected) > 3
    assert expected.max() < -48
    assert np.abs(found - expected).max() <= 1e-5


@needs_core
@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_bits_are_the_same_for_every_instruction_set(contract: MelContract) -> None:
    wave = np.pad(speech_like(), contract.n_fft)
    expected = _plan(contract)(wave, "baseline")
    assert native.core is not None
    names = ["baseline", "avx2", "avx512"]
    # A processor with the later ones has the earlier ones.
    for isa in ["auto", *names[: names.index(native.core.mel_implementation()) + 1]]:
        found = _plan(contract)(wave, isa)
        assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


@needs_core
@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_frames_bits_do_not_depend_on_its_neighbours(first: int, count: int, seed: int) -> None:
    wave = speech_like(1024 + 256 * 60, seed)
    whole = _plan(LIBROSA)(wave)
    part = _plan(LIBROSA)(wave[256 * first : 256 * (first + count - 1) + 1024])
    assert np.array_equal(part, whole[first : first + count])


def test_threads_change_nothing() -> None:
    waves = [speech_like(9000 + 501 * k, k) for k in range(40)]
    expected = [log_mel(wave, HIFIGAN) for wave in waves]
    with ThreadPoolExecutor(4) as pool:
        for found, one in zip(pool.map(lambda wave: log_mel(wave, HIFIGAN), waves), expected, strict=True):
            assert np.array_equal(found, one)


@needs_core
def test_the_extension_refuses_what_does_not_fit_and_hides_no_bad_sample() -> None:
    assert native.core is not None
    plan: Any = _plan(LIBROSA)
    with pytest.raises(ValueError, match="of a window or more"):
        plan(np.zeros(1023, dtype=np.float32))
    with pytest.raises(TypeError):
        plan(np.zeros(5000))
    with pytest.raises(TypeError):
        plan(np.zeros(5000, dtype=np.float32)[::2])
    with pytest.raises(ValueError, match="unknown instruction set"):
        plan(np.zeros(5000, dtype=np.float32), "avx3")
    keys = {"n_fft": 8, "hop": 2, "epsilon": 0.0, "root": True, "floor": 1e-5, "decimal": False}
    good = {**keys, "window": np.ones(8), "filters": np.ones((2, 5), dtype=np.float32)}
    native.core.MelPlan(**good)
    for changed in [
        {"window": np.ones(7)},
        {"filters": np.ones((2, 4), dtype=np.float32)},
        {"filters": np.zeros((2, 5), dtype=np.float32)},
        {"n_fft": 7},
        {"hop": 0},
        {"floor": 0.0},
    ]:
        with pytest.raises(ValueError):
            native.core.MelPlan(**{**good, **changed})
    for bad in (np.nan, np.inf):
        wave = speech_like(8192)
        wave[4000] = bad
        found = plan(wave)
        touched = [0 <= 4000 - 256 * t < 1024 for t in range(len(found))]
        # The window is 0 at its first sample, and 0 * inf is no number either.
        assert np.array_equal(np.isnan(found).all(axis=1), touched)
        assert np.isfinite(found[~np.array(touched)]).all()


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_many_waves_on_a_device_are_each_as_if_alone(contract: MelContract) -> None:
    _many("cpu", contract)


@pytest.mark.gpu
@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_many_waves_on_a_gpu_are_each_as_if_alone(contract: MelContract) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    _many("cuda", contract)


def _many(device: str, contract: MelContract) -> None:
    waves = [speech_like(samples, samples) for samples in (9_000, 2_049, 30_000, 2_050)]
    found = log_mels(waves, contract, device)
    for wave, mel in zip(waves, found, strict=True):
        alone = log_mel(wave, contract)
        assert mel.dtype == np.float32
        assert mel.shape == alone.shape
        assert np.abs(mel - alone).max() <= 1e-5
