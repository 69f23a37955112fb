"""The benchmark of the training loop: its gate and its table; never its speed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torch import Tensor

from ttsfast.benchmarks import training

SMALL: dict[str, Any] = {"utterances": 60, "batch_size": 4, "steps": 1, "rounds": 1, "threads": 1}


def test_both_loops_train_with_the_same_loss() -> None:
    result = json.loads(json.dumps(training.run(**SMALL)))
    assert result["loss_difference"] < training.TOLERANCE
    assert set(result["loops"]) == {"trainer", *(f"plain, {n} workers" for n in (0, 1, 2))}
    assert all(row["frames_per_second"] > 0 for row in result["loops"].values())
    assert 0 <= result["loader_wait_percent"] <= 100
    assert len(training.table(result).splitlines()) == 8


def test_no_speed_is_reported_where_the_losses_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = training.composite

    def wrong(*arguments: Any) -> Tensor:
        return 1.001 * usual(*arguments)

    monkeypatch.setattr(training, "composite", wrong)
    with pytest.raises(RuntimeError, match="no speed is reported"):
        training.run(**SMALL)
