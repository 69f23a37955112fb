"""What the convergence bench shows: times and claims, and what each change does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ttsfast.benchmarks.convergence import page, pictures
from ttsfast.benchmarks.convergence.ablation import Effect, effects
from ttsfast.benchmarks.convergence.comparison import Middle, comparisons
from ttsfast.benchmarks.convergence.tables import table
from ttsfast.benchmarks.machine import describe
from ttsfast.pages import plots


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


def test_what_was_cut_off_is_drawn_as_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    def effect(change: str, seconds: float, cut: bool) -> Effect:
        return Effect("a", change, {"alignment": (Middle(100, False), Middle(seconds, cut))}, {})

    # One that ended sooner than the recipe came there: it is not sooner.
    found = [effect("x=1", 60, True), effect("x=2", 150, False), effect("x=3", 80, False)]
    without = Effect("a", "x=4", {}, {"mel_l1": (0.4, 0.5)})
    (axes,) = pictures.chart([*found, without], "alignment").axes
    # The last one is at the top.
    assert [text.get_text() for text in axes.get_yticklabels()] == ["x=1", "x=2", "x=3"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0, 50, -20])
    arrows = next(line for line in axes.get_lines() if line.get_marker() == ">")
    assert arrows.get_xydata().tolist() == [[0, 0]]


@pytest.mark.filterwarnings("error")
def test_a_change_of_many_keys_leaves_room_for_its_bar() -> None:
    change = ", ".join(f"a_rather_long_name_{number}=0.002" for number in range(5))
    effects = [Effect("a", name, {}, {"mel_l1": (0.4, 0.5)}) for name in (change, "x=1")]
    figure = pictures.chart(effects, "mel_l1")
    plots.svg(figure)
    (axes,) = figure.axes
    assert axes.get_position().width > 0.3
    assert axes.get_position().y0 < 0.25, "nothing is kept free for arrows where there are none"
    one, other = (text.get_window_extent() for text in axes.get_yticklabels())
    assert not one.overlaps(other)


def test_what_differs_by_factors_is_drawn_on_a_logarithmic_axis() -> None:
    rows = [{"step": n, "seconds": 60.0 * n, "mcd_dtw_sl": 900 / n, "mel_l1": 1 / n} for n in (1, 30)]
    runs = [{"recipe": "a", "ended": "budget", "rows": rows}]
    (steep,), (flat,) = (pictures.curve(runs, name).axes for name in ("mcd_dtw_sl", "mel_l1"))
    assert (steep.get_yscale(), flat.get_yscale()) == ("log", "linear")
    shown = [text.get_text() for text in steep.get_yticklabels()]
    assert shown == ["50", "100", "200", "500", "1000"]
    assert not steep.get_yticks(minor=True).size


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
