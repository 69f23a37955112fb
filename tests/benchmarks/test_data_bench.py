"""The data benchmark: its gate, its figures' presence and its table; never its speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ttsfast.benchmarks import data as bench
from ttsfast.benchmarks import data_loader, data_planning
from ttsfast.benchmarks.data_corpus import make_store
from ttsfast.benchmarks.npy_files import NpyFiles
from ttsfast.cli import app
from ttsfast.data.loading.batch import Batch
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError


def test_planning_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_planning, "UTTERANCES", 3000)
    result = json.loads(json.dumps(data_planning.run(rounds=2)))
    assert set(result["variants"]) == set(data_planning.VARIANTS)
    for row in result["variants"].values():
        assert row["plan_ms"] > 0
        assert row["seek_ms"] > 0
        assert 0 < row["state_bytes"] <= 1024
        assert row["batches"] >= 3000 // 48
    shown = data_planning.table(result).splitlines()
    assert len(shown) == 2 + len(data_planning.VARIANTS)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCH": 6, "WARM_UP": 1, "TIMED": 2, "EPOCHS": 3, "STEPS": 1, "LARGE": 100}.items():
        monkeypatch.setattr(data_loader, name, value)


@pytest.mark.usefixtures("small")
def test_loader_is_gated_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = NpyFiles.__getitem__

    def wrong(files: NpyFiles, index: int) -> dict[str, Any]:
        item = right(files, index)
        return {**item, "mel": item["mel"] + 1} if "float16" in files.folder.name else item

    monkeypatch.setattr(NpyFiles, "__getitem__", wrong)
    store = make_store(tmp_path / "store", np.linspace(0.8, 1.2, 24))
    result = data_loader.run(store, store, tmp_path, device=torch.device("cpu"), rounds=1)
    result = json.loads(json.dumps(result))
    rows = result["throughput"]
    assert {"npy-float32-0", "npy-float32-2", "MelLoader-1", "MelLoader-2"} <= set(rows)
    for name, row in rows.items():
        assert row["correct"] == ("float16" not in name), name
        assert (row["batches_per_s"] is not None) == row["correct"]
    for first in (result["first_batch_ms"], result["large_first_batch_ms"]):
        assert first["median"] > first["of_opening"] > 0
    large = Store.open(tmp_path / "large")
    assert len(large) == 120
    assert np.array_equal(large[119].mel, store[23].mel)
    assert len(result["memory"]["after_epoch_mib"]) == 3
    assert result["training"]["step_ms"] > result["training"]["loader_cpu_ms"] > 0
    assert not list((tmp_path / "store").rglob("*.wav"))
    shown = data_loader.table(result)
    assert shown.count("no figures") == 3
    assert shown.count("first batch") == 2


def test_every_section_is_run_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def stand_in(name: str) -> Any:
        return lambda *args, **options: asked.update({name: options}) or {"name": name}

    for name in bench.SECTIONS:
        module = getattr(bench, f"data_{name}")
        monkeypatch.setattr(module, "run", stand_in(name))
        monkeypatch.setitem(bench._TABLES, name, lambda result: f"the table of {result['name']}")
    monkeypatch.setattr(bench, "make_store", lambda *args, **options: None)
    for memory in (False, True):
        result = bench.run_data_bench(rounds=2, memory=memory)
        assert set(asked) == set(bench.SECTIONS)
        assert all(options["rounds"] == 2 for options in asked.values())
        assert bool(asked["features"]["sizes"]) == memory
        shown = bench.table(result)
        assert all(f"the table of {name}" in shown for name in bench.SECTIONS)


def test_a_batch_that_differs_is_seen() -> None:
    def batch(value: float, name: str = "a") -> Batch:
        one = torch.ones(1, dtype=torch.int64)
        return Batch((name,), one[None], one, torch.full((1, 2, 3), value), one, one, one.bool(), 1)

    assert data_loader._same(batch(1.0), batch(1.0))
    assert not data_loader._same(batch(1.0), batch(1.5))
    assert not data_loader._same(batch(1.0), batch(1.0, "b"))


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data_planning, "UTTERANCES", 500)
    arguments = [
        "bench",
        "data",
        "--sections",
        "planning",
        "--rounds",
        "1",
        "--output",
        str(tmp_path / "o.json"),
    ]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    result = json.loads((tmp_path / "o.json").read_text())
    assert result["planning"]["utterances"] == 500
    assert "loader" not in result
    assert result["machine"]["processor"] in shown.output
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(printed.stdout)["planning"]["utterances"] == 500
    with pytest.raises(InputError, match=r"no section 'plan'.*planning"):
        bench.run_data_bench(["plan"])
