"""The features part of `ttsfast bench data` runs, checks before it times, and shows what it found."""

import json
import subprocess
import sys

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


def test_a_process_that_is_only_being_started_is_not_counted() -> None:
    program = (
        "import os, subprocess, sys\n"
        "worker = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "forked = os.fork() or (input(), os._exit(0))\n"
        "print(worker.pid, forked, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        worker, forked = map(int, process.stdout.readline().split())
        found = data_features._descendants(process.pid)
        process.terminate()
    assert worker in found
    assert forked not in found
