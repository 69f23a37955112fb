"""Corpora and stores that several of these files begin with; a file that needs another one has its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_corpus import CHUNK, SHARD_FRAMES, prepare_small, two_shards, write_corpus

from ttsfast.data.prepare import extraction, writer
from ttsfast.data.store.store import Store


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks and shards from twenty utterances."""
    monkeypatch.setattr(extraction, "CHUNK", CHUNK)
    monkeypatch.setattr(writer, "SHARD_FRAMES", SHARD_FRAMES)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 20 utterances."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), 20)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 8 utterances."""
    return write_corpus(tmp_path_factory.mktemp("tiny"), 8)


@pytest.fixture(scope="module")
def tiny_store(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of ``tiny``: to be read only."""
    return Path(prepare_small(tiny, tmp_path_factory.mktemp("store")).store)


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 40 utterances."""
    return write_corpus(tmp_path_factory.mktemp("long"), 40)


@pytest.fixture(scope="module")
def pristine(long_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two shards, of ``long_corpus``: to be read only."""
    return two_shards(long_corpus, tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the pristine store, to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "store"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Of 30 utterances in one shard, open: to be read only."""
    folder = tmp_path_factory.mktemp("store")
    prepare_small(write_corpus(tmp_path_factory.mktemp("corpus"), 30), folder)
    return Store.open(folder)
