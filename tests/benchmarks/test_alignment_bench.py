"""The alignment's benchmark: its gate and its table; never its speed."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from ttsfast.benchmarks import alignment as bench
from ttsfast.benchmarks import alignment_cases as cases
from ttsfast.benchmarks import alignment_step


def test_bench_is_gated_and_writes_json(monkeypatch: pytest.MonkeyPatch) -> None:
    def longest_first(batch: cases.Batch) -> Tensor:
        return torch.zeros(batch.scores.shape[0], batch.scores.shape[2], dtype=torch.int64)

    ours = cases.searches(torch.device("cpu"))
    name = cases.fused(torch.device("cpu"))
    monkeypatch.setattr(bench, "searches", lambda device: {name: ours[name], "wrong": longest_first})
    result = json.loads(json.dumps(bench.run((cases.Case(3, 12, 5),), rounds=1, steps_of=())))
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


def test_a_gradient_of_nan_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def undefined(batch: cases.Batch) -> Tensor:
        loss = cases.looped_ctc(batch)
        loss.register_hook(lambda incoming: incoming * torch.nan)
        return loss

    monkeypatch.setattr(bench, "losses", lambda device: {"undefined": undefined})
    monkeypatch.setattr(bench, "searches", lambda device: {})
    result = bench.run((cases.Case(3, 12, 5),), rounds=1, steps_of=())
    assert not result["cases"][0]["loss"]["undefined"]["correct"]


@pytest.mark.parametrize("architecture", alignment_step.ARCHITECTURES)
def test_the_share_of_a_step(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("BATCH", 2), ("FRAMES", 24), ("SYMBOLS", 5)):
        monkeypatch.setattr(alignment_step, name, size)
    result = json.loads(json.dumps(bench.run((), rounds=1, steps_of=(architecture,))))
    step = result["steps"][architecture]
    assert 0 < step["share"] < 1
    assert step["with_ms"] == pytest.approx(step["without_ms"] + sum(step["parts_ms"].values()))
    assert f"{architecture} nano, B=2 T=24 N=5" in bench.table(result)
