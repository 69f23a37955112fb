"""What the tests of the convergence bench train on."""

from __future__ import annotations

import numpy as np
import pytest

from ttsfast.benchmarks.data_corpus import write_corpus
from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.data.store.store import Store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("convergence")
    write_corpus(folder / "corpus", np.linspace(0.25, 0.6, 12))
    prepare(folder / "corpus", folder / "store", PrepareOptions(jobs=1, validation_fraction=0.2))
    return Store.open(folder / "store")
