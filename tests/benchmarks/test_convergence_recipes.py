"""The recipes of the convergence bench, and single changes to them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ttsfast.benchmarks.convergence.ablation import ANY, check_optimizers, read_changes, variants
from ttsfast.benchmarks.convergence.recipes import OWN_KEYS, names, read_recipe, read_recipes
from ttsfast.cli import app
from ttsfast.data.store.store import Store
from ttsfast.devices import Machine
from ttsfast.errors import InputError
from ttsfast.models.build import build_model
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.options import Values
from ttsfast.training.configure import store_and_settings

MACHINE = Machine(cores=2, threads=2)
REPOSITORY = Path(__file__).parents[2]


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
    opened, given = store_and_settings([str(store.path), "training.learning_rate=1e-3"], OWN_KEYS)
    assert opened.fingerprint == store.fingerprint
    assert given == {"data": {"store": str(store.path)}, "training": {"learning_rate": 1e-3}}
    with pytest.raises(InputError, match="name the store"):
        store_and_settings([], OWN_KEYS)
    with pytest.raises(InputError, match=r"training\.seed is set here for each run"):
        store_and_settings([str(store.path), "training.seed=3"], OWN_KEYS)


@pytest.mark.parametrize(
    ("name", "own", "others", "has_it"),
    [
        (
            "ttsfast_convtts",
            "prenet_dropout=0.5",
            "binarization_loss_weight=1.0",
            "attention_loss_weight=5.0",
        ),
        ("ttsfast", "binarization_loss_weight=1.0", "attention_loss_weight=1.0", "warmup_steps=30"),
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


def test_own_changes(store: Store, tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match=r"training\.beta2 is set for all runs and is a change, too"):
        variants(read_recipe("ttsfast"), own, store, MACHINE, {**settings, "training": {"beta2": 0.99}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("any: {training.beta2: 0.9}", "changes are lists under `any`"),
        ("- training.beta2: 0.9", "changes are lists under `any`"),
        ("any: [training.beta2]", r"any: 'training\.beta2' is no change; write \{training"),
        ("any: [{training.beta3: 0.9}]", "did you mean beta"),
        ("any: [{beta2: 0.9}]", "beta2"),
        ("paraleltts: [{training.beta2: 0.9}]", "no model 'paraleltts'; did you mean paralleltts"),
        ("any: [{training.seed: 3}]", "training.seed is set here for each run"),
        ("any: [{training.early_stopping: true}]", "training.early_stopping is set here for each run"),
        ("any: [{training.beta2: 0.9}, {training.beta2: 0.90}]", "beta2=0.9 stands twice"),
    ],
)
def test_changes_that_are_none(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "changes.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"changes.yaml.*{said}"):
        read_changes(path)
    with pytest.raises(InputError, match=r"none\.yaml: not readable"):
        read_changes(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *((name, name) for name in ("fast_convergence", "ttsfast", "ttsfast_convtts")),
        ("largest", "ttsfast"),
        ("models", "ttsfast"),
        ("models", "ttsfast_convtts"),
    ],
)
def test_the_changes_of_the_repository_fit_their_recipes(
    file: str, name: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its models are found from its own folder.
    monkeypatch.chdir(REPOSITORY)
    settings: Values = {"data": {"store": str(store.path)}}
    tried = read_changes(REPOSITORY / "bench" / "changes" / f"{file}.yaml")
    base = read_recipe(name)
    made = variants(base, tried, store, MACHINE, settings)
    architecture = base.config(store, MACHINE, settings).model.architecture
    assert len(made) == 1 + sum(len(tried.get(key, {})) for key in (ANY, architecture))
    voice = VoiceInfo.of_store(store)
    for recipe in made:
        build_model(recipe.config(store, MACHINE, settings).model, voice)


def test_an_optimizer_that_is_not_there_is_missed_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    plain = read_recipe("ttsfast")
    check_optimizers([plain])
    with pytest.raises(InputError, match="--ablation tries Muon"):
        check_optimizers([plain, plain.changed("x", {"training": {"optimizer": "muon"}})])


def test_changes_are_of_an_ablation_and_there_must_be_one(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "changes.yaml"
    path.write_text("convtts: [{training.warmup_steps: 7}]\n")
    command = ["bench", "convergence", str(store.path), "--recipes", "ttsfast", "--changes", str(path)]
    for more, said in (([], "--changes is of --ablation"), (["--ablation"], "no change fits ttsfast")):
        result = CliRunner().invoke(app, [*command, *more])
        assert isinstance(result.exception, InputError)
        assert said in str(result.exception)


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
