"""Means that remember their utterances."""

from __future__ import annotations

import json

import pytest

from ttsfast.evaluation.figures import Figures


@pytest.fixture
def figures() -> Figures:
    figures = Figures()
    for utterance, value, weight in (("a", 1.0, 3), ("b", 0.0, 1), ("c", 0.5, 2)):
        figures.add("read", utterance, value, weight)
    figures.add("late", "a", 7.0)
    return figures


def test_it_is_the_means_by_name(figures: Figures) -> None:
    assert figures == {"read": pytest.approx(4 / 6), "late": 7.0}
    assert json.loads(json.dumps(dict(figures)))["late"] == 7.0
    assert figures.get("never") is None


def test_it_remembers_each_utterance(figures: Figures) -> None:
    assert figures.of("a") == {"read": 1.0, "late": 7.0}
    assert figures.of("b") == {"read": 0.0}
    assert figures.terms("read")["c"] == (0.5, 2)
    assert not figures.terms("never")


def test_parts(figures: Figures) -> None:
    assert figures.part({"b", "c"}) == {"read": pytest.approx(1 / 3)}
    assert figures.named(["late", "never"]) == {"late": 7.0}
    assert figures.named(["late"]).joined(figures.named(["read"])) == figures


def test_order_does_not_round() -> None:
    values = [0.1, 1e9, -1e9, 0.2, 0.3] * 7
    forwards, backwards = Figures(), Figures()
    for number, value in enumerate(values):
        forwards.add("x", str(number), value)
    for number, value in reversed(list(enumerate(values))):
        backwards.add("x", str(number), value)
    assert forwards["x"] == backwards["x"]


def test_nothing_is_measured_twice(figures: Figures) -> None:
    with pytest.raises(ValueError, match="'a' has its late already"):
        figures.add("late", "a", 1.0)
    with pytest.raises(ValueError, match="both sides have late, read"):
        figures.joined(figures)
