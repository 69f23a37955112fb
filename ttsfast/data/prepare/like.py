"""What a new store takes from one that there is, so that a voice trained on that can go on with this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.store.manifest import Manifest


@dataclass(frozen=True)
class Like:
    """The statistics that features are normalised by, and symbols that the store has besides its own."""

    mel_mean: tuple[float, ...]
    """(C,) log-mel units"""
    mel_std: tuple[float, ...]
    """(C,) log-mel units"""
    symbols: Symbols

    @classmethod
    def of(cls, manifest: Manifest, frontend: TextFrontend) -> Like:
        """What a store's manifest has; of its symbols those of ``frontend``, so none of another."""
        symbols = manifest.symbols if manifest.frontend == frontend else Symbols(())
        return cls(tuple(manifest.mel_mean.tolist()), tuple(manifest.mel_std.tolist()), symbols)

    @property
    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (C,) float32."""
        return np.array(self.mel_mean, np.float32), np.array(self.mel_std, np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; float32 values survive the round trip exactly."""
        return {
            "mel_mean": list(self.mel_mean),
            "mel_std": list(self.mel_std),
            "symbols": self.symbols.to_list(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Like:
        """The inverse of :meth:`to_dict`."""
        mean, std = (tuple(map(float, values[name])) for name in ("mel_mean", "mel_std"))
        return cls(mean, std, Symbols.from_list(values["symbols"]))
