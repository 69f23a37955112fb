"""A corpus drawn from sine waves, and a model that knows it by heart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from parrot import Corpus, Parrot, make_corpus, voice_of
from tiny_model import TinyModel
from torch import nn

from ttsfast.data.loading.batch import Batch, collate
from ttsfast.evaluation.evaluate import evaluate
from ttsfast.evaluation.result import Evaluation
from ttsfast.models.voice import Voice

TEXTS = [
    "the first sentence",
    "a dog ran",
    "come home now",
    "one more is read here",
    "two by two",
    "nothing",
    "a much longer sentence that goes on and on",
    "the cat sat",
    "well then",
    "short one",
]


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return make_corpus(TEXTS)


@pytest.fixture
def untrained(corpus: Corpus) -> nn.Module:
    return TinyModel(len(corpus.symbols))


@pytest.fixture
def parrot(corpus: Corpus) -> Parrot:
    return Parrot(corpus.utterances)


@pytest.fixture
def batches(corpus: Corpus) -> Callable[[list[list[int]]], list[Batch]]:
    """Batches of the utterances with the given numbers."""

    def build(rows: list[list[int]]) -> list[Batch]:
        return [collate([corpus[i] for i in row], pad_value=corpus.silence) for row in rows]

    return build


@pytest.fixture
def voice(corpus: Corpus, parrot: Parrot) -> Voice:
    return voice_of(corpus, parrot)


@pytest.fixture(scope="session")
def evaluation(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Of a voice whose every value is off by 0.1. Shared: change copies of it only."""
    folder = tmp_path_factory.mktemp("corpus")
    corpus.write_wavs(folder)
    model = Parrot(corpus.utterances)
    model.offset = 0.1
    return evaluate(
        voice_of(corpus, model),
        corpus,
        untrained=TinyModel(len(corpus.symbols)),
        samples=2,
        worst=1,
        copy_synthesis_utterances=2,
        batch_size=3,
        corpus=folder,
    )
