"""How a corpus becomes a store: the choices, and their plain form by which a store tells how it was made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ttsfast.data.corpus.audio import check_loudness_library
from ttsfast.data.corpus.split import check_fractions
from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.features import tracks
from ttsfast.data.features.contract import DEFAULT_PRESET, MelContract
from ttsfast.data.features.options import FeatureOptions
from ttsfast.data.features.statistics import STD_FLOOR
from ttsfast.data.prepare import extraction
from ttsfast.data.prepare.engines import check_engine
from ttsfast.data.prepare.like import Like
from ttsfast.devices import available_cores
from ttsfast.errors import InputError

# More than machines have cores; far beyond it the system gives no threads, and engines fail each in its way.
_MOST_JOBS = 1024
TEST_FRACTION = 0.1
TESTED_FROM = 200
"""With fewer, a tenth is too few to tell anything by and too many to do without."""
_LOUDNESS = (-70.0, 0.0)
"""In LUFS: that of the standard's gate, and what no recording can have."""
_PLAIN = ("layout", "validation_fraction", "seed", "resample", "mixdown", "trim", "max_duration")


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How a corpus becomes a store. All but the last six shape the store and are in its fingerprint; of
    these, ``device`` may still change the last bits of stored numbers.
    """

    frontend: TextFrontend = field(default_factory=lambda: TextFrontend("en"))
    contract: MelContract = field(default_factory=lambda: MelContract.preset(DEFAULT_PRESET))
    layout: str = "auto"
    symbols: Symbols | None = None
    """A character set to hold to, another store's say; None: the characters of the corpus."""
    like: Like | None = None
    """What is taken from another store: statistics in place of the corpus's own, symbols beside its own."""
    validation_fraction: float = 0.05
    test_fraction: float | None = None
    """None: :data:`TEST_FRACTION` of a corpus that lists more than :data:`TESTED_FROM` utterances, else 0."""
    seed: int = 0
    resample: bool = False
    mixdown: bool = False
    trim: bool = False
    loudness: float | None = None
    """LUFS that every recording is brought to, -23 by EBU R128; None: as they are."""
    max_duration: float | None = None
    """Seconds; longer utterances are left out, and listed."""
    pitch: bool = False
    """Also each frame's fundamental frequency, see ``tracks.py``."""
    energy: bool = False
    """Also each frame's energy."""
    licence: str = ""
    """Of the corpus, a name or a line of text; every voice that is trained on the store carries it."""
    exclude_bad: bool = False
    """Go on without what is faulty, and list it, where otherwise nothing is written."""
    jobs: int = -1
    """Processes for the features; -1: one for every core."""
    engine: str = "joblib"
    """What runs them, see ``engines.py``."""
    device: str = "cpu"
    """"cuda": they decode only, and this process computes on the GPU."""
    force: bool = False
    """Replace a store that was made otherwise, or that is damaged."""
    allow_roots: tuple[Path | str, ...] = ()
    """Folders beside the corpus's that recordings may be in."""

    def __post_init__(self) -> None:
        check_fractions(self.validation_fraction, self.test_fraction or 0.0)
        # JSON has no infinity, so no manifest could say it.
        if self.max_duration is not None and not 0 < self.max_duration < math.inf:
            raise InputError(
                f"max_duration is {self.max_duration}, must be a number of seconds above 0; leave it out for "
                "no limit"
            )
        if self.loudness is not None:
            if not _LOUDNESS[0] < self.loudness < _LOUDNESS[1]:
                raise InputError(f"loudness is {self.loudness}, must be LUFS between -70 and 0, such as -23")
            check_loudness_library()
        if not self.licence.isprintable():
            raise InputError(f"licence is {self.licence!r:.80}, must be one line of text")
        check_resources(self.engine, self.device, self.jobs)

    def for_corpus(self, layout: str, listed: int) -> PrepareOptions:
        """What is left open, decided for a corpus of that layout and number of listed utterances: naming it
        the next time changes nothing.
        """
        test_fraction = self.test_fraction
        if test_fraction is None:
            test_fraction = TEST_FRACTION if listed > TESTED_FROM else 0.0
        return replace(self, layout=layout, test_fraction=test_fraction)

    @property
    def workers(self) -> int:
        """``jobs`` as a number."""
        return available_cores() if self.jobs == -1 else self.jobs

    @property
    def features(self) -> FeatureOptions:
        """The part that shapes log-mels, and what goes with them."""
        names = tuple(name for name in tracks.NAMES if getattr(self, name))
        return FeatureOptions(self.contract, self.resample, self.mixdown, self.trim, names, self.loudness)

    def to_dict(self) -> dict[str, Any]:
        """Everything that shapes the store, flat, by name."""
        return {
            "features_version": extraction.VERSION,
            "symbols": None if self.symbols is None else self.symbols.to_list(),
            "std_floor": STD_FLOOR,
            **{name: getattr(self, name) for name in _PLAIN},
            **{f"contract.{name}": value for name, value in self.contract.to_dict().items()},
            **{f"frontend.{name}": value for name, value in self.frontend.to_dict().items()},
            # Only where there are any: a store without them is what it was before they could be had.
            **({"test_fraction": self.test_fraction} if self.test_fraction else {}),
            **({"loudness": self.loudness} if self.loudness is not None else {}),
            **({"licence": self.licence} if self.licence else {}),
            **{name: tracks.METHODS[name] for name in self.features.tracks},
            **({} if self.like is None else {f"like.{k}": v for k, v in self.like.to_dict().items()}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **changes: Any) -> PrepareOptions:
        """The inverse of :meth:`to_dict`; ``changes`` are the options that shape nothing.

        Raises InputError when the values are of another version of ttsfast, whose features would differ.
        """
        wanted: dict[str, Any] = {name: name in values for name in tracks.NAMES}
        try:
            symbols = values["symbols"]
            options = cls(
                frontend=TextFrontend.from_dict(_under(values, "frontend.")),
                contract=MelContract.from_dict(_under(values, "contract.")),
                symbols=None if symbols is None else Symbols.from_list(symbols),
                like=Like.from_dict(like) if (like := _under(values, "like.")) else None,
                **{name: values[name] for name in _PLAIN},
                test_fraction=values.get("test_fraction", 0.0),
                loudness=values.get("loudness"),
                licence=values.get("licence", ""),
                **wanted,
                **changes,
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"the options are not those of this version of ttsfast ({error!r})") from error
        now = options.to_dict()
        for name in sorted(set(now) | set(values)):
            if now.get(name) != values.get(name):
                raise InputError(
                    f"{name} is {values.get(name)!r} and {now.get(name)!r} in this version of ttsfast"
                )
        return options


def check_resources(engine: str, device: str, jobs: int) -> None:
    """Raise InputError for an engine or a device that is unknown, or not there, or a number of processes
    that none has.
    """
    if jobs != -1 and not 1 <= jobs <= _MOST_JOBS:
        raise InputError(f"jobs is {jobs}, must be from 1 to {_MOST_JOBS}, or -1 for every core")
    check_engine(engine)
    if device != "cpu":
        from ttsfast.devices import find_device

        find_device(device)


def _under(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}
