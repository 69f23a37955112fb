"""What a voice needs beside its weights, and what it needs to be saved and found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.features.contract import MelContract
from ttsfast.errors import InputError

if TYPE_CHECKING:
    from ttsfast.data.store.store import Store

LONGEST = 10_000_000
"""frames that a voice may speak without an end: more than a day"""


@dataclass(frozen=True, kw_only=True)
class VoiceInfo:
    """What a voice needs beside its weights; saved in every checkpoint as ``voice.json``."""

    contract: MelContract
    frontend: TextFrontend
    symbols: Symbols
    speakers: tuple[str, ...]
    mel_mean: np.ndarray
    """(C,) float32, log-mel units"""
    mel_std: np.ndarray
    """(C,) float32, log-mel units"""
    silence: np.ndarray
    """(C,) float32, normalised units"""
    max_frames: int
    stop_threshold: float = 0.5
    tracks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """of "pitch" and "energy", what the store holds: mean and standard deviation"""
    licence: str = ""
    """of the corpus, as whoever prepared it said; empty when nobody did"""

    @classmethod
    def of_store(cls, store: Store) -> VoiceInfo:
        """The voice that training on ``store`` gives."""
        return cls(
            contract=store.contract,
            frontend=store.frontend,
            symbols=store.symbols,
            speakers=tuple(store.speakers),
            mel_mean=store.mel_mean,
            mel_std=store.mel_std,
            silence=store.silence,
            # More than any sentence like the corpus's needs.
            max_frames=2 * int(store.frames.max()),
            tracks={name: (float(mean), float(std)) for name, (mean, std) in store.tracks.items()},
            licence=store.licence,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; float32 values survive the round trip exactly."""
        return {
            "contract": self.contract.to_dict(),
            "frontend": self.frontend.to_dict(),
            "symbols": self.symbols.to_list(),
            "speakers": list(self.speakers),
            "max_frames": self.max_frames,
            "stop_threshold": self.stop_threshold,
            **({"tracks": {name: list(pair) for name, pair in self.tracks.items()}} if self.tracks else {}),
            **({"licence": self.licence} if self.licence else {}),
            **{name: getattr(self, name).tolist() for name in ("mel_mean", "mel_std", "silence")},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> VoiceInfo:
        """Read :meth:`to_dict`'s result; raise InputError naming ``where`` when it is something else."""
        try:
            contract = MelContract.from_dict(values["contract"])
            arrays = {
                name: np.asarray(values[name], dtype=np.float32)
                for name in ("mel_mean", "mel_std", "silence")
            }
            info = cls(
                contract=contract,
                frontend=TextFrontend.from_dict(values["frontend"]),
                symbols=Symbols.from_list(values["symbols"]),
                speakers=tuple(values["speakers"]),
                max_frames=int(values["max_frames"]),
                stop_threshold=float(values["stop_threshold"]),
                tracks={
                    str(name): (float(mean), float(std))
                    for name, (mean, std) in values.get("tracks", {}).items()
                },
                licence=str(values.get("licence", "")),
                **arrays,
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{where}: not a voice ({error!r}); use another checkpoint") from error
        if not 1 <= info.max_frames <= LONGEST or not 0.0 <= info.stop_threshold <= 1.0:
            raise InputError(
                f"{where}: max_frames is {info.max_frames} and stop_threshold {info.stop_threshold}, "
                f"expected 1 to {LONGEST} and 0 to 1; use another checkpoint"
            )
        if not isinstance(values["speakers"], (list, tuple)) or not info.speakers:
            raise InputError(f"{where}: speakers are not a list of names; use another checkpoint")
        if any(a.shape != (contract.n_mels,) or not np.isfinite(a).all() for a in arrays.values()):
            raise InputError(f"{where}: statistics are not {contract.n_mels} finite numbers")
        return info
