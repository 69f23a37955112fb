"""What computed the features is not part of the fingerprint: stores are the same but for rounding, and one
means may begin what another ends, and append to it.

Mutants that these tests were seen to kill: the engine among the options that shape a store; log-mels of a
device to another base.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_corpus import contents, prepare_small, write_corpus

from ttsfast import native
from ttsfast.data.prepare import extraction
from ttsfast.data.prepare.append import append
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify

pytestmark = pytest.mark.usefixtures("small_pieces")

Compute = Callable[..., int]
# Torch on the processor: all that a GPU does but for the bits of its arithmetic. "cpu" alone would be the
# workers' own way.
DEVICE = "cpu:0"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", 12)


def on_a_device(monkeypatch: pytest.MonkeyPatch, most: int = 1 << 30) -> None:
    """Have a device compute; after ``most`` chunks the run is interrupted."""
    compute: Compute = extraction.compute_missing

    def computed(chunks: list[Any], *arguments: Any, engine: str, device: str) -> int:
        found = compute(chunks[:most], *arguments, engine=engine, device=DEVICE)
        if most < len(chunks):
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(extraction, "compute_missing", computed)


def without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "core", None)


def assert_same_but_for_rounding(one: Store, other: Store) -> None:
    """And one of the two may have been read by the other's run."""
    assert one.fingerprint == other.fingerprint
    assert one.manifest.options == other.manifest.options
    assert list(one.entries.id) == list(other.entries.id)
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_allclose(one.mel_mean, other.mel_mean, atol=1e-5)
    equal = total = 0
    for index in range(len(one)):
        left, right = one[index], other[index]
        np.testing.assert_array_equal(left.text, right.text)
        # 1e-5 in the logarithm, in the statistics as much again, and a step of float16.
        step = np.spacing(np.maximum(np.abs(left.mel), np.abs(right.mel))).astype(np.float32)
        far = np.abs(left.mel.astype(np.float32) - right.mel.astype(np.float32)) - step
        assert (far <= 3e-5 / one.mel_std * (1 + np.abs(left.mel))).all()
        equal, total = equal + (left.mel == right.mel).sum(), total + left.mel.size
    assert equal > 0.95 * total


@pytest.mark.parametrize("way", [on_a_device, without_the_extension])
def test_another_way_to_the_features_makes_the_same_store(
    corpus: Path, tmp_path: Path, way: Callable[[pytest.MonkeyPatch], None]
) -> None:
    prepare_small(corpus, tmp_path / "plain", engine="serial")
    with pytest.MonkeyPatch.context() as patch:
        way(patch)
        prepare_small(corpus, tmp_path / "other", engine="serial")
    assert_same_but_for_rounding(Store.open(tmp_path / "plain"), Store.open(tmp_path / "other"))
    made = contents(tmp_path / "other")
    # There is nothing to do, and nothing is done.
    prepare_small(corpus, tmp_path / "other", engine="joblib", jobs=2)
    assert contents(tmp_path / "other") == made
    verify(tmp_path / "other")


def test_a_run_on_a_device_may_be_finished_without_one(corpus: Path, tmp_path: Path) -> None:
    prepare_small(corpus, tmp_path / "plain")
    with pytest.MonkeyPatch.context() as patch:
        on_a_device(patch, most=1)
        with pytest.raises(KeyboardInterrupt):
            prepare_small(corpus, tmp_path / "mixed")
    begun: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        compute: Compute = extraction.compute_missing

        def counted(*arguments: Any, **options: Any) -> int:
            begun.append(compute(*arguments, **options))
            return begun[-1]

        patch.setattr(extraction, "compute_missing", counted)
        prepare_small(corpus, tmp_path / "mixed")
    # What the device computed was kept.
    assert 0 < begun[0] < 12
    assert_same_but_for_rounding(Store.open(tmp_path / "plain"), Store.open(tmp_path / "mixed"))
    verify(tmp_path / "mixed")


def test_what_a_device_made_is_appended_to_without_one(corpus: Path, tmp_path: Path) -> None:
    larger = Path(shutil.copytree(corpus, tmp_path / "larger"))
    listing = corpus / "metadata.jsonl"
    lines = listing.read_text().splitlines(keepends=True)
    listing.write_text("".join(lines[:9]))
    with pytest.MonkeyPatch.context() as patch:
        on_a_device(patch)
        prepare_small(corpus, tmp_path / "store")
    before = contents(tmp_path / "store")
    append(larger, tmp_path / "store")
    after = contents(tmp_path / "store")
    assert all(after[name] == content for name, content in before.items() if name.startswith("mel-"))
    assert len(Store.open(tmp_path / "store")) == 12
    verify(tmp_path / "store")
