"""The loss benchmark: its byte ledger, its gate and its table; never its speed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from ttsfast.benchmarks import loss as bench
from ttsfast.benchmarks import loss_cases as cases
from ttsfast.benchmarks import machine, roofline

SMALL = cases.Case("small", 3, 12, bins=5, latents=4, sets=2)


def test_ledger_counts_valid_reads_and_whole_writes() -> None:
    shape = roofline.Shape(batch=2, frames=10, bins=3, latents=4, symbols=5, heads=2)
    moves = roofline.ledger(shape, [10, 4], item=4, tail=2)
    found = {f"{move.term} {move.tensor}": (move.read, move.written) for move in moves}
    assert found == {
        "mel prediction 0": (14 * 3 * 4, 20 * 3 * 4),
        "mel target": (14 * 3 * 4, 0),
        "kl posterior mu": (14 * 4 * 4, 20 * 4 * 4),
        "kl posterior logvar": (14 * 4 * 4, 20 * 4 * 4),
        "stop logits": (16 * 4, 20 * 4),
        "attention weights": (14 * 10 * 4, 20 * 10 * 4),
    }
    assert roofline.total_bytes(moves) == sum(read + written for read, written in found.values())
    by_text = roofline.ledger(shape, [10, 4], [5, 3], item=4, tail=2)
    assert by_text[-1].read == (10 * 5 + 4 * 3) * 2 * 4
    assert by_text[:-1] == moves[:-1]
    forward = roofline.ledger(shape, [10, 4], gradients=False)
    assert all(move.written == 0 for move in forward)
    lines = roofline.table(moves, bandwidth=1e9).splitlines()
    assert len(lines) == len(moves) + 2
    assert lines[-1].split()[0] == "total"


def test_roofline_is_shown_from_what_json_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "COPY_BYTES", 1 << 16)
    result = json.loads(json.dumps(roofline.run_roofline(roofline.Shape(4, 10), valid=0.5)))
    assert result["bytes"] == roofline.total_bytes(roofline.ledger(roofline.Shape(4, 10), [5] * 4))
    assert result["copy_gb_per_s"] > 0
    shown = roofline.show(result).splitlines()
    assert len(shown) == 3 + len(result["moves"])


def test_bench_is_gated_and_writes_json(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = bench.variants

    def with_a_wrong_one(*arguments: Any) -> dict[str, cases.Variant]:
        def wrong(inputs: cases.Inputs) -> Tensor:
            return 1.001 * cases.eager(inputs)

        return {**usual(*arguments), "wrong": wrong}

    monkeypatch.setattr(bench, "variants", with_a_wrong_one)
    monkeypatch.setattr(machine, "COPY_BYTES", 1 << 16)
    threads = torch.get_num_threads()
    result = json.loads(json.dumps(bench.run_loss_bench([SMALL], threads=1, rounds=2, compiled=())))
    assert torch.get_num_threads() == threads
    rows = result["cases"][0]["variants"]
    assert {"eager", "torch", "wrong"} <= set(rows)
    for name, row in rows.items():
        assert row["correct"] == (name != "wrong"), name
        assert ("ms" in row) == (name != "wrong"), name
        if row["correct"]:
            assert row["error"] < 1e-5
            assert row["peak_bytes"] >= result["cases"][0]["gradient_bytes"]
    assert result["machine"]["threads"] == 1
    shown = bench.table(result)
    assert "no figures" in shown
    assert result["machine"]["processor"] in shown


def test_case_shapes() -> None:
    inputs = cases.make_inputs(SMALL, torch.device("cpu"))
    assert inputs["mel_pred"].shape == (3, 12, 5)
    assert int(inputs["mel_lengths"][0]) == 12
    assert int(inputs["mel_lengths"].min()) >= 4
    full = cases.make_inputs(cases.Case("full", 2, 7, ragged=False), torch.device("cpu"))
    assert full["mel_lengths"].tolist() == [7, 7]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_guided_attention_is_compared_too(dtype: str) -> None:
    """Its gradients are part of the gate: what plain torch writes agrees with the loss."""
    case = cases.Case("guided", 3, 12, bins=5, latents=4, heads=(2, 1), symbols=7, dtype=dtype)
    inputs = cases.make_inputs(case, torch.device("cpu"))
    assert len(cases.leaves(inputs)) == 6
    assert bench.error_of(cases.eager, inputs) < bench.TOLERANCE

    def forgetful(inputs: cases.Inputs) -> Tensor:
        return cases.eager({**inputs, "attention_1": 1.1 * inputs["attention_1"]})

    assert bench.error_of(forgetful, inputs) > 0.05
    lengths, texts = (inputs[name].tolist() for name in ("mel_lengths", "text_lengths"))
    item = inputs["mel_pred"].element_size()
    plain = bench.fused_bytes({n: x for n, x in inputs.items() if "att" not in n and "text" not in n})
    read = sum(length * text for length, text in zip(lengths, texts, strict=True))
    assert bench.fused_bytes(inputs) - plain == (read + 3 * 12 * 7) * 3 * item
