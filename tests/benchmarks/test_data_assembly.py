"""The assembly part of `ttsfast bench data`: its gate, the presence of its figures, its table; no speed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ttsfast import native
from ttsfast.benchmarks import data_assembly
from ttsfast.errors import InputError

pytestmark = pytest.mark.skipif(native.core is None, reason=native.why_missing or "the extension is there")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_assembly, "BATCH", 3)
    monkeypatch.setattr(data_assembly, "MIXES", {"alike": (20, 22), "mixed": (5, 30)})


def test_every_way_is_measured_and_shown() -> None:
    result = data_assembly.run(rounds=1)
    assert json.loads(json.dumps(result)) == result
    assert set(result["mixes"]) == {"alike", "mixed"}
    for mix in result["mixes"].values():
        ours = {"store, fp16 to fp32", "store, fp16 to fp16", "store, fp16 to bf16", "store in a file"}
        assert ours | {"memcpy", "silence alone", "fp32 to fp32"} | set(data_assembly.BASELINES) == set(
            mix["ms"]
        )
        assert all(0 < mix["best_ms"][name] <= value for name, value in mix["ms"].items())
        store, floats = mix["ms"]["store, fp16 to fp32"], mix["ms"]["fp32 to fp32"]
        assert mix["fp16_to_fp32_of_fp32"] == store / floats
        assert mix["times_faster_from_store"]["NeMo-style"] == mix["ms"]["NeMo-style"] / store
        # Between half of the bytes, all padding gone, and all.
        assert 0.5 < mix["fp16_to_fp32_of_fp32_by_bytes"] < 1
    shown = data_assembly.table(result)
    assert shown.count("Tacotron2-style, with texts") == 2


@pytest.mark.parametrize("name", list(data_assembly.BASELINES))
def test_a_way_that_gives_another_batch_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = data_assembly.BASELINES[name]
    wrong = lambda source: right(source) + torch.eye(data_assembly.BINS)[0]  # noqa: E731
    monkeypatch.setitem(data_assembly.BASELINES, name, wrong)
    with pytest.raises(InputError, match=f"^{name} gives another batch"):
        data_assembly.run(rounds=1)


def test_padding_that_is_no_silence_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    source = data_assembly._source(0, (5, 9))
    expected = data_assembly._expected("fp32 to fp32", source)
    assert (expected[0, source.lengths[0] :] == data_assembly.SILENCE).all()
    assert np.array_equal(expected[0, : source.lengths[0]].numpy(), source.floats[0])
    with monkeypatch.context() as patch:
        patch.setattr(data_assembly, "SILENCE", -5.0)
        changed = data_assembly._expected("store in a file", source)
    assert not torch.equal(changed, expected)
