"""The convergence bench from end to end: two recipes, a few steps, killed and gone on with."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ttsfast import devices
from ttsfast.benchmarks.convergence import bench, figures, page, runs
from ttsfast.benchmarks.convergence.bench import Plan, measure
from ttsfast.benchmarks.convergence.comparison import comparisons
from ttsfast.benchmarks.convergence.loops import Loop
from ttsfast.benchmarks.convergence.recipes import read_recipes
from ttsfast.benchmarks.convergence.samples import moments
from ttsfast.benchmarks.convergence.tables import table
from ttsfast.data.store.store import Store
from ttsfast.devices import Machine
from ttsfast.errors import InputError, TrainingError
from ttsfast.evaluation.speech_recognition import Heard
from ttsfast.options import Values, overlaid

MACHINE = Machine(cores=2, threads=2)
STEPS = 4


@pytest.fixture(autouse=True)
def _snapshots_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "FIRST", 2)


def settings_of(store: Store, **training: Any) -> Values:
    training = {"max_steps": STEPS, "warmup_steps": 1, "preflight": False, **training}
    return {
        "model": {"architecture": "tiny_model:tiny"},
        "training": training,
        "data": {"store": str(store.path), "batch_size": 4, "frame_budget": 0, "num_workers": 1},
    }


def plan_of(store: Store, folder: Path, *recipes: str, **changes: Any) -> Plan:
    values: dict[str, Any] = {"seeds": 1, "minutes": 60.0, "settings": settings_of(store), "utterances": 2}
    return Plan(store, folder, read_recipes(recipes), **{**values, **changes})


class Killed(Exception):
    """What a signal does."""


def dying_at(step: int, error: type[Exception], open_loop: Callable[..., Loop]) -> Callable[..., Loop]:
    """Loops that end so, on the way to that step."""

    def opened(*arguments: Any) -> Loop:
        loop = open_loop(*arguments)
        take = loop.take_step

        def take_step() -> None:
            if loop.step == step - 1:
                raise error("now")
            take()

        loop.take_step = take_step  # type: ignore[method-assign]
        return loop

    return opened


def without_times(record: dict[str, Any]) -> list[Any]:
    """What two runs of the same steps must have in common."""
    return [
        (
            run["recipe"],
            run["seed"],
            run["ended"],
            [{key: value for key, value in row.items() if "seconds" not in key} for row in run["rows"]],
            {goal: (time["at"]["step"], time["cut_off"]) for goal, time in run["times"].items()},
        )
        for run in record["runs"]
    ]


def test_two_recipes_end_to_end_and_killed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    whole = measure(plan_of(store, tmp_path / "whole", "strong", "ttsfast"), progress=lines.append)
    assert [run["recipe"] for run in whole["runs"]] == ["strong", "ttsfast"]
    for run in whole["runs"]:
        assert [row["step"] for row in run["rows"]] == [0, 2, 3, 4]
        assert run["ended"] == "max_steps"
        assert run["times"]["alignment"]["cut_off"]
        spent = [row["processor_seconds"] for row in run["rows"]]
        assert spent[0] == 0.0
        assert spent == sorted(set(spent))
        assert {"mel_l1", "diagonal_mass", "coverage", "mcd_dtw", "duration_error"} <= set(run["rows"][0])
        assert run["rows"][-1]["mel_l1"] < run["rows"][0]["mel_l1"]
    strong, ttsfast = (run["rows"][0] for run in whole["runs"])
    assert strong["mel_l1"] == ttsfast["mel_l1"], "both begin with the same weights"
    assert any("ttsfast, seed 0 (run 2 of 2): step 2," in line for line in lines)

    killed = plan_of(store, tmp_path / "killed", "strong", "ttsfast")
    open_loop = runs.open_loop
    for step in (4, 1):
        with monkeypatch.context() as patch:
            patch.setattr(runs, "open_loop", dying_at(step, Killed, open_loop))
            with pytest.raises(Killed):
                measure(killed, progress=lines.append)
        if step == 4:
            assert not (killed.folder / bench.RECORD).exists()
            # The first recipe goes on at step 3, and is not killed again: the second one is, at its first.
            assert json.loads((killed.folder / "strong/seed-0/run.json").read_text())["ended"] is None
    measured: list[str] = []
    record = measure(killed, progress=measured.append)
    assert without_times(record) == without_times(whole)
    assert not any("strong" in line for line in measured), "what is there is not made again"

    written = json.loads((killed.folder / bench.RECORD).read_text())
    assert written["comparisons"] == record["comparisons"]
    shown = table(written)
    assert "ttsfast" in shown
    assert re.search(r"strong +>\d", shown), "cut off"
    monkeypatch.setattr(page, "CURVES", ("mel_l1",))
    html = page.write_page(tmp_path, written).read_text()
    assert "data:image/svg+xml" in html
    assert "No difference that chance" in html
    assert written["samples"] == record["samples"]
    for name, spoken in written["samples"]["recipes"].items():
        (end,) = spoken["moments"]
        assert (end["name"], end["step"]) == ("0.0 min, the end", STEPS)
        wave, rate = soundfile.read(killed.folder / end["sound"])
        assert (wave.ndim, rate) == (1, store.contract.sample_rate)
        assert (killed.folder / spoken["strip"][0]).read_bytes().startswith(b"<?xml")
        assert f'src="convergence_files/{name}/step-{STEPS:06d}.wav"' in html
    alone = {**written, "runs": written["runs"][:1], "comparisons": comparisons(written["runs"][:1])}
    assert "No difference" not in page.write_page(tmp_path, alone).read_text()

    with pytest.raises(InputError, match=r"training\.max_steps=4, where this one has 6"):
        measure(
            plan_of(store, killed.folder, "strong", settings=settings_of(store, max_steps=6)),
            progress=lines.append,
        )


def test_a_run_that_diverges_is_reported_and_the_next_one_trained(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "open_loop", dying_at(3, TrainingError, runs.open_loop))
    monkeypatch.setattr(figures, "measure", lambda *_, **__: {"mel_l1": 1.0, "diagonal_mass": 0.3})
    record = measure(plan_of(store, tmp_path, "strong", seeds=2), progress=lambda _: None)
    assert [run["ended"] for run in record["runs"]] == ["diverged", "diverged"]
    assert [row["step"] for row in record["runs"][0]["rows"]] == [0, 2]
    assert record["runs"][0]["reason"] == "now"
    (alignment,) = record["runs"][0]["times"].values()
    assert alignment["cut_off"]


def test_a_budget_ends_a_run_and_a_larger_one_goes_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "measure", lambda *_, **__: {"mel_l1": 1.0})
    short = plan_of(store, tmp_path, "strong", minutes=1e-6)
    record = measure(short, train_only=True, progress=lambda _: None)
    assert record["runs"] == []
    (run,) = measure(short, progress=lambda _: None)["runs"]
    assert (run["ended"], [row["step"] for row in run["rows"]]) == ("budget", [0, 1])
    (run,) = measure(plan_of(store, tmp_path, "strong"), progress=lambda _: None)["runs"]
    assert (run["ended"], [row["step"] for row in run["rows"]]) == ("max_steps", [0, 1, 2, 3, 4])


def test_a_run_that_began_in_another_precision_is_not_gone_on_with(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "measure", lambda *_, **__: {"mel_l1": 1.0})
    half = {"data": {"mixed_precision": True}}
    plan = plan_of(store, tmp_path, "ttsfast", minutes=1e-6, settings=overlaid(settings_of(store), half))
    (run,) = measure(plan, progress=lambda _: None)["runs"]
    assert run["precision"] == "float32"
    monkeypatch.setattr(devices, "multiplies_in_bf16", lambda: True)
    with pytest.raises(InputError, match="it began in float32, and this machine trains it in bfloat16"):
        measure(dataclasses.replace(plan, minutes=60.0), progress=lambda _: None)
    shutil.rmtree(tmp_path / "ttsfast")
    (run,) = measure(plan, progress=lambda _: None)["runs"]
    assert run["precision"] == "bfloat16", "and it trains so"


def test_a_run_that_began_on_another_machine_is_not_gone_on_with(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "measure", lambda *_, **__: {"mel_l1": 1.0})
    described, processor = runs.describe, "Slow"
    monkeypatch.setattr(runs, "describe", lambda device: {**described(device), "processor": processor})
    begun = plan_of(store, tmp_path, "strong", minutes=1e-6)
    measure(begun, progress=lambda _: None)
    before, processor = (tmp_path / "strong" / "seed-0" / "run.json").read_bytes(), "Fast"
    longer = dataclasses.replace(begun, minutes=60.0)
    with pytest.raises(InputError, match="with processor Slow, and this is processor Fast: go on"):
        measure(longer, progress=lambda _: None)
    assert (tmp_path / "strong" / "seed-0" / "run.json").read_bytes() == before, "nothing is lost"
    # Nor is another trained beside it; what is there may be measured on any machine.
    with pytest.raises(InputError, match="strong/seed-0: was trained with processor Slow"):
        measure(dataclasses.replace(begun, seeds=2), progress=lambda _: None)
    measure(begun, progress=lambda _: None)
    processor = "Slow"
    (run,) = measure(longer, progress=lambda _: None)["runs"]
    assert run["ended"] == "max_steps"


def test_a_run_is_heard_at_the_moments_that_it_came_to(tmp_path: Path) -> None:
    def moments_of(*seconds: float) -> list[tuple[str, int]]:
        snapshots = [{"step": i, "seconds": at, "processor_seconds": at} for i, at in enumerate(seconds)]
        return moments(runs.Run(tmp_path, {"snapshots": snapshots}))

    assert moments_of(0, 50, 61, 130, 299) == [("1.0 min", 2), ("2.2 min", 3), ("5.0 min, the end", 4)]
    # A run that its budget ended went on a little longer; one snapshot is not heard twice.
    assert moments_of(0, 100, 300.1) == [("1.7 min", 1), ("5.0 min, the end", 2)]
    assert moments_of(0, 2400.5) == [("40.0 min, the end", 1)]
    assert moments_of(0) == [("0.0 min, the end", 0)]


def test_words_are_heard_of_few_snapshots(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    errors = {0: 1.0, 2: 0.5, 3: 0.25, 4: 0.12}

    def measured(model: Any, config: Any, held_out: Any, *, heard: bool) -> dict[str, float]:
        asked.append(len(asked))
        return {"mel_l1": 1.0}

    asked: list[int] = []
    plan = plan_of(store, tmp_path, "strong")
    measure(plan, train_only=True, progress=lambda _: None)
    ((_, config, run),) = plan.runs()

    def hear(self: figures.Measured, step: int) -> float:
        heard.append(step)
        self.rows()[step]["word_error"] = errors[step]
        return errors[step]

    monkeypatch.setattr(figures, "measure", measured)
    monkeypatch.setattr(figures.Measured, "word_error", hear)
    held_out = figures.HeldOut.of(store, 2)
    rows = figures.measure_run(run, config, held_out, (0.3, 0.4), lambda _: None)
    assert {step: row.get("word_error") for step, row in rows.items()} == {0: None, 2: 0.5, 3: 0.25, 4: 0.12}
    assert 0 not in heard
    assert len(asked) == 4, "the other figures are of every snapshot"


def test_of_single_changes_the_goals_are_heard_that_are_shown(store: Store, tmp_path: Path) -> None:
    whole, single = (plan_of(store, tmp_path, "ttsfast") for _ in range(2))
    single = dataclasses.replace(
        single, recipes=[*whole.recipes, whole.recipes[0].changed("ttsfast + x=1", {})]
    )
    assert len(whole.word_goals(0.05)) == 8
    assert single.word_goals(0.05) == {"words 20%": 0.20, "copies + 15": pytest.approx(0.20)}


def test_a_recogniser_that_is_caught_in_a_loop_does_not_decide_over_all_utterances(store: Store) -> None:
    class Caught:
        def compare(self, wave: np.ndarray, sample_rate: int, reference: str) -> Heard:
            # Once a hundred words where there are four, once one wrong of four.
            return Heard("", word_errors=96 if wave[0] else 1, words=4, character_errors=0, characters=7)

    held_out = figures.HeldOut.of(store, 2)
    names = [store.entries[i].id for i in held_out.indices]
    held_out = dataclasses.replace(
        held_out,
        recogniser=Caught(),  # type: ignore[arg-type]
        references=dict.fromkeys(names, "a b c d"),
    )
    waves = zip([*names, "wordless"], [np.ones(1), np.zeros(1), np.ones(1)], strict=True)
    assert held_out.word_error(iter(waves)) == (4 + 1) / 8
