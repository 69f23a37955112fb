"""A step by itself: how far it is to the loss, what it needs, and what ends it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from clamped_loss import clamping
from torch import nn

from ttsfast.config import Config
from ttsfast.errors import TrainingError
from ttsfast.evaluation.log import LOG_NAME
from ttsfast.losses.module import TTSLoss
from ttsfast.losses.output import LossOutput
from ttsfast.models.checkpoint import checkpoints
from ttsfast.training.setup import forever
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]


def batches(trainer: Trainer, count: int = 1) -> list[Any]:
    return list(islice(forever(trainer.loader), count))


def test_from_a_step_to_the_loss_are_three_calls(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``train_step``, the forward and backward passes, the objective; torch's own frames apart."""
    seen: list[list[str]] = []
    original = TTSLoss.forward

    def forward(loss: TTSLoss, *args: Any, **kwargs: Any) -> LossOutput:
        frame, names = sys._getframe(1), []
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith("ttsfast."):
                names.append(
                    frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name
                )
            frame = frame.f_back  # type: ignore[assignment]
        seen.append(names)
        return original(loss, *args, **kwargs)

    monkeypatch.setattr(TTSLoss, "forward", forward)
    with Trainer(make_config(), model=make_model()) as trainer:
        trainer.train_step(batches(trainer))
    (names,) = seen
    assert [name.rpartition(".")[2] for name in names] == ["forward", "__call__", "train_step"]


def test_steps_validations_and_checkpoints_need_no_fit(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        for _ in range(3):
            assert trainer.train_step(batches(trainer))
        trainer.log()
        metrics = trainer.validate()
        assert metrics["mcd_dtw_sl"] == trainer.early_stopping.best
        trainer.train_step(batches(trainer))
        trainer.save()
        assert [path.name for path in checkpoints(trainer.run_folder)] == ["step-00000003", "step-00000004"]
        # What is recorded beside checkpoints belongs to `fit`.
        assert not (trainer.run_folder / LOG_NAME).exists()
    with Trainer(make_config(), model=make_model(), resume=True) as again:
        assert again.step == 4
        assert again.early_stopping.best == metrics["mcd_dtw_sl"]
        assert again.fit().step == 6
        assert again.validate()["mel_l1"] > 0


def test_validating_and_saving_are_what_a_new_trainer_can_do(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        trainer.save()
        (path,) = checkpoints(trainer.run_folder)
    assert path.name == "step-00000000-unvalidated"
    with Trainer(make_config(), model=make_model(), resume=True) as trainer:
        assert trainer.validate()["mel_l1"] > 0


def test_lengths_that_were_clamped_end_the_run_at_the_log_point(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(training__gradient_accumulation_steps=2, training__log_step=4, training__val_step=9)
    taken: list[tuple[str, ...]] = []
    with Trainer(config, model=make_model()) as trainer:
        monkeypatch.setattr(trainer.loss, "forward", clamping(trainer.loss, at_call=6, count=2))
        original = trainer.train_step

        def train_step(micro_batches: list[Any], **rest: Any) -> bool:
            taken.append(tuple(name for batch in micro_batches for name in batch.ids))
            return original(micro_batches, **rest)

        monkeypatch.setattr(trainer, "train_step", train_step)
        with pytest.raises(
            TrainingError, match="step 3: 2 lengths lie outside their tensors, which a GPU clamps"
        ) as caught:
            trainer.fit()
    # Read with everything else of a checkpoint or log point: no step waited for it.
    assert len(taken) == 4
    assert ", ".join(taken[2][:8]) in str(caught.value)
    assert "\n" not in str(caught.value)
    kept = checkpoints(Path(config.training.run_folder))
    assert [path.name for path in kept] == ["step-00000002"]


def test_nothing_clamped_is_no_fault(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Trainer(make_config(), model=make_model()) as trainer:
        monkeypatch.setattr(trainer.loss, "forward", clamping(trainer.loss, at_call=0, count=2))
        assert trainer.fit().step == 6
