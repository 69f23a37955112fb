"""JSON in pieces: the same bytes as in one, wherever the cuts fall."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_corpus import two_shards, write_corpus

from ttsfast.data.corpus.listings import CorpusItem, Exclusion
from ttsfast.data.prepare.extraction import RecordingInfo
from ttsfast.data.prepare.prepare import fingerprint_of
from ttsfast.data.prepare.survey import SurveyedUtterance
from ttsfast.data.store import json_values
from ttsfast.data.store.json_values import list_pieces
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.utterance_table import UtteranceTable

plain = st.one_of(
    st.booleans(),
    st.integers(),
    st.text(),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
)


@given(st.lists(plain, max_size=12), st.booleans(), st.booleans())
def test_pieces_joined_are_the_whole(values: list[object], ensure_ascii: bool, sort_keys: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "BLOCK", 4)
        pieces = list(list_pieces(iter(values), ensure_ascii=ensure_ascii, sort_keys=sort_keys))
    assert "".join(pieces) == json.dumps(values, ensure_ascii=ensure_ascii, sort_keys=sort_keys)
    assert len(pieces) == 2 + -(-len(values) // 4)


def test_a_manifest_is_what_it_would_be_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = two_shards(write_corpus(tmp_path / "corpus", 40), tmp_path / "store")
    manifest = read_manifest(store)
    content = (store / NAME).read_bytes()
    values = json.loads(content)
    values.pop("manifest_sha256")
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)},\n" for k, v in values.items()]
    body = ("{\n" + "".join(lines)).encode()
    assert content == body + b'"manifest_sha256": "%s"\n}\n' % hashlib.sha256(body).hexdigest().encode()
    monkeypatch.setattr(json_values, "BLOCK", 7)
    manifest.write(tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


def test_a_fingerprint_is_the_hash_of_one_json(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [
        SurveyedUtterance(
            i, CorpusItem(f"u{i}", f"/c/{i}.wav", "«ä»"), "ä", f"{i}.wav", RecordingInfo("ab" * 32, 9), (), s
        )
        for i, s in enumerate(("train", "validation", "train", "train"))
    ]
    exclusions = [Exclusion("x", "too long", "detail"), Exclusion("y", "bad audio", "detail")]
    sources = [[f"u{i}", "«ä»", "", False, f"{i}.wav", item.split, "ab" * 32] for i, item in enumerate(items)]
    for base in ({"b": 1, "a": [None, 0.5]}, "cd" * 32):
        content = [base, sources, [["x", "too long"], ["y", "bad audio"]]]
        expected = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        for block in (1, 3, 1024):
            monkeypatch.setattr(json_values, "BLOCK", block)
            assert fingerprint_of(base, items, exclusions) == expected


def test_entries_are_joined_in_order(tmp_path: Path) -> None:
    entries = read_manifest(two_shards(write_corpus(tmp_path / "corpus", 40), tmp_path / "store")).entries
    joined = UtteranceTable.join(
        [UtteranceTable.of(entries[:3]), UtteranceTable.of([]), UtteranceTable.of(entries[3:])]
    )
    assert list(joined) == list(entries)
    assert list(joined.columns()) == list(entries.columns())
