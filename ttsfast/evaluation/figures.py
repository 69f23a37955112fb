"""Figures over utterances: means that remember what each utterance brought to them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple


class Term(NamedTuple):
    """What one utterance brings to a figure."""

    value: float
    weight: int
    """What the value counts for: frames, decoder steps, symbols, or 1."""


class Figures(Mapping[str, float]):
    """By name, the weighted mean over utterances; sums are exact, so no order of utterances rounds
    differently.
    """

    def __init__(self) -> None:
        self._terms: dict[str, dict[str, Term]] = {}

    def add(self, name: str, utterance: str, value: float, weight: int = 1) -> None:
        """Count ``value`` of an utterance ``weight`` times; raise ValueError where it has one already."""
        terms = self._terms.setdefault(name, {})
        if utterance in terms:
            raise ValueError(f"utterance {utterance!r} has its {name} already: measure each one once")
        terms[utterance] = Term(value, weight)

    def __getitem__(self, name: str) -> float:
        terms = self._terms[name].values()
        return math.fsum(term.value * term.weight for term in terms) / sum(term.weight for term in terms)

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def terms(self, name: str) -> Mapping[str, Term]:
        """By utterance, what it brought to the figure ``name``; empty for a figure that is not here."""
        return self._terms.get(name, {})

    def of(self, utterance: str) -> dict[str, float]:
        """The figures of one utterance alone."""
        return {name: terms[utterance].value for name, terms in self._terms.items() if utterance in terms}

    def part(self, utterances: Collection[str]) -> Figures:
        """The figures over some of the utterances."""
        part = Figures()
        for name, terms in self._terms.items():
            kept = {utterance: term for utterance, term in terms.items() if utterance in utterances}
            if kept:
                part._terms[name] = kept
        return part

    def named(self, names: Collection[str]) -> Figures:
        """The figures of these names, as far as they are here."""
        named = Figures()
        named._terms = {name: terms for name, terms in self._terms.items() if name in names}
        return named

    def joined(self, other: Figures) -> Figures:
        """These figures and ``other``'s; raise ValueError for a name that both have."""
        if both := self.keys() & other.keys():
            raise ValueError(f"both sides have {', '.join(sorted(both))}")
        joined = Figures()
        joined._terms = {**self._terms, **other._terms}
        return joined
