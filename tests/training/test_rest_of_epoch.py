"""Other batches or a grown store in the midst of an epoch: each utterance once in it, or refused at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from ttsfast.config import Config
from ttsfast.data.prepare.append import append
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError
from ttsfast.training.setup import forever
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]


def train(config: Config, make_model: MakeModel, batches: int, *, resume: bool = True) -> list[str]:
    """Take steps, one a batch, leave a checkpoint; the utterances drawn, in order."""
    with Trainer(config, model=make_model(), resume=resume) as trainer:
        drawn: list[str] = []
        stream = forever(trainer.loader)
        for _ in range(batches):
            batch = next(stream)
            drawn += batch.ids
            trainer.train_step([batch])
        trainer.save()
        return drawn


def in_train(store: Path) -> list[str]:
    opened = Store.open(store)
    return sorted(opened.entries.id[i] for i in opened.indices("train"))


def test_another_batch_size_takes_what_is_left_of_the_epoch_once(
    make_config: MakeConfig,
    make_model: MakeModel,
    store_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    everyone = in_train(store_path)
    drawn = train(make_config(), make_model, 2, resume=False)
    left = len(everyone) - len(drawn)
    # Stopped and changed again within what is left.
    drawn += train(make_config(data__batch_size=3), make_model, 1)
    assert (
        f"the {left} utterances that are left of epoch 0 are put into batches anew" in capsys.readouterr().err
    )
    drawn += train(make_config(data__batch_size=3), make_model, 1)
    assert "anew" not in capsys.readouterr().err
    rest = len(everyone) - len(drawn)
    drawn += train(make_config(data__batch_size=1), make_model, rest)
    assert sorted(drawn) == everyone
    # And from there on as a run with that size has it.
    again = train(make_config(data__batch_size=1), make_model, len(everyone))
    assert sorted(again) == everyone


def test_the_same_batches_go_on_where_they_were(make_config: MakeConfig, make_model: MakeModel) -> None:
    """More micro-batches a step, or more ranks with smaller batches, are no other plan."""
    undisturbed = train(make_config(), make_model, 4, resume=False)
    shutil.rmtree(make_config().training.run_folder)
    drawn = train(make_config(), make_model, 2, resume=False)
    drawn += train(make_config(training__gradient_accumulation_steps=2), make_model, 2)
    assert drawn == undisturbed


def test_balanced_speakers_are_refused_before_anything_is_touched(
    make_config: MakeConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    train(make_config(data__speaker_balance=1.0), make_model, 1, resume=False)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=r"stopped after 1 of the \d batches of an epoch.*speaker_balance"):
        Trainer(make_config(data__speaker_balance=1.0, data__batch_size=3), model=make_model(), resume=True)
    (tmp_path / "run" / ".lock").unlink()
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


@pytest.fixture
def growing(tmp_path: Path, store_path: Path) -> Path:
    """A store to append to."""
    return Path(shutil.copytree(store_path, tmp_path / "store"))


def test_a_run_goes_on_with_what_was_appended_to_its_store(
    make_config: MakeConfig,
    make_model: MakeModel,
    growing: Path,
    longer_corpus: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = make_config(data__store=str(growing))
    with Trainer(config, model=make_model()) as trainer:
        stream = forever(trainer.loader)
        first = next(stream)
        trainer.train_step([first])
        trainer.validate()
    before = Store.open(growing).manifest
    append(longer_corpus, growing, jobs=1)
    manifest = Store.open(growing).manifest
    assert [manifest.utterances_at(m.fingerprint) for m in (before, manifest)] == [20, 30]
    assert manifest.utterances_at("0" * 64) is None
    everyone = in_train(growing)
    with Trainer(config, model=make_model(), resume=True) as trainer:
        said = " ".join(capsys.readouterr().err.split())
        assert "10 utterances were appended since step 1" in said
        drawn = list(first.ids)
        drawn += [name for batch in trainer.loader for name in batch.ids]
        held_out = Store.open(growing).entries.split[20:].count("validation")
        # Other utterances to validate on: what was best among the old ones is no measure.
        assert (trainer.early_stopping.best_step == -1) is bool(held_out)
    assert sorted(drawn) == everyone


def test_a_speaker_that_was_appended_wants_another_model(
    make_config: MakeConfig, make_model: MakeModel, growing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(data__store=str(growing))
    train(config, make_model, 1, resume=False)
    opened = Store.open

    def with_ben(*args: Any, **kwargs: Any) -> Store:
        store = opened(*args, **kwargs)
        store.speakers = [*store.speakers, "ben"]
        return store

    monkeypatch.setattr(Store, "open", with_ben)
    with pytest.raises(InputError, match=r"gained the speakers ben, .*begin a new run .* with --from"):
        Trainer(config, model=make_model(), resume=True)
