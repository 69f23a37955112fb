"""Griffin-Lim: what comes back has the features that were given, by librosa's iterations, always the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from ttsfast.data.features.contract import PRESETS, MelContract
from ttsfast.data.features.filterbank import mel_filters
from ttsfast.data.features.inversion import griffin_lim, magnitudes
from ttsfast.data.features.mel import log_mel

LIBROSA = MelContract.preset("librosa-22k")
HIFIGAN = MelContract.preset("hifigan-22k")
DECIBEL = replace(LIBROSA, power=2.0, log_base="10")
# Its hop divides neither the transform nor the window, which is shorter.
ODD = replace(LIBROSA, hop_length=300, win_length=900)
SPEECH = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "ljspeech-mini" / "wavs"


def chirp(samples: int = 20_000) -> np.ndarray:
    """A decaying chirp in quiet noise."""
    time = np.arange(samples) / 22050
    tone = np.exp(-3 * time) * np.sin(2 * np.pi * (200 + 900 * time) * time)
    noise = np.random.default_rng(0).standard_normal(samples)
    return (tone + 0.01 * noise).astype(np.float32)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("contract", [LIBROSA, HIFIGAN, ODD], ids=["librosa", "hifigan", "odd"])
def test_gives_a_wave_with_the_same_features(contract: MelContract) -> None:
    wave = chirp()
    features = log_mel(wave, contract)
    back = griffin_lim(features, contract)
    assert back.dtype == np.float32
    assert 0 <= len(wave) - len(back) < contract.hop_length
    again = log_mel(back, contract)
    assert again.shape == features.shape
    inner = slice(2, -2)
    error = np.abs(again[inner] - features[inner]).mean()
    assert error < 0.15
    # Not shifted in time: one frame off would be worse by far.
    assert error < np.abs(again[3:-1] - features[inner]).mean()
    assert np.abs(back).max() == pytest.approx(np.abs(wave).max(), rel=0.5)


def test_on_speech_it_is_close_and_follows_its_seed() -> None:
    if not SPEECH.is_dir():
        pytest.skip("the LJ Speech sample is not on this machine")
    wave = soundfile.read(SPEECH / "LJ001-0003.wav", dtype="float32")[0][:44_100]
    for contract in (LIBROSA, HIFIGAN, DECIBEL):
        features = log_mel(wave, contract)
        back = griffin_lim(features, contract)
        assert not np.array_equal(back, griffin_lim(features, contract, seed=1))
        error = np.abs(log_mel(back, contract) - features)
        assert error.mean() < 0.15 * contract.power / (1.0 if contract.log_base == "e" else np.log(10))


@pytest.mark.usefixtures("_threads")
def test_bits_are_the_same_every_time_for_any_number_of_threads() -> None:
    features = log_mel(chirp(), LIBROSA)
    found = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        found.append(griffin_lim(features, LIBROSA, n_iter=5))
    assert all(np.array_equal(found[0], wave) for wave in found[1:])


class _Phases(np.random.RandomState):
    """Those that Griffin-Lim starts from, where librosa draws its own."""

    def random(self, size: Any = None) -> Any:
        bins, frames = size
        parts = np.random.default_rng(0).standard_normal((frames, bins, 2), dtype=np.float32)
        return np.arctan2(parts[..., 1], parts[..., 0]).T / (2 * np.pi)


@pytest.mark.parametrize(
    "contract", [LIBROSA, HIFIGAN, DECIBEL, ODD], ids=["librosa", "hifigan", "decibel", "odd"]
)
def test_iterations_are_librosas(contract: MelContract) -> None:
    """Few, since what rounding makes of a difference grows with each."""
    import librosa

    features = log_mel(chirp(9_000), contract)
    padded = librosa.griffinlim(
        magnitudes(features, contract).T.astype(np.float64),
        n_iter=4,
        hop_length=contract.hop_length,
        win_length=contract.win_length,
        n_fft=contract.n_fft,
        center=False,
        random_state=_Phases(),
    )
    found = griffin_lim(features, contract, n_iter=4)
    expected = padded[contract.pad :][: len(found)]
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(
    # A quiet filter beside a loud one comes late, and of powers there are more of both.
    ("contract", "tolerance"),
    [(LIBROSA, 1e-3), (DECIBEL, 0.05)],
    ids=["magnitudes", "powers"],
)
def test_magnitudes_are_never_negative_and_have_the_mels(contract: MelContract, tolerance: float) -> None:
    features = log_mel(chirp(), contract)
    found = magnitudes(features, contract)
    assert found.dtype == np.float32
    assert found.min() >= 0
    mel = np.maximum(found.astype(np.float64) ** contract.power @ mel_filters(contract).T, contract.floor)
    error = np.abs((np.log(mel) if contract.log_base == "e" else np.log10(mel)) - features)
    assert error.mean() < tolerance


def test_a_mel_that_no_spectrum_has_is_approached() -> None:
    """A single filter without its neighbours, which overlap it: the least error, not the nearest clipping."""
    features = np.full((1, 80), -11.5, dtype=np.float32)
    features[0, 40] = 0.0
    filters = mel_filters(LIBROSA).astype(np.float64)
    wanted = np.exp(features.astype(np.float64))
    clipped = np.maximum(wanted @ np.linalg.pinv(filters).T, 0.0)
    found = magnitudes(features, LIBROSA).astype(np.float64)
    assert np.linalg.norm(found @ filters.T - wanted) < 0.5 * np.linalg.norm(clipped @ filters.T - wanted)


def test_loudness_changes_nothing_but_the_loudness() -> None:
    features = log_mel(chirp(9_000), LIBROSA)
    usual = griffin_lim(features, LIBROSA, n_iter=5)
    loud = griffin_lim(features + np.float32(64.0), LIBROSA, n_iter=5)
    assert np.abs(loud * np.exp(-64.0) - usual).max() < 1e-3 * np.abs(usual).max()


@pytest.mark.parametrize("contract", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("frames", [1, 2, 3, 64, 65])
def test_of_a_few_frames(contract: MelContract, frames: int) -> None:
    back = griffin_lim(np.full((frames, 80), -3.0, dtype=np.float32), contract, n_iter=3)
    hops = frames if contract is HIFIGAN else max(1, frames - 1)
    assert len(back) == hops * contract.hop_length
    assert np.isfinite(back).all()


@pytest.mark.parametrize(
    "features", [np.zeros((0, 80)), np.zeros((5, 79)), np.zeros(80), np.full((2, 80), np.nan)]
)
def test_refuses_what_are_no_log_mels(features: np.ndarray) -> None:
    with pytest.raises(ValueError, match="log-mels"):
        griffin_lim(features.astype(np.float32), LIBROSA)
