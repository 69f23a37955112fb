"""One utterance as it leaves the store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Utterance:
    """One utterance's features as they leave the store."""

    id: str
    text: np.ndarray
    """(N,) int64 symbol ids"""
    mel: np.ndarray
    """(T, C) float16 or float32, normalised"""
    speaker: int = 0
    truncated: bool = False
    """The recording was cut before the speaker finished: it teaches no stop."""
    pitch: np.ndarray | None = None
    """(T,) float32 Hz, 0 where unvoiced; None where the store holds none"""
    energy: np.ndarray | None = None
    """(T,) float32; None where the store holds none"""
