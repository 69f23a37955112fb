"""Stores whose features are wrong: prepared while a part of preparation is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.mel import log_mel
from ttsfast.data.prepare import extraction, prepare


@dataclass(frozen=True)
class StoreFault:
    """One known way to break a store."""

    check: str
    cause: str
    """Words that the finding must hold."""
    plant: Callable[[pytest.MonkeyPatch], None] = lambda patch: None
    """While it is prepared."""
    later: Callable[[Path], None] = lambda corpus: None
    """To the corpus, when the store is there."""
    severity: str = "error"


def _mel(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[pytest.MonkeyPatch], None]:
    """With another log-mel."""

    def made(wave: np.ndarray, contract: MelContract) -> np.ndarray:
        return np.ascontiguousarray(change(log_mel(wave, contract)), dtype=np.float32)

    return lambda patch: patch.setattr(extraction, "log_mel", made)


def _contract(**values: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """By another contract than the store says."""

    def made(wave: np.ndarray, contract: MelContract) -> np.ndarray:
        return log_mel(wave, replace(contract, **values))

    return lambda patch: patch.setattr(extraction, "log_mel", made)


def _own_scale(mel: np.ndarray) -> np.ndarray:
    return (mel - mel.mean(axis=0)) / (mel.std(axis=0) + 1e-5)


def _padded(mel: np.ndarray) -> np.ndarray:
    return np.concatenate([mel[:-30], np.zeros((30, mel.shape[1]))])


def _statistics(mean: float, deviation: float, tilt: float = 0.0) -> Callable[[pytest.MonkeyPatch], None]:
    slope = np.linspace(-tilt, tilt, 80, dtype=np.float32)
    found = [mean + slope, deviation + slope]
    return lambda patch: patch.setattr(prepare, "statistics", lambda *_: tuple(found))


def _every(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """With other samples in every recording."""

    def later(corpus: Path) -> None:
        for path in corpus.glob("*.wav"):
            wave, rate = soundfile.read(path)
            soundfile.write(path, change(wave), rate)

    return later


def _recordings_gone(corpus: Path) -> None:
    for path in sorted(corpus.glob("*.wav"))[:4]:
        path.unlink()


STORE_FAULTS = {
    "transposed": StoreFault("features", "swapped in memory", _mel(lambda mel: mel.T.reshape(mel.shape))),
    "upside_down": StoreFault("features", "upside down", _mel(lambda mel: mel[:, ::-1])),
    "backwards": StoreFault("features", "backwards", _mel(lambda mel: mel[::-1])),
    "base_10": StoreFault("features", "base 10", _contract(log_base="10")),
    "power": StoreFault("features", "power", _contract(power=2.0)),
    "hop": StoreFault("features", "hop", _contract(hop_length=128)),
    "other_bins": StoreFault("features", "another contract", _contract(fmin=2000.0)),
    "own_scale": StoreFault("features", "normalised by its own", _mel(_own_scale)),
    "stale_level": StoreFault("features", "level", later=_every(lambda wave: wave * 0.3)),
    "stale_length": StoreFault("features", "length", later=_every(lambda wave: wave[3000:])),
    "stale_sound": StoreFault("features", "another recording", later=_every(lambda wave: wave[::-1] ** 2)),
    "gone": StoreFault("features", "cannot be read", later=_recordings_gone),
    "loud_padding": StoreFault("stored values", "padding", _mel(_padded)),
    "one_deviation": StoreFault("statistics", "one mean", _statistics(0.0, 1.0)),
    "other_statistics": StoreFault("statistics", "not those of the features", _statistics(-2.0, 5.0, 0.5)),
}
