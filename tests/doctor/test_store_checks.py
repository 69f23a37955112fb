"""What is wrong with a store's features is found, with its cause."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from store_faults import STORE_FAULTS

from ttsfast.data.prepare.prepare import PrepareOptions, prepare
from ttsfast.doctor.dataset import DatasetOptions, examine_dataset

OPTIONS = PrepareOptions(jobs=1, engine="serial", validation_fraction=0.2)


def test_a_clean_store_has_no_error(spoken_corpus: Path, tmp_path: Path) -> None:
    prepare(spoken_corpus, tmp_path / "store", OPTIONS)
    diagnosis = examine_dataset(tmp_path / "store", DatasetOptions(jobs=1)).diagnosis
    assert diagnosis.kind == "store"
    assert diagnosis.counts["error"] == 0, diagnosis.findings
    assert not diagnosis.not_run


@pytest.mark.parametrize("name", STORE_FAULTS)
def test_fault_of_a_store_is_found(
    name: str, spoken_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, corpus = STORE_FAULTS[name], Path(shutil.copytree(spoken_corpus, tmp_path / "corpus"))
    with monkeypatch.context() as patch:
        fault.plant(patch)
        prepare(corpus, tmp_path / "store", OPTIONS)
    fault.later(corpus)
    first = examine_dataset(tmp_path / "store", DatasetOptions(jobs=1)).diagnosis.findings[0]
    assert (first.check, first.severity) == (fault.check, fault.severity)
    assert fault.cause in first.what
