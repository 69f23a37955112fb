"""What a person types, and what configuration it makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from ttsfast.config import Config, load_config
from ttsfast.devices import Machine
from ttsfast.errors import InputError
from ttsfast.training import configure as module
from ttsfast.training.configure import RUN_CONFIG, configure, write_run_config
from ttsfast.training.telemetry import messages, pace
from ttsfast.training.telemetry.log import Telemetry
from ttsfast.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    on(monkeypatch, Machine(cores=2, threads=2))


def on(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(module, "this_machine", lambda device: machine)


def test_a_store_is_all_it_takes(store_path: Path) -> None:
    found = configure([str(store_path)])
    assert found.config.data.store == str(store_path)
    assert found.config.training.run_folder == f"runs/{store_path.name}"
    assert found.config.model.size == "nano"
    assert any("model.size=nano: there is no GPU" in line for line in found.said)
    assert configure([f"data.store={store_path}"]) == found


def test_the_run_folder_is_named_after_an_address() -> None:
    assert module._run_folder({"data": {"store": "s3://bucket/voices/ann/"}}) == Path("runs/ann")


def test_a_partial_file_inherits_from_auto_unless_it_names_another_preset(store_path: Path) -> None:
    Path("part.yaml").write_text("training:\n  max_steps: 500\n", encoding="utf-8")
    found = configure(["training.seed=3", "part.yaml", str(store_path)]).config
    assert found.training.max_steps == 500
    assert found.training.restart_period == 470
    assert found.training.seed == 3
    assert found.model.size == "nano"
    Path("part.yaml").write_text("preset: fast_convergence\ntraining:\n  max_steps: 500\n", encoding="utf-8")
    found = configure(["part.yaml", str(store_path)]).config
    assert found == load_config(overrides=["training.max_steps=500", f"data.store={store_path}"])
    assert configure(["part.yaml", str(store_path)], "auto").config.model.size == "nano"


def test_resuming_takes_what_was_chosen_on_another_machine(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = configure([str(store_path), "training.seed=4"]).config
    Path(begun.training.run_folder).mkdir(parents=True)
    write_run_config(begun, Path(begun.training.run_folder))
    on(monkeypatch, Machine(cores=64, threads=64, gpu="H200", half="bf16"))
    assert configure([str(store_path)], resume=True).config == begun
    longer = configure([str(store_path), "training.max_steps=7"], resume=True).config
    assert longer.training.max_steps == 7
    assert longer.training.restart_period == begun.training.restart_period
    assert configure([str(store_path)]).config.training.amp_dtype == "bf16"
    # Without its store, and where the folder was moved to.
    Path(begun.training.run_folder).rename("moved")
    moved = configure(["training.run_folder=moved"], resume=True).config
    assert moved.training.run_folder == "moved"
    assert moved.data == begun.data


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "chooses for a store, and none is given"),
        (["nothing"], "nothing: there is no such store.*no such YAML file"),
        (["no.yaml"], r"no\.yaml: there is no such store.*no such YAML file"),
        (["a" * 300], "there is no such store"),
        (["training.seed"], r"to set a key write training\.seed=VALUE"),
        (["seed=1"], r"seed=1: write section\.key=value, the section one of model, training, data"),
        (["training.sed=1"], "training.sed; did you mean seed"),
        (["."], r"\.: no manifest\.json there"),
        (["corpus"], "corpus: is a corpus, and no store yet; first `ttsfast prepare corpus STORE`"),
        (["run"], r"run: is a run.*`ttsfast train training\.run_folder=run --resume`"),
        (["a.yaml", "b.yaml"], "two YAML files, a.yaml and b.yaml"),
        (["STORE", "STORE"], "two stores"),
        (["STORE", "data.store=x"], "two stores"),
        (["text.txt"], r"text\.txt: expected the sections"),
    ],
)
def test_anything_else_is_one_clear_line(arguments: list[str], says: str, store_path: Path) -> None:
    for file in ("a.yaml", "b.yaml"):
        Path(file).write_text("", encoding="utf-8")
    Path("text.txt").write_text("words", encoding="utf-8")
    Path("run/checkpoints").mkdir(parents=True)
    Path("corpus").mkdir()
    Path("corpus/metadata.csv").write_text("", encoding="utf-8")
    given = [str(store_path) if argument == "STORE" else argument for argument in arguments]
    with pytest.raises(InputError, match=says) as caught:
        configure(given)
    assert "\n" not in str(caught.value)


def test_a_run_keeps_what_it_was_started_with_and_says_at_the_tenth_step_how_long_it_takes(
    make_config: Callable[..., Config],
    make_model: Callable[[], nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Telemetry, "say", lambda _, message: said.append(message))
    # A second passes from any look at the clock to the next, so in a step and between two.
    times = itertools.count()
    monkeypatch.setattr(pace, "perf_counter", lambda: next(times))
    monkeypatch.setattr(
        Trainer, "validate", lambda self: setattr(self.early_stopping, "last_step", self.step)
    )
    config = make_config(training__max_steps=11, training__save_step=100)
    # No validation is a best one here, so the last weights are those to use.
    with Trainer(config, model=make_model()) as trainer:
        trainer.fit()
    assert [line for line in said if line.startswith("step 10: ")] == [
        "step 10: 1 s a step, so the 1 left take about 1 s, validations not counted"
    ]
    assert load_config(tmp_path / "run" / RUN_CONFIG) == config


def test_more_than_a_day_is_said_with_what_would_help(make_config: Callable[..., Config]) -> None:
    import torch

    config = make_config(training__max_steps=100_000, model__size="base")
    line = messages.pace(10, 50.0, config, torch.device("cpu"))
    assert "take about 57 days" in line
    assert "MORE THAN A DAY; what would help: a GPU; a smaller model.size, such as nano; fewer steps" in line
    assert "training.max_steps=1738" in line
    assert "\n" not in line
    assert "DAY" not in messages.pace(10, 0.8, config, torch.device("cpu"))
    small = make_config(training__max_steps=100_000, model__size="nano")
    assert "a smaller model" not in messages.pace(10, 50.0, small, torch.device("cuda"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(20, "20 s"), (90, "2 min"), (3600, "1 h 0 min"), (40 * 3600, "40 h 0 min"), (49 * 3600, "2 days")],
)
def test_a_duration_is_in_the_units_that_matter(seconds: float, words: str) -> None:
    assert messages.duration(seconds) == words
