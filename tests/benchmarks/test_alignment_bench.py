"""The alignment's benchmark: its gate and its table; never its speed."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from ttsfast.benchmarks import alignment as bench
from ttsfast.benchmarks import alignment_cases as cases


def test_bench_is_gated_and_writes_json(monkeypatch: pytest.MonkeyPatch) -> None:
    def longest_first(batch: cases.Batch) -> Tensor:
        return torch.zeros(batch.scores.shape[0], batch.scores.shape[2], dtype=torch.int64)

    ours = cases.searches(torch.device("cpu"))
    name = cases.fused(torch.device("cpu"))
    monkeypatch.setattr(bench, "searches", lambda device: {name: ours[name], "wrong": longest_first})
    result = json.loads(json.dumps(bench.run((cases.Case(3, 12, 5),), rounds=1)))
    entry = result["cases"][0]
    assert not entry["search"]["wrong"]["correct"]
    assert "ms" not in entry["search"]["wrong"]
    assert all(row["correct"] and row["ms"] > 0 for row in entry["loss"].values())
    assert set(entry["loss"]) == {name, "ctc-batched", "ctc-looped"}
    shown = bench.table(result)
    assert "wrong: error" in shown
    assert "x ours" in shown


def test_a_batch_is_ragged_and_whole() -> None:
    batch = cases.make_batch(cases.Case(8, 40, 10), torch.device("cpu"))
    assert int(batch.mel_lengths.max()) == 40
    assert int(batch.text_lengths.max()) == 10
    assert (batch.mel_lengths >= batch.text_lengths).all()
    assert len(set(batch.mel_lengths.tolist())) > 2
