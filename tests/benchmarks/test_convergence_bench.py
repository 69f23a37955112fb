"""The convergence bench from end to end: two recipes, a few steps, killed and gone on with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from ttsfast.benchmarks.convergence import bench, figures, page, runs
from ttsfast.benchmarks.convergence.ablation import (
    ANY,
    Effect,
    check_optimizers,
    effects,
    read_changes,
    variants,
)
from ttsfast.benchmarks.convergence.bench import Plan, measure
from ttsfast.benchmarks.convergence.comparison import comparisons
from ttsfast.benchmarks.convergence.loops import Loop
from ttsfast.benchmarks.convergence.recipes import names, read_recipe, read_recipes
from ttsfast.benchmarks.convergence.samples import moments
from ttsfast.benchmarks.convergence.tables import table
from ttsfast.benchmarks.data_corpus import write_corpus
from ttsfast.benchmarks.machine import describe
from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.data.store.store import Store
from ttsfast.devices import Machine
from ttsfast.errors import InputError, TrainingError
from ttsfast.evaluation.speech_recognition import Heard
from ttsfast.models.build import build_model
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.options import Values
from ttsfast.training.configure import store_and_settings

MACHINE = Machine(cores=2, threads=2)
STEPS = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("convergence")
    write_corpus(folder / "corpus", np.linspace(0.25, 0.6, 12))
    prepare(folder / "corpus", folder / "store", PrepareOptions(jobs=1, validation_fraction=0.2))
    return Store.open(folder / "store")


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
    assert "1/1 cut" in shown
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


def test_a_run_is_heard_at_the_moments_that_it_came_to(tmp_path: Path) -> None:
    def moments_of(*seconds: float) -> list[tuple[str, int]]:
        snapshots = [{"step": i, "seconds": at, "processor_seconds": at} for i, at in enumerate(seconds)]
        return moments(runs.Run(tmp_path, {"snapshots": snapshots}))

    assert moments_of(0, 50, 61, 130, 299) == [("1.0 min", 2), ("2.2 min", 3), ("5.0 min, the end", 4)]
    # A run that its budget ended went on a little longer; one snapshot is not heard twice.
    assert moments_of(0, 100, 300.1) == [("1.7 min", 1), ("5.0 min, the end", 2)]
    assert moments_of(0, 2400.5) == [("40.0 min, the end", 1)]
    assert moments_of(0) == [("0.0 min, the end", 0)]


def test_the_packages_recipes_are_what_they_say(store: Store) -> None:
    data: Values = {"data": {"store": str(store.path)}}
    assert names() == ["fast_convergence", "replaced", "strong", "ttsfast", "ttsfast_convtts"]
    made = {name: read_recipe(name).config(store, MACHINE, data) for name in names()}
    assert made["ttsfast"].model.architecture == "paralleltts"
    attentive = [config.model for name, config in made.items() if name != "ttsfast"]
    assert set(attentive) == {made["strong"].model}, "what is compared by alignment is one model"
    replaced, seed = made["replaced"].training, made["fast_convergence"].training
    assert (replaced.mel_loss_weight, replaced.use_huber_loss, replaced.scheduler) == (35.0, False, "noam")
    assert (replaced.learning_rate, replaced.warmup_steps, replaced.attention_loss_weight) == (1e-4, 4000, 0)
    assert (seed.mel_loss_weight, seed.learning_rate, made["fast_convergence"].data.batch_size) == (
        22,
        8e-5,
        48,
    )
    assert (made["strong"].training.learning_rate, made["strong"].training.attention_loss_weight) == (1e-3, 1)
    assert made["ttsfast"].training.learning_rate == 2e-3
    assert not read_recipe("replaced").bucketing


def test_a_plain_loop_refuses_what_it_cannot_follow(store: Store, tmp_path: Path) -> None:
    strong, data = read_recipe("strong"), {"store": str(store.path)}
    with pytest.raises(InputError, match=r"recipe strong: training\.ema_decay=0\.9"):
        strong.config(store, MACHINE, {"data": data, "training": {"ema_decay": 0.9}})
    with pytest.raises(InputError, match="no recipe 'stron'; did you mean strong"):
        read_recipe("stron")
    path = tmp_path / "own.yaml"
    path.write_text("loop: trainer\ntraining: {learnin_rate: 1.0}\n")
    with pytest.raises(InputError, match=r"own\.yaml.*did you mean learning_rate"):
        read_recipe(str(path))
    with pytest.raises(InputError, match="two recipes are called strong"):
        read_recipes(["strong", "strong"])


def test_the_store_is_named_and_what_each_run_has_of_its_own_is_not_set(store: Store) -> None:
    opened, given = store_and_settings([str(store.path), "training.learning_rate=1e-3"], bench.OWN_KEYS)
    assert opened.fingerprint == store.fingerprint
    assert given == {"data": {"store": str(store.path)}, "training": {"learning_rate": 1e-3}}
    with pytest.raises(InputError, match="name the store"):
        store_and_settings([], bench.OWN_KEYS)
    with pytest.raises(InputError, match=r"training\.seed is set here for each run"):
        store_and_settings([str(store.path), "training.seed=3"], bench.OWN_KEYS)


@pytest.mark.parametrize(
    ("name", "own", "others", "has_it"),
    [
        (
            "ttsfast_convtts",
            "prenet_dropout=0.5",
            "binarization_loss_weight=1.0",
            "attention_loss_weight=1.0",
        ),
        ("ttsfast", "binarization_loss_weight=1.0", "attention_loss_weight=1.0", "frame_budget=6000"),
    ],
)
def test_an_ablation_changes_one_thing_at_a_time(
    store: Store, name: str, own: str, others: str, has_it: str
) -> None:
    settings: Values = {"data": {"store": str(store.path)}}
    base = read_recipe(name)
    made = variants(base, read_changes(), store, MACHINE, settings)
    configs = [recipe.config(store, MACHINE, settings) for recipe in made]
    assert configs[0] == base.config(store, MACHINE, settings)
    assert all(config != configs[0] for config in configs[1:])
    assert len(made) > 30
    by_name = {recipe.name: config for recipe, config in zip(made, configs, strict=True)}
    hot = by_name[f"{name} + learning_rate=0.004"]
    differing = [
        key
        for section, values in configs[0].to_dict().items()
        for key, value in values.items()
        if hot.to_dict()[section][key] != value
    ]
    assert differing == ["learning_rate"]
    assert f"{name} + {own}" in by_name
    assert f"{name} + {others}" not in by_name, "its model has nothing that this weighs"
    assert f"{name} + {has_it}" not in by_name, "it has that already"
    voice = VoiceInfo.of_store(store)
    for config in configs:
        build_model(config.model, voice)


def test_a_prior_may_be_taken_away(store: Store) -> None:
    config = read_recipe("ttsfast").config(store, MACHINE, {"data": {"store": str(store.path)}}).model
    voice = VoiceInfo.of_store(store)
    with_it, without = (
        build_model(dataclasses.replace(config, architecture=name), voice)
        for name in ("paralleltts", "ttsfast.benchmarks.convergence.flat_prior:model")
    )
    without.load_state_dict(with_it.state_dict())
    text, mel = torch.randint(1, 5, (2, 6)), torch.randn(2, 60, store.contract.n_mels)
    given = (text, torch.tensor([6, 4]), mel, torch.tensor([60, 40]))
    ours, flat = with_it.eval()(*given), without.eval()(*given)
    assert torch.equal(ours.alignment_log_probs, flat.alignment_log_probs)
    assert ours.alignment_prior.shape == flat.alignment_prior.shape
    assert flat.alignment_prior.abs().max() == 0 < ours.alignment_prior.abs().max()
    assert not torch.equal(ours.alignment_path, flat.alignment_path)


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


def test_own_changes_and_those_that_are_none(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "changes.yaml"
    path.write_text(
        "any: [{training.warmup_steps: 7, training.beta2: 0.9}]\nconvtts: [{training.optimizer: muon}]\n"
    )
    own = read_changes(path)
    assert own == {
        ANY: {"warmup_steps=7, beta2=0.9": {"training": {"warmup_steps": 7, "beta2": 0.9}}},
        "convtts": {"optimizer=muon": {"training": {"optimizer": "muon"}}},
    }
    settings: Values = {"data": {"store": str(store.path)}}
    made = variants(read_recipe("ttsfast"), own, store, MACHINE, settings)
    assert [recipe.name for recipe in made] == ["ttsfast", "ttsfast + warmup_steps=7, beta2=0.9"]
    for text, said in (
        ("any: {training.beta2: 0.9}", "changes are lists under `any`"),
        ("- training.beta2: 0.9", "changes are lists under `any`"),
        ("any: [training.beta2]", r"any: 'training.beta2' is no change; write \{training"),
        ("any: [{training.beta3: 0.9}]", "did you mean beta"),
        ("any: [{beta2: 0.9}]", "beta2"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=f"changes.yaml.*{said}"):
            read_changes(path)
    with pytest.raises(InputError, match=r"none\.yaml: not readable"):
        read_changes(tmp_path / "none.yaml")


def test_an_optimizer_that_is_not_there_is_missed_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(InputError, match="--ablation tries Muon"):
        check_optimizers({"any": {"optimizer=muon": {"training": {"optimizer": "muon"}}}})
    check_optimizers({"any": {"beta2=0.9": {"training": {"beta2": 0.9}}}})


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
