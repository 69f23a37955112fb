"""The benchmark of the trainer's features: its gate, its table, what it says of a GPU; never its speed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from ttsfast.benchmarks import training_features as features
from ttsfast.data.loading.batcher import PythonBatcher
from ttsfast.errors import InputError
from ttsfast.training.trainer import Trainer

SMALL: dict[str, Any] = {
    "device": torch.device("cpu"),
    "utterances": 64,
    "batch_size": 3,
    "steps": 1,
    "rounds": 1,
    "threads": 1,
}


def test_each_feature_is_on_and_off_and_what_needs_a_gpu_is_not_made_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, bool, bool]] = []

    def opened(*args: Any) -> Trainer:
        trainer: Trainer = open_(*args)
        in_python = isinstance(getattr(trainer.loader, "_batcher", None), PythonBatcher)
        seen.append((trainer.loss.backend, trainer.optimizers.skips_on_device, in_python))
        return trainer

    open_ = features._open
    monkeypatch.setattr(features, "_open", opened)
    names = ["loss", "fused", "loader", "cuda_graphs", "bf16"]
    result = json.loads(json.dumps(features.run(names, **SMALL)))
    assert [row[:2] for row in seen] == [
        ("auto", True),
        ("torch", True),
        ("auto", True),
        ("auto", False),
        ("auto", True),
        ("auto", True),
    ]
    assert seen[-1][2]
    rows = result["features"]
    assert list(rows) == ["cuda_graphs", "loss", "bf16", "fused", "loader"]
    assert rows["cuda_graphs"] == {"off_means": "kernel by kernel", "not_measured": "needs a GPU"}
    for name in ("loss", "fused", "loader"):
        assert rows[name]["on_frames_per_second"] > 0
        assert rows[name]["loss_difference"] < 1e-4
    table = features.table(result).splitlines()
    assert len(table) == 2 + 5 + 1
    assert "needs a GPU" in table[2]


def test_bf16_is_compared_where_a_cpu_has_tiles_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for there in (True, False):
        monkeypatch.setattr(features, "multiplies_in_bf16", lambda there=there: there)
        found = {feature.name: features._is_there(feature.needs, cpu) for feature in features.FEATURES}
        assert (found["bf16"], found["tf32"], found["loss"]) == (there, False, True)


def test_no_turn_counts_in_which_something_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step compiles, and the first turn that would be measured; the second one is."""
    calls = []

    def compile(model: torch.nn.Module, **_: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(model)
            counters["stats"]["unique_graphs"] += len(calls) in (1, 3)
            return model(*arguments, **named)

        return call

    monkeypatch.setattr(torch, "compile", compile)
    counters.clear()
    result = json.loads(json.dumps(features.run(["compile"], **SMALL)))
    row = result["features"]["compile"]
    assert len(calls) == 4
    assert row["programs"] == 2
    assert row["first_step_seconds"] > 0
    assert "compile: programs compiled: 2; first step: " in features.table(result)


def test_no_speed_is_reported_of_a_feature_that_changes_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    other = features.Feature("loss", "half of it", {"training.mel_loss_weight": 11.0})
    monkeypatch.setattr(features, "FEATURES", (other,))
    with pytest.raises(RuntimeError, match=r"^loss: the first loss is .* no speed is reported"):
        features.run(["loss"], **SMALL)


def test_an_unknown_feature_is_bad_input_and_time_has_an_end() -> None:
    with pytest.raises(InputError, match="--features warp: there are cuda_graphs, loss"):
        features.run(["warp"], **SMALL)
    rows = features.run(["loss"], **SMALL, seconds=0.0)["features"]
    assert rows == {"loss": {"off_means": "plain torch", "not_measured": "no time left"}}
