"""What the convergence bench shows: times and claims, and what each change does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ttsfast.benchmarks.convergence import page
from ttsfast.benchmarks.convergence.ablation import (
    Effect,
    effects,
)
from ttsfast.benchmarks.convergence.comparison import comparisons
from ttsfast.benchmarks.convergence.tables import table
from ttsfast.benchmarks.machine import describe
from ttsfast.devices import Machine

MACHINE = Machine(cores=2, threads=2)
STEPS = 4


def test_effects_are_beside_the_recipes_own(tmp_path: Path) -> None:
    def run(recipe: str, seconds: float, mel: float, cut: bool = False) -> dict[str, Any]:
        at = {"seconds": seconds, "processor_seconds": seconds, "step": seconds}
        time = {"at": at, "cut_off": cut}
        return {
            "recipe": recipe,
            "seed": 0,
            "rows": [{"mel_l1": mel}],
            # One that is not shown.
            "times": {"alignment": time, "words 40%": time},
        }

    def pairs(*of: Effect) -> list[tuple[float, ...]]:
        return [
            tuple(-m.value if m.lower_bound else m.value for m in effect.times["alignment"]) for effect in of
        ]

    runs = [run("a", 10, 0.4), run("a + x=1", 5, 0.5), run("a + x=2", 60, 0.2, cut=True)]
    found = effects(runs)
    assert [(effect.base, effect.change, set(effect.times)) for effect in found] == [
        ("a", "x=1", {"alignment"}),
        ("a", "x=2", {"alignment"}),
    ]
    assert pairs(*found) == [pytest.approx((10, 5)), pytest.approx((10, -60))]
    assert found[0].figures == {"mel_l1": (0.4, 0.5)}
    record = {
        "runs": runs,
        "machine": describe(torch.device("cpu")),
        "corpus": {"name": "a corpus", "minutes": 1.0},
        "minutes": 1,
        "seeds": 1,
        "held_out": {"utterances": ["one"], "split": "validation"},
    }
    assert "x=1              10 → 5       0.400 → 0.500" in table(record)
    assert "x=2            10 → >60       0.400 → 0.200" in table(record)
    html = page.write_page(tmp_path, record).read_text()
    assert "<td>10 → &gt;60</td>" in html
    assert html.count("data:image/svg+xml") == 2, "a chart of times, and one of mel_l1"
    (lost,) = effects([run("a", 10, 0.4, cut=True), run("a + x=1", 5, 0.5)])
    assert pairs(lost) == [pytest.approx((-10, 5))]


def test_claims_stand_in_one_table_and_no_others(tmp_path: Path) -> None:
    def run(recipe: str, seed: int, seconds: float, cut: bool = False) -> dict[str, Any]:
        at = {"seconds": seconds + seed, "processor_seconds": seconds, "step": seconds}
        times = {"alignment": {"at": at, "cut_off": cut}}
        return {"recipe": recipe, "model": {}, "seed": seed, "ended": "budget", "rows": [], "times": times}

    sides = {"slow_one": (300, True), "fast": (100, False), "like_it": (101, False)}
    runs = [run(name, seed, seconds, cut) for name, (seconds, cut) in sides.items() for seed in range(4)]
    html = page._claims(comparisons(runs))
    assert "p at most 0.029" in html
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', html)
    assert rows == [("fast than slow_<wbr>one", "≥ 2.97"), ("like_<wbr>it than slow_<wbr>one", "≥ 2.94")]
    assert "No difference" in page._claims(comparisons(runs[4:]))
    assert page._claims(comparisons(runs[:4])) == ""
