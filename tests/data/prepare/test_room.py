"""A corpus that does not fit the disk is refused before its features are computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_corpus import prepare_small
from small_disk import leave

from ttsfast.data.store.store import Store
from ttsfast.errors import InputError


def test_a_store_that_does_not_fit_is_not_begun(
    tiny: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tiny_store)
    # Float32 while they are computed, float16 in the shards.
    needed = int(store.frames.sum()) * store.contract.n_mels * (4 + 2)
    written = sum(path.stat().st_size for path in tiny_store.glob("*.safetensors"))
    assert written / 2 < needed / 3 < written
    leave(needed - 1, monkeypatch)
    with pytest.raises(
        InputError, match=r"preparing the corpus takes about .* GiB are free there; make room"
    ):
        prepare_small(tiny, tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*.safetensors"))
    leave(needed, monkeypatch)
    assert prepare_small(tiny, tmp_path / "store").fingerprint == store.fingerprint
    leave(0, monkeypatch)
    assert prepare_small(tiny, tmp_path / "store").unchanged
