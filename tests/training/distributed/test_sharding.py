"""A model sharded over two ranks trains as on one, and its checkpoints are those of a full one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from rank_runs import ended, errors_of, job, start, weights
from rank_worker import BlocksModel, tiny_model
from torch import nn
from torch.distributed.fsdp import FSDPModule

from ttsfast.config import Config, TrainingConfig
from ttsfast.errors import InputError
from ttsfast.evaluation.log import read_log
from ttsfast.models.checkpoint import checkpoints, load_checkpoint
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.distributed.sharding import blocks_of, data_parallel
from ttsfast.training.trainer import Trainer

needs_sharding = pytest.mark.skipif(
    not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"),
    reason=f"training.sharding=full needs torch 2.8, this is {torch.__version__}",
)


@needs_sharding
def test_two_shards_train_as_one_process_and_go_on_as_one(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttsfast.training.ratios.LEAST_STEPS", 1)

    def config(name: str, batch_size: int, **changes: Any) -> Config:
        values: dict[str, Any] = {
            "training__run_folder": str(tmp_path / name),
            "training__early_stopping_restore_best_weights": False,
            "training__gradient_accumulation_steps": 2,
            "training__weight_decay": 0.1,
            "training__ema_decay": 0.9,
            "training__max_steps": 7,
            "training__val_step": 4,
            "training__device": "cpu",
            "data__batch_size": batch_size,
            **changes,
        }
        return make_config(**values)

    full = {"training__sharding": "full"}
    part = config("part", 3, **full, training__max_steps=4)
    jobs = [
        job("sharded", config("sharded", 3, **full), model="BlocksModel"),
        job("part", part, model="BlocksModel"),
        job("copy", config("copy", 3, **full, training__max_steps=4), model="BlocksModel"),
        job("resumed", config("copy", 3, **full), model="BlocksModel", resume=True),
    ]
    results = ended(start(jobs, tmp_path))
    assert [code for code, _ in results] == [0, 0], results

    store = part.data.store
    with Trainer(config("alone", 6), model=tiny_model(store, 0.0, BlocksModel)) as alone:
        alone.fit()
    with Trainer(config("part", 6), model=tiny_model(store, 0.0, BlocksModel), resume=True) as went_on:
        assert went_on.step == 4
        went_on.fit()
    sharded, other, resumed = (
        weights(tmp_path, *which) for which in (("sharded", 0), ("sharded", 1), ("resumed", 0))
    )
    for name, expected in alone.model.named_parameters():
        assert torch.equal(sharded[name], other[name])
        assert torch.equal(sharded[name], resumed[name])
        for found in (sharded[name], went_on.model.get_parameter(name)):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5, msg=name)

    rows = [
        [row for row in read_log(tmp_path / run) if row["kind"] == "train"] for run in ("sharded", "alone")
    ]
    for ours, theirs in zip(*rows, strict=True):
        for figure in ("total", "gradient_norm", "gradient_ratio.blocks", "update_ratio.read"):
            assert ours.get(figure, 0.0) == pytest.approx(theirs.get(figure, 0.0), rel=1e-4), figure
    assert "update_ratio.read" in rows[0][0]

    # Of the same tensors in the same shapes, the optimiser's and the average's too.
    there, here = (load_checkpoint(checkpoints(tmp_path / run)[-1]) for run in ("sharded", "alone"))
    for kind in ("weights", "training"):
        shapes = [
            {name: value.shape for name, value in getattr(kept, kind).items() if "random" not in name}
            for kept in (there, here)
        ]
        assert shapes[0] == shapes[1]
        assert any(name.startswith("optimizers.adam.") or name == "read.weight" for name in shapes[0])
    shutil.rmtree(tmp_path / "part")


@needs_sharding
def test_a_loss_that_is_not_finite_on_one_rank_ends_both(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(training__device="cpu", training__sharding="full", training__val_step=500)
    run = job("run", config, model="BlocksModel", happens=(1, "nan"))
    results = ended(start([run], tmp_path))
    assert [code for code, _ in results] == [1, 1], results
    (line,) = [line for _, text in results for line in errors_of(text)]
    assert "step 3: " in line
    assert "first in the output of read (" in line


def test_a_compiled_model_is_not_sharded(make_config: Callable[..., Config]) -> None:
    training = make_config(training__sharding="full", training__compile=True).training

    class Two(ProcessGroup):
        size = 2

    with pytest.raises(
        InputError, match=r"^training\.sharding=full was not tried with training\.compile: set "
    ):
        data_parallel(training, Mock(), Mock(), Two())


def test_a_torch_that_shards_models_otherwise_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FSDPModule, "set_force_sum_reduction_for_comms", raising=False)
    training = TrainingConfig(sharding="full")
    with pytest.raises(
        InputError, match=r"^training\.sharding=full needs torch 2\.8 or newer, this is .*none$"
    ):
        data_parallel(training, Mock(), Mock(), SimpleNamespace(size=2))  # type: ignore[arg-type]


def test_blocks_are_the_elements_of_the_outermost_lists() -> None:
    inner = nn.ModuleList([nn.Linear(1, 1)])
    listed = nn.Sequential(inner)
    model = nn.Sequential(nn.Linear(1, 1), nn.ModuleDict({"a": nn.ModuleList([listed, nn.Linear(2, 2)])}))
    assert [type(block) for block in blocks_of(model)] == [nn.Sequential, nn.Linear]
    assert blocks_of(nn.Linear(1, 1)) == []
