"""The licence of a corpus: carried by its store and by every voice of it, and no part of a store without."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_corpus import options, prepare_small

from ttsfast.data.prepare.append import append
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError
from ttsfast.models.voice_info import VoiceInfo


def test_a_licence_goes_from_the_corpus_into_the_voice(tiny: Path, tmp_path: Path) -> None:
    prepare_small(tiny, tmp_path, licence="CC0-1.0")
    assert append(tiny, tmp_path).unchanged
    info = VoiceInfo.of_store(Store.open(tmp_path))
    assert VoiceInfo.from_dict(info.to_dict(), "here").licence == "CC0-1.0"
    with pytest.raises(InputError, match=r"licence was 'CC0-1\.0', is 'MIT'"):
        prepare_small(tiny, tmp_path, licence="MIT")


def test_a_store_without_one_says_nothing_of_it(tiny_store: Path) -> None:
    store = Store.open(tiny_store)
    assert store.licence == ""
    assert "licence" not in store.manifest.options
    assert "licence" not in VoiceInfo.of_store(store).to_dict()


def test_a_licence_is_a_line() -> None:
    with pytest.raises(InputError, match="must be one line of text"):
        options(licence="CC0\nand more")
