"""The features part of `ttsfast bench data` runs, checks before it times, and shows what it found."""

import json

import numpy as np
import pytest

from ttsfast.benchmarks import data_features


def test_speeds_and_memory_are_measured_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_features, "SECONDS", (0.5, 0.8))
    result = data_features.run(rounds=1, sizes=[40])
    assert json.loads(json.dumps(result)) == result
    ways = {way["name"]: way for way in result["ways"]}
    assert ways["librosa"]["x_librosa"] == 1.0
    assert all(0 < way["x_real_time"] < np.inf for way in ways.values())
    assert 0 <= ways["ttsfast"]["difference"] < data_features.TOLERANCE
    assert {"decode wav", "decode flac", "prepare: hash, decode, log-mel, write"} <= set(ways)
    (memory,) = result["memory"]
    assert memory["utterances"] == 40
    assert memory["peak_mib"] >= memory["process_mib"] > 20
    assert memory["workers_mib"] > 20
    table = data_features.table(result)
    assert all(name in table for name in ways)


def test_what_is_not_equal_to_librosa_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_features, "SECONDS", (0.5,))
    monkeypatch.setattr(data_features, "log_mel", lambda wave, contract: data_features._librosa(wave) + 1e-3)
    result = data_features.run(rounds=1, sizes=[])
    assert "ttsfast" in result["refused"]
    assert "ttsfast" not in {way["name"] for way in result["ways"]}
