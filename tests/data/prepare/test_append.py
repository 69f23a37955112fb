"""Appending: only what is new is computed, by the store's own rules; the old store is there until the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_corpus import RATE, contents, edit, prepare_small, write_corpus

from ttsfast.data.corpus.split import text_key
from ttsfast.data.prepare import extraction
from ttsfast.data.prepare.append import append
from ttsfast.data.prepare.survey import CorpusFaults
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError

pytestmark = pytest.mark.usefixtures("small_pieces")


def grow(corpus: Path, utterances: int) -> Path:
    """The same corpus with more utterances: the first ones are written as they were."""
    return write_corpus(corpus, utterances)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Not grown yet."""
    return write_corpus(tmp_path / "corpus", 12)


@pytest.fixture
def store(corpus: Path, tmp_path: Path) -> Path:
    return prepare_small(corpus, tmp_path / "store").store  # type: ignore[return-value]


def read(store: Path) -> dict[str, bytes]:
    opened = Store.open(store)
    return {utterance.id: utterance.mel.tobytes() for utterance in (opened[i] for i in range(len(opened)))}


def test_only_what_is_new_is_computed_and_the_rest_stays_as_it_is(corpus: Path, store: Path) -> None:
    before, files, old = read(store), contents(store), read_manifest(store)
    report = append(grow(corpus, 20), store, jobs=1)
    assert (report.utterances, report.computed, report.unchanged) == (20, 8, False)
    assert verify(store).ok
    after, manifest = read(store), read_manifest(store)
    assert {name: after[name] for name in before} == before
    assert list(after) == [f"u{n:03d}" for n in range(20)]
    assert all((store / name).read_bytes() == data for name, data in files.items() if name != NAME)
    assert manifest.history == (old.fingerprint,)
    assert manifest.fingerprint != old.fingerprint
    np.testing.assert_array_equal(manifest.mel_mean, old.mel_mean)
    np.testing.assert_array_equal(manifest.mel_std, old.mel_std)
    assert manifest.statistics_of == 12
    assert manifest.entries.split[:12] == old.entries.split
    # Each as a computation from the recording gives it.
    fresh = Store.open(store, features="on_the_fly")
    assert all(fresh[i].mel.tobytes() == after[fresh.entries.id[i]] for i in range(20))


def test_new_features_are_not_part_of_the_statistics(corpus: Path, store: Path) -> None:
    """Louder recordings: fresh statistics would be others, and verification must not ask for them."""
    grow(corpus, 20)
    for number in range(12, 20):
        wave, _ = soundfile.read(corpus / f"u{number:03d}.wav")
        soundfile.write(corpus / f"u{number:03d}.wav", wave * 2.9, RATE)
    append(corpus, store, jobs=1)
    assert verify(store).ok
    fresh = prepare_small(corpus, store.parent / "fresh").store
    assert np.abs(read_manifest(Path(fresh)).mel_mean - read_manifest(store).mel_mean).max() > 0.1


def test_a_second_append_has_nothing_to_do_and_a_third_goes_on(corpus: Path, store: Path) -> None:
    append(grow(corpus, 16), store, jobs=1)
    first = contents(store)
    assert append(corpus, store, jobs=1).unchanged
    assert contents(store) == first
    append(grow(corpus, 20), store, jobs=2)
    assert len(read_manifest(store).history) == 2
    assert read_manifest(store).statistics_of == 12
    assert verify(store).ok
    assert len(read(store)) == 20


def test_a_known_text_stays_on_its_side(corpus: Path, store: Path) -> None:
    old = read_manifest(store).entries
    held, train = old.text[old.split.index("validation")], old.text[old.split.index("train")]
    grow(corpus, 14)
    edit(corpus, lambda entries: [entries[12].update(text=held + " ."), entries[13].update(text=train)])
    # Even against the corpus's own list.
    (corpus / "validation.txt").write_text("u013\n")
    append(corpus, store, jobs=1)
    entries = read_manifest(store).entries
    assert entries.split[12:] == ["validation", "train"]
    sides = {
        key: {s for t, s in zip(entries.text, entries.split, strict=True) if text_key(t) == key}
        for key in map(text_key, entries.text)
    }
    assert all(len(found) == 1 for found in sides.values())
    assert verify(store).ok


def test_new_speakers_get_numbers_behind_the_old(corpus: Path, store: Path) -> None:
    grow(corpus, 14)
    edit(corpus, lambda entries: [entries[12].update(speaker="aaron"), entries[13].update(speaker="bob")])
    append(corpus, store, jobs=1)
    opened = Store.open(store)
    assert opened.speakers == ["ann", "bob", "aaron"]
    assert [opened.speakers[opened[i].speaker] for i in (0, 1, 12, 13)] == ["ann", "bob", "aaron", "bob"]


