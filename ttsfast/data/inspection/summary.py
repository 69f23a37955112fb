"""What is inside a store, in figures: read from its manifest, so in no time whatever its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ttsfast.data.corpus.listings import Exclusion, count_exclusions
from ttsfast.data.corpus.split import SPLITS
from ttsfast.data.features.statistics import STD_FLOOR
from ttsfast.data.features.tracks import UNITS
from ttsfast.data.store.store import Store

if TYPE_CHECKING:
    from rich.console import Group

_SHOWN = 5
"""Extremes that are named."""
_SPEAKERS = 20
"""Speakers in the table, those with most hours."""


@dataclass(frozen=True)
class Table:
    """Some of the figures, for a terminal or a page."""

    title: str
    columns: Sequence[str]
    """Empty for a table of names and values."""
    rows: Sequence[Sequence[str]]
    numbers: bool = False
    """All but the first column are numbers."""


@dataclass(frozen=True)
class Spread:
    """How a figure is distributed over utterances."""

    least: float
    fifth: float
    """5% lie below."""
    median: float
    mean: float
    ninety_fifth: float
    """5% lie above."""
    most: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """Of (n,) values, n at least 1."""
        low, five, half, ninety_five, high = np.percentile(values, [0, 5, 50, 95, 100])
        return cls(*(float(x) for x in (low, five, half, values.mean(), ninety_five, high)))


@dataclass(frozen=True)
class Inspection:
    """What is inside a store."""

    store: str
    fingerprint: str
    appends: int
    """How often utterances were added after it was made."""
    statistics_of: int
    """How many utterances the statistics were taken of."""
    language: str
    phonemes: bool
    contract: Mapping[str, Any]
    bytes: int
    shards: int
    splits: Mapping[str, Mapping[str, float]]
    """Each of :data:`~ttsfast.data.corpus.split.SPLITS`: utterances and hours."""
    truncated: int
    """Clips that were cut before the speaker finished."""
    seconds: Spread
    symbols: Spread
    frames_per_symbol: Spread
    slowest: Sequence[tuple[str, float]]
    """Utterances of the most frames per symbol: silence, or less text than is said."""
    fastest: Sequence[tuple[str, float]]
    """Of the fewest: text that is not said, or a clip that was cut."""
    speakers: Mapping[str, Mapping[str, float]]
    """By hours, the most first: utterances and hours."""
    characters: Mapping[str, int]
    """How often each symbol occurs, the most frequent first; 0 for one that the character set has unused."""
    mel_mean: Sequence[float]
    mel_std: Sequence[float]
    tracks: Mapping[str, Sequence[float]]
    """Pitch and energy, where the store holds them: mean and deviation."""
    floored_bins: int
    """Bins that never move, whose deviation was raised to the floor."""
    exclusions: Sequence[Exclusion]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        plain = {
            name: vars(value) if isinstance(value, Spread) else value for name, value in vars(self).items()
        }
        return plain | {
            "exclusion_counts": count_exclusions(tuple(self.exclusions)),
            "exclusions": [vars(exclusion) for exclusion in self.exclusions],
        }

    def rows(self) -> list[tuple[str, str]]:
        """The store as a whole: name and value."""
        hours = sum(split["hours"] for split in self.splits.values())
        count = sum(int(split["utterances"]) for split in self.splits.values())
        parts = ", ".join(f"{int(s['utterances'])} {name}" for name, s in self.splits.items())
        contract = self.contract
        appended = f"; {self.appends} appends since" if self.appends else ""
        of = f"of the first {self.statistics_of} utterances" if self.statistics_of else "of another store"
        return [
            ("utterances", f"{count} ({parts})"),
            ("speech", f"{hours:.2f} h"),
            ("size", f"{self.bytes / 2**20:.1f} MiB in {self.shards} shards"),
            ("language", self.language + (", phonemes" if self.phonemes else "")),
            (
                "mel contract",
                f"{contract['n_mels']} bins, {contract['sample_rate']} Hz, hop {contract['hop_length']}",
            ),
            ("statistics", f"{of}{appended}"),
            ("bins that never move", str(self.floored_bins)),
            *(
                (name, f"mean {mean:.2f}, deviation {std:.2f} ({UNITS[name]})")
                for name, (mean, std) in self.tracks.items()
            ),
            ("truncated clips", str(self.truncated)),
            ("speakers", str(len(self.speakers))),
            ("characters", str(len(self.characters))),
            ("left out", str(len(self.exclusions))),
            ("fingerprint", self.fingerprint[:16]),
        ]

    def tables(self) -> list[Table]:
        """What the terminal shows, and the page too."""
        spreads = [
            (name, *(f"{value:.2f}" for value in vars(spread).values()))
            for name, spread in self.spreads().items()
        ]
        extremes = [
            (f"{slow} ({many:.1f})", f"{fast} ({few:.1f})")
            for (slow, many), (fast, few) in zip(self.slowest, self.fastest, strict=True)
        ]
        tables = [
            Table(self.store, (), self.rows()),
            Table("of an utterance", ("", "least", "5%", "median", "mean", "95%", "most"), spreads, True),
            Table("frames per symbol, look at these", ("most", "fewest"), extremes),
        ]
        if len(self.speakers) > 1:
            speakers = [
                (name or "(no name)", f"{int(values['utterances'])}", f"{values['hours']:.2f}")
                for name, values in list(self.speakers.items())[:_SPEAKERS]
            ]
            if more := len(self.speakers) - len(speakers):
                speakers.append((f"... and {more} more", "", ""))
            tables.append(Table("speakers", ("speaker", "utterances", "hours"), speakers, True))
        if self.exclusions:
            reasons = []
            for reason, count in count_exclusions(tuple(self.exclusions)).items():
                first = next(e for e in self.exclusions if e.reason == reason)
                reasons.append((reason, str(count), f"{first.id}: {first.detail}"))
            tables.append(Table("left out", ("reason", "count", "the first"), reasons))
        return tables

    def table(self) -> Group:
        """For a terminal."""
        from rich import table as rich_table
        from rich.console import Group
        from rich.markup import escape

        drawn = []
        for table in self.tables():
            grid = rich_table.Table(
                title=escape(table.title), title_justify="left", show_header=bool(table.columns)
            )
            for place, column in enumerate(table.columns):
                grid.add_column(column, justify="right" if table.numbers and place else "left")
            for row in table.rows:
                grid.add_row(*map(escape, row))
            drawn.append(grid)
        return Group(*drawn)

    def spreads(self) -> dict[str, Spread]:
        """By name."""
        return {
            "seconds": self.seconds,
            "symbols": self.symbols,
            "frames per symbol": self.frames_per_symbol,
        }


def inspect(store: Store) -> Inspection:
    """Look at a store's manifest."""
    manifest, entries, contract = store.manifest, store.entries, store.contract
    seconds = entries.frames * contract.hop_length / contract.sample_rate
    rate = entries.frames / entries.symbols
    order = np.argsort(rate, kind="stable")
    split = np.array(entries.split)
    counts = Counter(character for text in entries.text for character in text)
    characters = {character: counts[character] for character in store.symbols.characters}
    hours = np.bincount(entries.speaker, weights=seconds, minlength=len(manifest.speakers)) / 3600
    clips = np.bincount(entries.speaker, minlength=len(manifest.speakers))
    return Inspection(
        store=str(store.path),
        fingerprint=manifest.fingerprint,
        appends=len(manifest.history),
        statistics_of=manifest.statistics_of,
        language=manifest.frontend.language,
        phonemes=manifest.frontend.phonemes,
        contract=contract.to_dict(),
        bytes=sum(shard.size for shard in manifest.shards),
        shards=len(manifest.shards),
        splits={
            name: {
                "utterances": int((split == name).sum()),
                "hours": float(seconds[split == name].sum() / 3600),
            }
            for name in SPLITS
        },
        truncated=int(entries.truncated.sum()),
        seconds=Spread.of(seconds),
        symbols=Spread.of(entries.symbols),
        frames_per_symbol=Spread.of(rate),
        slowest=[(entries.id[i], float(rate[i])) for i in order[::-1][:_SHOWN]],
        fastest=[(entries.id[i], float(rate[i])) for i in order[:_SHOWN]],
        speakers={
            manifest.speakers[i]: {"utterances": int(clips[i]), "hours": float(hours[i])}
            for i in np.argsort(-hours, kind="stable")
        },
        characters=dict(sorted(characters.items(), key=lambda item: -item[1])),
        mel_mean=store.mel_mean.tolist(),
        mel_std=store.mel_std.tolist(),
        tracks={name: values.tolist() for name, values in store.tracks.items()},
        floored_bins=int((store.mel_std <= np.float32(STD_FLOOR)).sum()),
        exclusions=manifest.exclusions,
    )
