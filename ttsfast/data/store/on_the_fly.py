"""A store whose features are computed from the recordings at every read: to debug, and to compare speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.features.mel import log_mel
from ttsfast.data.features.options import FeatureOptions
from ttsfast.data.store.manifest import Manifest
from ttsfast.data.store.shard_file import ShardFile
from ttsfast.data.store.store import Store, normalise
from ttsfast.errors import InputError
from ttsfast.files import inside


class OnTheFlyStore(Store):
    """The same utterances as the stored ones, to the last bit where the same libraries compute them.

    Pitch and energy are the stored ones in any case.
    """

    def __init__(
        self,
        path: Path | str,
        manifest: Manifest,
        shards: list[ShardFile],
        *,
        verify: bool,
        corpus: Path | str | None = None,
    ) -> None:
        """Use ``Store.open(path, features="on_the_fly")``."""
        super().__init__(path, manifest, shards, verify=verify)
        names = ("resample", "mixdown", "trim")
        switches: dict[str, Any] = {name: bool(manifest.options.get(name)) for name in names}
        self._options = FeatureOptions(contract=manifest.contract, **switches)
        self.corpus = Path(manifest.corpus if corpus is None else corpus)
        if not self.corpus.is_dir():
            raise InputError(
                f"{self.corpus}: the corpus of {path} is not there; name the folder it has moved to, or use "
                "data.preprocessing_mode=precompute"
            )

    def _stored(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        _, text = super()._stored(index)
        name = self.entries.id[index]
        audio = inside(self.corpus, self.entries.audio[index], f"{self.path}: utterance {name!r}")
        wave = self._options.read(audio)
        mel = normalise(log_mel(wave, self.contract), self.mel_mean, self.mel_std)
        if len(mel) != self.frames[index]:
            raise InputError(
                f"{audio}: gives {len(mel)} frames, the store has {self.frames[index]} of {name!r}; "
                "the recording has changed, prepare again"
            )
        return mel, text
