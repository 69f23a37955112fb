"""Everything that shapes an utterance's features beside the recording itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.corpus.audio import read_samples, to_mono
from ttsfast.data.features import tracks
from ttsfast.data.features.contract import MelContract


@dataclass(frozen=True)
class FeatureOptions:
    """Everything that shapes an utterance's features beside the recording itself."""

    contract: MelContract
    resample: bool
    mixdown: bool
    trim: bool
    tracks: tuple[str, ...] = ()
    """Those of ``tracks.NAMES`` to compute beside the log-mel, in that order."""
    loudness: float | None = None
    """LUFS to bring a recording to."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; those of ``tracks`` that are not wanted leave no trace, nor does no ``loudness``."""
        plain = asdict(self)
        if plain["loudness"] is None:
            del plain["loudness"]
        return plain | {name: tracks.METHODS[name] for name in plain.pop("tracks")}

    def read(self, path: Path | str) -> np.ndarray:
        """The samples (samples,) to compute features from; raises InputError as ``read_audio`` does."""
        return self.from_samples(*read_samples(path), path)

    def from_samples(self, samples: np.ndarray, rate: int, path: Path | str) -> np.ndarray:
        """The same of the samples (samples, channels) that ``path`` has."""
        return to_mono(
            samples,
            rate,
            path,
            self.contract.sample_rate,
            resample=self.resample,
            mixdown=self.mixdown,
            trim=self.trim,
            loudness=self.loudness,
        )
