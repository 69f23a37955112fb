"""The recordings of a store: their samples, and mels of them in place of the stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.corpus.finder import RecordingFinder
from ttsfast.data.features.mel import log_mel
from ttsfast.data.features.options import FeatureOptions
from ttsfast.data.features.statistics import normalise
from ttsfast.data.store.manifest import Manifest
from ttsfast.errors import InputError


class Recordings:
    """The recordings of a store's utterances, whose mels are computed at every read: the stored ones, to the
    last bit where the same libraries compute them.
    """

    def __init__(self, store: Path | str, manifest: Manifest, corpus: Path | str | None) -> None:
        """``store`` is for the messages; ``corpus`` where the corpus is now, None where it was.

        Raises InputError when it is not there.
        """
        self._store, self._manifest = store, manifest
        names = ("resample", "mixdown", "trim")
        switches: dict[str, Any] = {name: bool(manifest.options.get(name)) for name in names}
        self._options = FeatureOptions(
            contract=manifest.contract, loudness=manifest.options.get("loudness"), **switches
        )
        self._corpus = Path(manifest.corpus if corpus is None else corpus)
        if not self._corpus.is_dir():
            raise InputError(
                f"{self._corpus}: the corpus of {store} is not there; name the folder it has moved to, or "
                "do without the recordings (data.preprocessing_mode=precompute)"
            )
        self._finder = RecordingFinder(self._corpus)

    def samples(self, index: int) -> np.ndarray:
        """(samples,) float32, as the stored features were computed from; raises InputError where the
        recording cannot be read.
        """
        return self._options.read(self._path(index))

    def mel(self, index: int) -> np.ndarray:
        """Normalised (T, C) float16; raises InputError where the recording cannot be read or has changed."""
        entry = self._manifest.entries[index]
        found = log_mel(self.samples(index), self._manifest.contract)
        if len(found) != entry.frames:
            raise InputError(
                f"{self._path(index)}: gives {len(found)} frames, the store has {entry.frames} of "
                f"{entry.id!r}; the recording has changed, prepare again"
            )
        return normalise(found, self._manifest.mel_mean, self._manifest.mel_std)

    def _path(self, index: int) -> str:
        entry = self._manifest.entries[index]
        return self._finder.again(entry.audio, f"{self._store}: utterance {entry.id!r}")
