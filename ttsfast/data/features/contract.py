"""The mel contract: every parameter that decides what a log-mel number means.

Two voices, a store and a vocoder can only work together when their contracts are equal, so the contract is
written into every store, checkpoint and synthesised file. See docs/mel-contract.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ttsfast.errors import InputError

_CHOICES: dict[str, tuple[Any, ...]] = {
    "mel_norm": ("slaney", "none"),
    "mel_scale": ("slaney", "htk"),
    "power": (1.0, 2.0),
    "log_base": ("e", "10"),
    "padding": ("center_zero", "center_reflect", "hifigan"),
}


# The least normal number of float32, in which features are stored.
_LEAST_FLOOR = 2.0**-126


@dataclass(frozen=True)
class MelContract:
    """How a waveform becomes log-mel features. Raises InputError for values that cannot work."""

    sample_rate: int
    """Hz"""
    n_fft: int
    """Samples in a transform, even; the frame's window of ``win_length`` samples is centred in it."""
    hop_length: int
    """Samples from one frame to the next."""
    win_length: int
    """Samples of the periodic Hann window."""
    n_mels: int
    fmin: float
    """Hz, lower edge of the first filter."""
    fmax: float
    """Hz, upper edge of the last filter, at most half the sample rate."""
    mel_norm: str
    """"slaney": each triangle has unit area in Hz; "none": unit height."""
    mel_scale: str
    """"slaney": linear below 1 kHz, logarithmic above; "htk": 2595 log10(1 + f/700)."""
    power: float
    """1.0: filters weigh magnitudes; 2.0: powers."""
    magnitude_epsilon: float
    """Added under the root: sqrt(re^2 + im^2 + magnitude_epsilon)."""
    log_base: str
    """"e" or "10"."""
    floor: float
    """Filter outputs below it are raised to it before the logarithm."""
    padding: str
    """"center_zero", "center_reflect": n_fft / 2 samples a side; "hifigan": (n_fft - hop) / 2 reflected."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                given = " or ".join(repr(choice) for choice in choices)
                raise InputError(f"mel contract: {name} is {getattr(self, name)!r}, must be {given}")
        for name, right, rule in (
            ("sample_rate", self.sample_rate > 0, "positive"),
            ("n_fft", self.n_fft > 0 and self.n_fft % 2 == 0, "positive and even"),
            ("win_length", 0 < self.win_length <= self.n_fft, f"from 1 to n_fft ({self.n_fft})"),
            (
                "hop_length",
                0 < self.hop_length <= self.win_length,
                f"from 1 to win_length ({self.win_length})",
            ),
            ("n_mels", self.n_mels > 0, "positive"),
            ("fmax", 0 < self.fmax <= self.sample_rate / 2, f"above 0, at most {self.sample_rate / 2:g} Hz"),
            ("fmin", 0 <= self.fmin < self.fmax, f"from 0 to below fmax ({self.fmax:g})"),
            ("magnitude_epsilon", 0 <= self.magnitude_epsilon < 1, "from 0 to below 1"),
            ("floor", _LEAST_FLOOR <= self.floor < math.inf, "positive, and 1.2e-38 or more"),
        ):
            if not right:
                raise InputError(f"mel contract: {name} is {getattr(self, name)!r}, must be {rule}")
        if self.padding == "hifigan" and (self.n_fft - self.hop_length) % 2:
            raise InputError(
                f"mel contract: hop_length is {self.hop_length}, must be even for the padding 'hifigan'"
            )

    @classmethod
    def preset(cls, name: str) -> MelContract:
        """A contract by name; raises InputError, listing the names, for an unknown one."""
        if name not in PRESETS:
            raise InputError(f"unknown mel preset {name!r}; use one of {', '.join(PRESETS)}")
        return PRESETS[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a manifest or a checkpoint keeps them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MelContract:
        """The inverse of :meth:`to_dict`; raises InputError for a missing, unknown or ill-typed key."""
        names = {field.name: field.type for field in fields(cls)}
        if unknown := sorted(set(values) - set(names)):
            raise InputError(f"mel contract: unknown key {unknown[0]!r}; the keys are {', '.join(names)}")
        if missing := [name for name in names if name not in values]:
            raise InputError(f"mel contract: the key {missing[0]!r} is missing; prepare the corpus again")
        return cls(**{name: _typed(name, kind, values[name]) for name, kind in names.items()})

    @property
    def pad(self) -> int:
        """Samples added to each side of a waveform before it is cut into frames."""
        return (self.n_fft - self.hop_length) // 2 if self.padding == "hifigan" else self.n_fft // 2

    def frames(self, samples: int) -> int:
        """Frames of a waveform: 1 + samples // hop when centred, samples // hop with HiFi-GAN's padding."""
        return max(0, 1 + (samples + 2 * self.pad - self.n_fft) // self.hop_length)


# librosa.feature.melspectrogram(power=1.0), then the natural logarithm.
_LIBROSA = MelContract(
    sample_rate=22050,
    n_fft=1024,
    hop_length=256,
    win_length=1024,
    n_mels=80,
    fmin=0.0,
    fmax=8000.0,
    mel_norm="slaney",
    mel_scale="slaney",
    power=1.0,
    magnitude_epsilon=0.0,
    log_base="e",
    floor=1e-5,
    padding="center_zero",
)
PRESETS = {
    "librosa-22k": _LIBROSA,
    # Kong et al., 2020, "HiFi-GAN", the published 22 kHz configurations V1 to V3.
    "hifigan-22k": replace(_LIBROSA, magnitude_epsilon=1e-9, padding="hifigan"),
}
DEFAULT_PRESET = "hifigan-22k"
"""Published vocoders accept it."""
HIFIGAN_KEYS = {
    "sampling_rate": "sample_rate",
    "n_fft": "n_fft",
    "hop_size": "hop_length",
    "win_size": "win_length",
    "num_mels": "n_mels",
    "fmin": "fmin",
    "fmax": "fmax",
}
"""A contract's fields by the keys of the published HiFi-GAN configurations, and of those that follow them."""


def contract_of_hifigan(values: Mapping[str, Any]) -> MelContract:
    """The contract of a published HiFi-GAN configuration (Kong et al., 2020), which has all
    :data:`HIFIGAN_KEYS`; raises InputError for values that cannot work, or are of another type.
    """
    named = {ours: values[theirs] for theirs, ours in HIFIGAN_KEYS.items()}
    if named["fmax"] is None and isinstance(named["sample_rate"], int):
        named["fmax"] = named["sample_rate"] / 2
    return MelContract.from_dict({**PRESETS["hifigan-22k"].to_dict(), **named})


def silence_level(contract: MelContract) -> float:
    """The log of the floor: what digital silence gives, and the value to pad log-mels with."""
    return math.log(contract.floor) if contract.log_base == "e" else math.log10(contract.floor)


def _typed(name: str, kind: Any, value: Any) -> Any:
    # Under `from __future__ import annotations` a field's type is its name.
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value).__name__ != kind:
        raise InputError(f"mel contract: {name} is {value!r}, must be of type {kind}")
    return value
