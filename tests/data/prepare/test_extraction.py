"""Features by every engine and device: the same work files; faults by name."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_corpus import CONTRACT, prepare_small, write_corpus

from ttsfast.data.features.options import FeatureOptions
from ttsfast.data.features.statistics import combine_moments
from ttsfast.data.prepare import extraction
from ttsfast.data.prepare.append import append
from ttsfast.data.prepare.extraction import Chunk
from ttsfast.errors import InputError

OPTIONS = FeatureOptions(CONTRACT, resample=False, mixdown=False, trim=False)


def plan(corpus: Path, work: Path) -> list[Chunk]:
    work.mkdir()
    audio = sorted(corpus.glob("*.wav"))
    found = extraction.inspect_recordings(audio, OPTIONS, 2)
    starts = range(0, len(audio), extraction.CHUNK)
    pieces = [slice(start, start + extraction.CHUNK) for start in starts]
    return [Chunk.planned(work, audio[piece], found[piece], OPTIONS) for piece in pieces]


@pytest.fixture
def chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Chunk]:
    """Three chunks, of 3, 3 and 2 utterances; nothing computed yet."""
    monkeypatch.setattr(extraction, "CHUNK", 3)
    monkeypatch.setattr(extraction, "PARALLEL_FROM", 0.0)
    return plan(write_corpus(tmp_path / "corpus", 8), tmp_path / "work")


def elsewhere(chunks: list[Chunk], folder: Path) -> list[Chunk]:
    folder.mkdir()
    return [replace(chunk, path=folder / chunk.path.name) for chunk in chunks]


@pytest.mark.parametrize("engine", ["joblib", "dask"])
def test_engines_find_the_same_and_write_the_same_bytes(
    engine: str, chunks: list[Chunk], tmp_path: Path
) -> None:
    if engine == "dask" and find_spec("distributed") is None:
        pytest.skip("distributed is not installed: pip install 'ttsfast[dask]'")
    with ExitStack() as session:
        if engine == "dask":
            from distributed import Client

            # Found and used by both calls, as a person's own cluster is.
            session.enter_context(Client(n_workers=1, threads_per_worker=2, dashboard_address=None))
        check_engine(engine, chunks, tmp_path)


def check_engine(engine: str, chunks: list[Chunk], tmp_path: Path) -> None:
    assert extraction.compute_missing(chunks, OPTIONS, 1, engine="serial") == 8
    others = elsewhere(chunks, tmp_path / "others")
    # One is there already, as after an interruption.
    others[1].path.write_bytes(chunks[1].path.read_bytes())
    assert extraction.compute_missing(others, OPTIONS, 2, engine=engine) == 5
    for one, other in zip(chunks, others, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()
    audio = [path for chunk in chunks for path in chunk.audio]
    audio[2] = tmp_path / "none.wav"
    found = extraction.inspect_recordings(audio, OPTIONS, 2, engine=engine)
    assert found == extraction.inspect_recordings(audio, OPTIONS, 1, engine="serial")
    assert [bool(recording.fault) for recording in found] == [path == audio[2] for path in audio]


def check_device(device: str, chunks: list[Chunk], tmp_path: Path) -> None:
    others = elsewhere(chunks, tmp_path / "others")
    extraction.compute_missing(chunks, OPTIONS, 1, engine="serial")
    assert extraction.compute_missing(others, OPTIONS, 2, device=device) == 8
    for one, other in zip(chunks, others, strict=True):
        pairs = zip(extraction.read_chunk(one), extraction.read_chunk(other), strict=True)
        for mel, found in pairs:
            assert mel.shape == found.shape
            assert np.abs(mel - found).max() <= 1e-5
    for mine, theirs in zip(extraction.read_moments(chunks), extraction.read_moments(others), strict=True):
        assert np.array_equal(mine.frames, theirs.frames)
        np.testing.assert_allclose(mine.mean, theirs.mean, atol=1e-5)


def test_a_device_computes_the_same_to_1e_5(chunks: list[Chunk], tmp_path: Path) -> None:
    # "cpu" alone would mean the workers' own way.
    check_device("cpu:0", chunks, tmp_path)


@pytest.mark.gpu
def test_a_gpu_computes_the_same_to_1e_5(chunks: list[Chunk], tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    check_device("cuda", chunks, tmp_path)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_a_recording_that_changed_is_named_by_a_worker(chunks: list[Chunk], device: str) -> None:
    changed = chunks[1].audio[1]
    changed.write_bytes(chunks[0].audio[0].read_bytes())
    with pytest.raises(InputError, match=rf"{changed.name}: changed while it was being prepared") as caught:
        extraction.compute_missing(chunks, OPTIONS, 2, device=device)
    assert "\n" not in str(caught.value)
    assert not chunks[1].path.exists()


def test_statistics_need_an_utterance(chunks: list[Chunk]) -> None:
    extraction.compute_missing(chunks, OPTIONS, 1)
    with pytest.raises(ValueError, match="no utterance is chosen"):
        combine_moments(extraction.read_moments(chunks), np.zeros(8, dtype=bool))


def test_the_engine_and_the_device_of_a_preparation_are_checked_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus", 8)
    used: list[tuple[str, str]] = []
    compute = extraction.compute_missing

    def compute_missing(*arguments: Any, engine: str, device: str) -> int:
        used.append((engine, device))
        return compute(*arguments, engine=engine, device="cpu:0")

    monkeypatch.setattr(extraction, "compute_missing", compute_missing)
    prepare_small(corpus, tmp_path / "store", engine="serial")
    assert used == [("serial", "cpu")]
    for changes, message in [({"engine": "spark"}, "unknown engine 'spark'"), ({"device": "tpu"}, "'tpu'")]:
        with pytest.raises(InputError, match=message):
            prepare_small(corpus, tmp_path / "other", **changes)
        with pytest.raises(InputError, match=message):
            append(corpus, tmp_path / "store", **changes)