def test_new_faults_are_listed_and_old_ones_are_known(corpus: Path, tmp_path: Path) -> None:
    (corpus / "u002.wav").write_bytes(b"not a recording")
    store = tmp_path / "store"
    prepare_small(corpus, store, exclude_bad=True)
    before = contents(store)
    # The old fault does not stand in the way of what is new.
    grown = grow(corpus, 14)
    (grown / "u002.wav").write_bytes(b"not a recording")
    assert append(grown, store, jobs=1).computed == 2
    edit(grow(corpus, 16), lambda entries: entries[14].update(text="ψ"))
    (grown / "u002.wav").write_bytes(b"not a recording")
    before = contents(store)
    with pytest.raises(CorpusFaults, match=r"1 faults \(1 x unknown symbol\).*u014.*--exclude-bad"):
        append(corpus, store, jobs=1)
    assert contents(store) == before
    report = append(corpus, store, exclude_bad=True, jobs=1)
    assert report.computed == 1
    assert sorted((e.id, e.reason) for e in report.exclusions) == [
        ("u002", "bad audio"),
        ("u014", "unknown symbol"),
    ]
    # Mended, it is one more utterance.
    write_corpus(corpus, 16)
    edit(corpus, lambda entries: entries[14].update(text="ψ"))
    assert append(corpus, store, jobs=1).utterances == 16 - 1
    assert [e.id for e in read_manifest(store).exclusions] == ["u014"]


def remove_recording(corpus: Path) -> None:
    (corpus / "u003.wav").unlink()


def replace_recording(corpus: Path) -> None:
    shutil.copy(corpus / "u004.wav", corpus / "u003.wav")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: edit(c, lambda e: e.pop(3)), "1 utterances of the store are gone.*'u003'; put"),
        (remove_recording, r"1 utterances of the store are gone.*'u003' \(.*no recording 'u003\.wav'"),
        (
            lambda c: edit(c, lambda e: e[3].update(text=5)),
            r"'u003' \(metadata\.jsonl:4: 'text' must",
        ),
        (replace_recording, r"u003\.wav: is not the recording that the store has"),
        (lambda c: edit(c, lambda e: e[3].update(text="other")), "the text of 'u003' was 'four.*'other'"),
        (lambda c: edit(c, lambda e: e[3].update(speaker="eve")), "the speaker of 'u003' was 'bob'"),
        (lambda c: edit(c, lambda e: e[3].update(truncated=False)), "'truncated' of 'u003' was True"),
    ],
)
def test_what_the_store_has_must_be_as_it_was(
    corpus: Path, store: Path, change: Callable[[Path], object], message: str
) -> None:
    grow(corpus, 16)
    change(corpus)
    before = contents(store)
    with pytest.raises(InputError, match=message) as error:
        append(corpus, store, jobs=1)
    assert "--force" in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(store) == before


def test_order_in_the_listing_does_not_matter_to_what_is_there(corpus: Path, store: Path) -> None:
    before = read(store)
    grow(corpus, 16)
    edit(corpus, lambda entries: entries.reverse())
    append(corpus, store, jobs=1)
    assert list(read(store)) == [*before, "u015", "u014", "u013", "u012"]
    assert verify(store).ok


def test_other_features_are_refused(corpus: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(corpus, 16)
    monkeypatch.setattr(extraction, "VERSION", extraction.VERSION + 1)
    with pytest.raises(InputError, match=r"cannot be appended to: features_version is .*--force"):
        append(corpus, store, jobs=1)


def test_no_store_and_damaged_stores_are_refused(corpus: Path, store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no complete store"):
        append(corpus, tmp_path / "nothing", jobs=1)
    shard = next(iter(store.glob("mel-*")))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="the manifest says"):
        append(grow(corpus, 16), store, jobs=1)


def test_prepare_says_what_an_appended_store_is(corpus: Path, store: Path) -> None:
    with pytest.raises(InputError, match=r"4 utterances are new.*ttsfast append"):
        prepare_small(grow(corpus, 16), store)
    append(corpus, store, jobs=1)
    with pytest.raises(InputError, match="its last 4 utterances were appended"):
        prepare_small(corpus, store)
    prepare_small(corpus, store, force=True)
    prepare_small(corpus, store.parent / "fresh")
    assert contents(store) == contents(store.parent / "fresh")


def test_readers_of_the_old_store_go_on(corpus: Path, store: Path) -> None:
    opened, before = Store.open(store), read(store)
    append(grow(corpus, 20), store, jobs=1)
    assert {u.id: u.mel.tobytes() for u in (opened[i] for i in range(len(opened)))} == before


def test_findings_are_of_the_whole(corpus: Path, store: Path) -> None:
    edit(grow(corpus, 14), lambda entries: entries[13].update(text="eeeeeeee"))
    findings = {one.check: one for one in append(corpus, store, jobs=1).findings}
    assert findings["odd texts"].what == "1 of 14 texts has a letter over and over"
    assert findings["odd texts"].ids == ("u013",)
