"""Boundary error: of alignments whose words begin where they are known to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ttsfast.benchmarks.convergence.boundaries import BoundaryErrors, Starts, of_a_diagonal, true_starts
from ttsfast.benchmarks.convergence.figures import HeldOut
from ttsfast.benchmarks.convergence.headlines import BOUNDARIES, headlines
from ttsfast.benchmarks.data_corpus import write_corpus
from ttsfast.data.corpus.word_times import write_word_times
from ttsfast.data.features.contract import PRESETS
from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.data.store.store import Store
from ttsfast.evaluation.samples import ValidationSample

FRAMES = dataclasses.replace(
    PRESETS["hifigan-22k"], sample_rate=20000, n_fft=400, win_length=400, hop_length=200, fmax=8000.0
)
"""A frame is 10 ms."""
STARTS = Starts(symbols=[0, 2, 5], seconds={1: 0.20, 2: 0.50})
"""Of "ab cd ef": a word and the space before the next one."""


def sample(attention: np.ndarray, frames: int, name: str = "u") -> ValidationSample:
    mel = np.zeros((frames, 2), dtype=np.float32)
    text = np.arange(attention.shape[1])
    return ValidationSample(name, text, mel, mel, attention.astype(np.float32), truncated=False)


def attention_of(*durations: int) -> np.ndarray:
    """(S, N), one at the symbol of each step."""
    return np.repeat(np.eye(len(durations)), durations, axis=0)


@pytest.mark.parametrize(("ratio", "frames"), [(1, 60), (2, 60), (2, 59)])
def test_words_that_begin_where_they_do_have_no_error(ratio: int, frames: int) -> None:
    errors = BoundaryErrors({"u": STARTS}, FRAMES)
    errors.add(sample(attention_of(*(d // ratio for d in (10, 10, 2, 20, 8, 4, 6, 0))), frames))
    assert errors.figures()["boundary_error"] == pytest.approx(0.0, abs=1e-3)


def test_errors_are_the_mean_over_words_in_ms() -> None:
    errors = BoundaryErrors({"u": STARTS}, FRAMES)
    assert errors.figures() == {}
    # The second word 50 ms late, the third 100 ms early.
    errors.add(sample(attention_of(10, 15, 2, 3, 10, 10, 5, 5), 60))
    assert errors.figures() == pytest.approx({"boundary_error": 75.0, "boundary_bias": -25.0}, abs=1e-3)
    errors.add(sample(attention_of(10, 10, 2, 20, 8, 4, 6, 0), 60))
    assert errors.figures()["boundary_error"] == pytest.approx(37.5, abs=1e-3)
    errors.add(sample(attention_of(60, 0, 0), 60, name="unknown"))
    errors.add(dataclasses.replace(sample(attention_of(60, 0, 0), 60), attention=None))
    assert errors.figures()["boundary_error"] == pytest.approx(37.5, abs=1e-3)


def test_centred_frames_begin_half_a_hop_before_the_recording() -> None:
    errors = BoundaryErrors({"u": STARTS}, dataclasses.replace(FRAMES, padding="center_zero"))
    errors.add(sample(attention_of(10, 10, 2, 20, 8, 4, 6, 0), 60))
    assert errors.figures()["boundary_error"] == pytest.approx(5.0, abs=1e-3)


def test_fewer_steps_than_symbols_are_enough() -> None:
    errors = BoundaryErrors({"u": Starts([0, 6], {1: 0.06})}, FRAMES)
    attention = np.zeros((3, 12))
    attention[0, 3], attention[1, 7], attention[2, 11] = 1, 1, 1
    errors.add(sample(attention, 12))
    assert errors.figures()["boundary_error"] == pytest.approx(20.0, abs=1e-3)


def test_starts_are_of_the_words_of_the_store(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", np.linspace(0.3, 0.6, 6))
    options = PrepareOptions(jobs=1)
    prepare(tmp_path / "c", tmp_path / "s", options)
    store = Store.open(tmp_path / "s")
    everything = range(len(store))
    assert true_starts(store, everything) == {}
    name, text = store.entries[0].id, store.entries[0].text
    words = text.split(" ")
    assert len(words) > 2
    starts = [(0, 0.0), (1, 0.1), (len(words) - 1, 0.2)]
    write_word_times(tmp_path / "c", {name: starts, "x": [], store.entries[1].id: [(1, 0.1), (99, 3.0)]})
    (found,) = true_starts(store, everything).items()
    assert found[0] == name
    # Each with the space before it.
    assert found[1].symbols[:2] == [0, len(words[0])]
    assert len(found[1].symbols) == len(words)
    assert found[1].seconds == {1: 0.1, len(words) - 1: 0.2}
    of_these = HeldOut.of(store, 99, split="train").describe()["words_begin"]
    write_word_times(tmp_path / "c", {name: [*starts[:-1], (len(words) - 1, 0.3)]})
    assert HeldOut.of(store, 99, split="train").describe()["words_begin"] != of_these, "measured again"
    (tmp_path / "c/words.json").unlink()
    assert "words_begin" not in HeldOut.of(store, 99, split="train").describe()
    write_word_times(tmp_path / "c", {name: starts})
    half = len(text) // 2
    diagonal = of_a_diagonal(store, everything, {name: Starts([0, half], {1: 0.0})})
    frame = store.contract.hop_length / store.contract.sample_rate
    assert diagonal == pytest.approx(1000 * frame * int(store.frames[0]) * half / len(text), abs=1000 * frame)
    prepare(tmp_path / "c", tmp_path / "t", dataclasses.replace(options, trim=True))
    assert true_starts(Store.open(tmp_path / "t"), everything) == {}, "a cut recording has other times"


def test_a_goal_of_its_own_that_must_be_held() -> None:
    rows = [
        {"step": 10 * i, "seconds": 10.0 * i, "processor_seconds": 10.0 * i, "boundary_error": error}
        for i, error in enumerate((300, 34, 36, 35, 30, 20))
    ]
    assert headlines(rows)[BOUNDARIES].at["step"] == 30
    assert headlines(rows[:-1])[BOUNDARIES].cut_off
