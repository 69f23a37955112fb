"""A tiny corpus, its store and a tiny model: enough of each for the trainer to be itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TinyModel

from ttsfast.config import Config, config_from_dict
from ttsfast.data.corpus.audio import write_wav
from ttsfast.data.prepare.prepare import PrepareOptions, prepare

SAMPLE_RATE = 22050


def write_corpus(folder: Path, utterances: int = 20) -> Path:
    """Tones whose length follows the text: LJ Speech layout."""
    (folder / "wavs").mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines = []
    for number in range(utterances):
        words = " ".join(generator.choice(["ab", "cd", "e"], size=2 + number % 5))
        seconds = 0.15 + 0.02 * len(words)
        time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        wave = 0.3 * np.sin(2 * np.pi * (200 + 30 * number) * time) + 0.01 * generator.normal(size=time.size)
        write_wav(folder / "wavs" / f"u{number:02d}.wav", wave.astype(np.float32), SAMPLE_RATE)
        lines.append(f"u{number:02d}|{words} {number % 3}|{words} {number % 3}\n")
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here; ``@pytest.mark.pictures`` keeps it."""
    if "pictures" not in request.keywords:
        monkeypatch.setattr("ttsfast.training.validation._show", lambda *_: None)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    corpus = write_corpus(folder / "corpus")
    prepare(corpus, folder / "store", PrepareOptions(validation_fraction=0.2, jobs=1))
    return folder / "store"


@pytest.fixture(scope="session")
def longer_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of :func:`store_path` with ten utterances more."""
    return write_corpus(tmp_path_factory.mktemp("longer") / "corpus", 30)


@pytest.fixture(scope="session")
def make_config_of(store_path: Path) -> Callable[..., Config]:
    """What :func:`make_config` is, for fixtures that live longer than a test: of the run folder they name."""

    def make(run_folder: Path, **changes: Any) -> Config:
        values: dict[str, dict[str, Any]] = {
            "model": {"size": "nano"},
            "training": {
                "run_folder": str(run_folder),
                "max_steps": 6,
                "warmup_steps": 2,
                "learning_rate": 1e-2,
                "gradient_accumulation_steps": 1,
                "val_step": 3,
                "val_utterances": 2,
                "save_step": 2,
                "log_step": 2,
                "convergence_window": 32,
                # It takes longer than these few steps, and would refuse a tiny model that says nothing.
                "preflight": False,
            },
            "data": {"store": str(store_path), "batch_size": 4, "num_workers": 1},
        }
        for name, value in changes.items():
            section, key = name.split("__")
            values[section][key] = value
        return config_from_dict(values)

    return make


@pytest.fixture
def make_config(make_config_of: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    """A configuration for a few steps on the tiny store; keyword arguments are ``section__key=value``."""
    return partial(make_config_of, tmp_path / "run")


@pytest.fixture(scope="session")
def make_model(store_path: Path) -> Callable[[], TinyModel]:
    """A freshly seeded tiny model for the store's symbols."""

    def make() -> TinyModel:
        from ttsfast.data.store.store import Store

        torch.manual_seed(1)
        return TinyModel(len(Store.open(store_path).symbols))

    return make
