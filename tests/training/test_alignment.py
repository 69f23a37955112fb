"""A model that learns its alignment trains as others do: accumulated, resumed, and said in the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from run_state import same_bits, state_of
from tiny_model import TinyModel

from ttsfast.config import Config
from ttsfast.data.loading.batch import collate
from ttsfast.evaluation.log import read_log
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], TinyModel]


def aligning(make_model: MakeModel) -> TinyModel:
    model = make_model()
    model.aligns = True
    model.dropout.p = 0.0
    return model


def weighted(make_config: MakeConfig, folder: Path, **changes: object) -> Config:
    terms = {"training__alignment_loss_weight": 2.0, "training__binarization_loss_weight": 1.0}
    return make_config(training__run_folder=str(folder), **terms, **changes)


def test_they_accumulate_as_one_batch(make_config: MakeConfig, make_model: MakeModel, tmp_path: Path) -> None:
    weights, factors = [], []
    for parts in (1, 3):
        quiet = {"training__optimizer": "adam", "training__eps": 1.0, "training__gradient_clip_norm": 1e6}
        config = weighted(make_config, tmp_path / str(parts), training__mel_smoothing="mean", **quiet)
        with Trainer(config, model=aligning(make_model)) as trainer:
            utterances = [trainer.store[int(i)] for i in trainer.store.indices("train")[:6]]
            size = len(utterances) // parts
            groups = [utterances[i : i + size] for i in range(0, len(utterances), size)]
            for _ in range(3):
                trainer.train_step([collate(group, pad_value=trainer.store.silence) for group in groups])
            weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
            factors.append(trainer.loss.adaptive.factors.clone())
    assert (factors[0][4:] != 1).all()
    torch.testing.assert_close(factors[1], factors[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)


def test_a_resumed_run_is_the_run(make_config: MakeConfig, make_model: MakeModel, tmp_path: Path) -> None:
    ends = []
    for stops in ((4,), (2, 4)):
        for number, stop in enumerate(stops):
            config = weighted(make_config, tmp_path / str(len(stops)), training__val_step=100)
            with Trainer(config, model=aligning(make_model), resume=number > 0) as trainer:
                batches = iter(trainer.loader)
                while trainer.step < stop:
                    trainer.train_step([next(batches)])
                trainer.save()
                end = state_of(trainer)
        ends.append(end)
    assert same_bits(*ends)


def test_the_log_tells_them(make_config: MakeConfig, make_model: MakeModel, tmp_path: Path) -> None:
    config = weighted(make_config, tmp_path / "run", training__max_steps=2, training__val_step=100)
    with Trainer(config, model=aligning(make_model)) as trainer:
        trainer.fit()
        row = next(row for row in read_log(trainer.run_folder) if row.get("kind") == "train")
    assert row["excess_alignment"] > 0
    assert row["excess_binarization"] > 0
    assert row["weight_alignment"] > 0
    assert row["unalignable"] >= 0
