from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from run_state import state_of
from torch import Tensor

from ttsfast.config import Config
from ttsfast.errors import TrainingError
from ttsfast.evaluation.log import read_log
from ttsfast.training.precision import LossScaler
from ttsfast.training.telemetry.log import Telemetry
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], torch.nn.Module]
CPU = torch.device("cpu")


def unequal(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    return [name for name in a | b if name not in a or name not in b or not torch.equal(a[name], b[name])]


def poison_gradient(model: torch.nn.Module, value: float, calls: set[int]) -> None:
    """Put ``value`` into one gradient at the backward passes numbered in ``calls``."""
    count = 0

    def poison(gradient: Tensor) -> Tensor:
        nonlocal count
        count += 1
        if count not in calls:
            return gradient
        gradient = gradient.clone()
        gradient.view(-1)[3] = value
        return gradient

    model.write.weight.register_hook(poison)  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_an_overflow_leaves_everything_but_the_scale_and_the_run_goes_on(
    value: float, make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Telemetry, "say", lambda _, message: said.append(message))
    config = make_config(
        training__amp_dtype="fp16", training__ema_decay=0.9, training__gradient_accumulation_steps=2
    )
    model = make_model()
    # The second micro-batch of the third step: the first one's gradients are there already.
    poison_gradient(model, value, {6})
    steps: list[tuple[bool, list[str]]] = []
    with Trainer(config, model=model) as trainer:
        original = trainer.train_step

        def watched(batches: Any, **rest: Any) -> bool:
            before, step = state_of(trainer), trainer.step
            taken = original(batches, **rest)
            assert trainer.step == step + taken
            # The noise of a loss that was computed is used up.
            moved = set(unequal(before, state_of(trainer))) - {"loss noise_step"}
            steps.append((taken, sorted(moved)))
            return taken

        monkeypatch.setattr(trainer, "train_step", watched)
        result = trainer.fit()
    assert [taken for taken, _ in steps] == [True, True, False, True, True, True, True]
    assert steps[2][1] == []
    for _, moved in (steps[1], steps[3]):
        assert {"model write.weight", "average average.write.weight", "spike_guard sum"} <= set(moved)
        assert any(name.startswith("loss adaptive") for name in moved)
    assert result.step == 6
    assert trainer.scaler.state_dict() == {"scale": 2.0**15, "good_steps": 4, "skipped": 1}
    (message,) = [line for line in said if "overflowed" in line]
    assert message.startswith("step 3:")
    assert "65536" in message
    assert "32768" in message
    train = [row for row in read_log(trainer.run_folder) if row["kind"] == "train"]
    assert [row["skipped_updates"] for row in train] == [0, 1, 1]
    assert [row["loss_scale"] for row in train] == [2.0**16, 2.0**15, 2.0**15]


def test_a_gradient_that_is_bad_at_every_scale_is_no_overflow(
    make_config: MakeConfig, make_model: MakeModel
) -> None:
    model = make_model()
    poison_gradient(model, math.inf, set(range(5, 100)))
    with (
        Trainer(make_config(training__amp_dtype="fp16"), model=model) as trainer,
        pytest.raises(
            TrainingError, match=r"step 5: gradient_norm is not finite, first in the gradient of write"
        ),
    ):
        trainer.fit()
    assert trainer.scaler.skipped == 16
    assert trainer.scaler.scale == 1.0


def test_a_loss_that_is_not_finite_is_no_overflow(make_config: MakeConfig, make_model: MakeModel) -> None:
    model = make_model()
    model.write.register_forward_hook(  # type: ignore[union-attr]
        lambda module, _, out: out * math.inf if module.training else None
    )
    with (
        Trainer(make_config(training__amp_dtype="fp16"), model=model) as trainer,
        pytest.raises(TrainingError, match=r"step 1: total is not finite, first in the output of write"),
    ):
        trainer.fit()
    assert trainer.scaler.skipped == 0


def test_the_scale_changes_no_gradient(make_config: MakeConfig, make_model: MakeModel, tmp_path: Any) -> None:
    """Powers of two are exact: at 1 or at 65536, over two micro-batches, the weights are the same bits."""
    weights = []
    for scale in (1.0, 2.0**16):
        config = make_config(
            training__amp_dtype="fp16",
            training__run_folder=str(tmp_path / f"{scale:g}"),
            training__gradient_accumulation_steps=2,
            training__early_stopping_restore_best_weights=False,
        )
        with Trainer(config, model=make_model()) as trainer:
            # Full precision inside, so that no fp16 rounding depends on the scale.
            trainer.parallel.objective.precision = type(trainer.precision)(CPU, torch.float32, "")
            trainer.scaler.load_state_dict({"scale": scale, "good_steps": 0, "skipped": 0})
            trainer.fit()
            weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert weights[0].isfinite().all()
    assert torch.equal(*weights)


def test_the_loss_writes_its_gradients_scaled(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale that the loss is told and the one that arrives at the total agree: no rescaling pass."""
    with Trainer(make_config(training__amp_dtype="fp16"), model=make_model()) as trainer:
        told: list[float] = []
        arrived: list[float] = []
        original = trainer.loss.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            told.append(float(kwargs["grad_scale"]))
            out = original(*args, **kwargs)
            out.total.register_hook(lambda gradient: arrived.append(float(gradient)))
            return out

        monkeypatch.setattr(trainer.loss, "forward", forward)
        trainer.fit()
    assert told == arrived == [2.0**16] * 6


def test_the_scale_grows_after_good_steps_and_is_bounded() -> None:
    scaler = LossScaler(CPU, enabled=True, initial=2.0**22, growth_interval=3)
    seen = []
    for _ in range(12):
        scaler.grow()
        seen.append(scaler.scale)
    assert seen == [2.0**22] * 2 + [2.0**23] * 3 + [2.0**24] * 7
    assert float(scaler.factor) == 2.0**24  # type: ignore[arg-type]
    assert scaler.back_off()
    for _ in range(2):
        scaler.grow()
    # An overflow starts the counting anew.
    assert scaler.scale == 2.0**23


def test_the_scaler_continues_from_its_state() -> None:
    scaler = LossScaler(CPU, enabled=True)
    scaler.grow()
    scaler.back_off()
    scaler.grow()
    other = LossScaler(CPU, enabled=True)
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    assert float(other.factor) == scaler.scale  # type: ignore[arg-type]
    unscaled = LossScaler(CPU, enabled=False, growth_interval=1)
    unscaled.grow()
    assert unscaled.scale == 1.0
    assert unscaled.factor is None
    other.load_state_dict(unscaled.state_dict())
    # A bf16 run resumed in fp16 keeps the scale that fp16 starts with.
    assert other.scale == 2.0**15
