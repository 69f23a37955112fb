"""`ttsfast bench synth` runs, checks before it times, and shows what it found; never its speed."""

import json
from pathlib import Path

import numpy as np
import pytest

from ttsfast.benchmarks import synthesis
from ttsfast.data.features.contract import PRESETS
from ttsfast.errors import InputError


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "PRESETS", {"hifigan-22k": PRESETS["hifigan-22k"]})
    monkeypatch.setattr(synthesis, "LONG", 2.0)
    monkeypatch.setattr(synthesis, "ITERATIONS", 5)
    # Processes that import torch and librosa again.
    monkeypatch.setattr(synthesis, "first_word", lambda features, way, contract: len(np.load(features)) / 100)


@pytest.mark.usefixtures("_small")
def test_it_measures_and_shows() -> None:
    result = synthesis.run(utterances=1, rounds=1)
    assert json.loads(json.dumps(result)) == result
    found = result["contracts"]["hifigan-22k"]
    assert found["ways"].keys() == synthesis.WAYS.keys()
    assert all(row["lsd_db"] > 0 for row in found["ways"].values())
    assert found["ways"]["ttsfast"]["x_real_time"] > 0
    assert found["ways"]["ttsfast"]["first_word_seconds"] == 0.86
    assert found["long"]["seconds"] > 0
    table = synthesis.table(result)
    assert all(name in table for name in synthesis.WAYS)


@pytest.mark.usefixtures("_small")
def test_what_sounds_worse_than_librosa_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = synthesis.WAYS["ttsfast"]
    monkeypatch.setitem(synthesis.WAYS, "ttsfast", lambda *given: usual(*given)[::-1])
    result = synthesis.run(utterances=1, rounds=1)
    assert "x_real_time" not in result["contracts"]["hifigan-22k"]["ways"]["ttsfast"]
    assert "refused" in synthesis.table(result)


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no wav or flac"):
        synthesis.run(tmp_path)
