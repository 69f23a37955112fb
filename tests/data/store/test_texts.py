"""Sentences: the store's own, or those that the listing of its corpus has."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ttsfast.data.corpus.text import TextFrontend
from ttsfast.data.store.texts import reference_texts, written_texts
from ttsfast.errors import InputError


def test_the_sentences_of_a_store_of_phonemes_are_the_corpus_own(tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "a.wav").touch()
    (tmp_path / "metadata.csv").write_text("a|Dr. No|Doctor No\n")
    store = SimpleNamespace(
        path=tmp_path / "store",
        entries=[SimpleNamespace(id="a", text="dɒktə nəʊ")],
        frontend=TextFrontend("en"),
        manifest=SimpleNamespace(options={"layout": "ljspeech"}, corpus=str(tmp_path)),
    )
    assert reference_texts(store, [0], tmp_path) == {"a": "dɒktə nəʊ"}  # type: ignore[arg-type]
    store.frontend = SimpleNamespace(phonemes=True)
    assert written_texts(store, tmp_path) == written_texts(store) == {"a": "Doctor No"}  # type: ignore[arg-type]
    store.manifest.corpus = str(tmp_path / "gone")
    # It was there, and is missed only by those who name it.
    assert written_texts(store) == {}  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such corpus folder"):
        written_texts(store, tmp_path / "gone")  # type: ignore[arg-type]
    assert reference_texts(store, [0], tmp_path) == {"a": "Doctor No"}  # type: ignore[arg-type]
    with pytest.raises(InputError, match="name its folder with --corpus"):
        reference_texts(store, [0], tmp_path / "gone")  # type: ignore[arg-type]
    (tmp_path / "wavs" / "b.wav").touch()
    (tmp_path / "metadata.csv").write_text("b|Other|Other\n")
    with pytest.raises(InputError, match="has no utterance 'a'"):
        reference_texts(store, [0], tmp_path)  # type: ignore[arg-type]
