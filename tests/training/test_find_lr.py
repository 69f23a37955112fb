from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from clamped_loss import clamping
from torch import nn

from ttsfast.config import Config
from ttsfast.errors import InputError, TrainingError
from ttsfast.training import find_lr
from ttsfast.training.find_lr import find_learning_rate, suggest
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]


def test_the_range_test_draws_and_leaves_the_run_alone(
    make_config: MakeConfig,
    make_model: Callable[[], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(find_lr, "Trainer", lambda config: Trainer(config, model=make_model()))  # type: ignore[arg-type]
    config = make_config(training__gradient_accumulation_steps=2)
    run = Path(config.training.run_folder)
    with Trainer(config, model=make_model()) as trainer:  # type: ignore[arg-type]
        trainer.fit()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    found = find_learning_rate(config, tmp_path / "range.png", steps=80)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert (tmp_path / "range.png").read_bytes().startswith(b"\x89PNG")
    assert found.rates == sorted(found.rates)
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    # The tiny model learns well between a thousandth and a tenth.
    assert 1e-4 < found.suggestion < 1.0
    assert min(found.smoothed) < 0.95 * found.smoothed[10]


def test_the_steepest_descent_is_suggested() -> None:
    rates = np.geomspace(1e-7, 1.0, 200)
    curve = 1.0 / (1.0 + (rates / 1e-3) ** 2) + np.where(rates > 0.05, (rates / 0.05) ** 2, 1.0)
    assert suggest(rates.tolist(), curve.tolist()) == pytest.approx(1e-3, rel=0.1)


def test_a_curve_that_only_rises_is_bad_input() -> None:
    with pytest.raises(InputError, match="never fell"):
        suggest(np.geomspace(1e-7, 1, 50).tolist(), [1.0 + 0.1 * i for i in range(50)])
    with pytest.raises(InputError, match="never fell"):
        suggest([1e-7] * 3, [math.nan, math.nan, 1.0])
    for curve in ([], [math.nan] * 50):
        with pytest.raises(InputError, match=r"never fell.*ttsfast verify"):
            suggest([1e-7] * len(curve), curve)


def test_clamped_lengths_are_no_divergence(
    make_config: MakeConfig,
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opened(config: Config) -> Trainer:
        trainer = Trainer(config, model=make_model())
        monkeypatch.setattr(trainer.loss, "forward", clamping(trainer.loss, at_call=30, count=2))
        return trainer

    monkeypatch.setattr(find_lr, "Trainer", opened)
    config = make_config(training__gradient_accumulation_steps=1)
    with pytest.raises(TrainingError, match=r"^step 30: 2 lengths lie outside their tensors.*ttsfast verify"):
        find_learning_rate(config, tmp_path / "range.png", steps=40)


def test_what_is_not_finite_at_the_first_step_is_named(
    make_config: MakeConfig,
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opened(config: Config) -> Trainer:
        trainer = Trainer(config, model=make_model())
        with torch.no_grad():
            trainer.model.stop.bias.fill_(math.nan)  # type: ignore[union-attr, operator]
        return trainer

    monkeypatch.setattr(find_lr, "Trainer", opened)
    with pytest.raises(
        TrainingError, match=r"^step 1: .* is not finite, first in the weights stop\.bias"
    ) as caught:
        find_learning_rate(make_config(), tmp_path / "range.png", steps=40)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("picture", "steps", "message"),
    [
        ("x.svg", 50, "PNG"),
        ("x.png", 3, "20 steps"),
        # Before two hundred steps are taken for nothing.
        ("/dev/null/x.png", 50, r"/dev/null: cannot be written to"),
    ],
)
def test_bad_arguments_are_one_line(
    picture: str, steps: int, message: str, make_config: MakeConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        find_learning_rate(make_config(), tmp_path / picture, steps=steps)
