"""Recordings are found under the names that people have for them, and never outside of what was named."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from ttsfast.data.corpus.listings import Corpus, read_corpus
from ttsfast.errors import InputError


def corpus_of(root: Path, *lines: str, recordings: tuple[str, ...] = ()) -> Path:
    for path, content in [("metadata.csv", "\n".join(lines)), *((name, "") for name in recordings)]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


def details(corpus: Corpus) -> list[str]:
    return [exclusion.detail for exclusion in corpus.exclusions]


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
def test_either_spelling_of_a_name_is_found(tmp_path: Path, listed: str, on_disk: str) -> None:
    def spelt(form: str) -> str:
        return unicodedata.normalize(form, "café/é")  # type: ignore[arg-type]

    root = corpus_of(tmp_path, f"{spelt(listed)}|hello", recordings=(f"wavs/{spelt(on_disk)}.wav",))
    assert [item.audio for item in read_corpus(root).items] == [str(root / f"wavs/{spelt(on_disk)}.wav")]


def test_of_two_spellings_the_listed_one_is_taken(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    recordings = tuple(f"wavs/{name}.wav" for name in names)
    root = corpus_of(tmp_path, f"{names[1]}.wav|hello", recordings=recordings)
    assert [Path(item.audio).stem for item in read_corpus(root).items] == [names[1]]


def test_what_else_there_is_of_a_name_is_said(tmp_path: Path) -> None:
    lines = ("good|one", "a|two", "b.wav|three", "sub\\c.wav|four", "d|five")
    recordings = ("wavs/good.wav", "wavs/a.m4a", "b.flac", "sub/c.wav")
    corpus = read_corpus(corpus_of(tmp_path, *lines, recordings=recordings))
    found = details(corpus)
    assert "'wavs/a.m4a' is of a format that is not read; convert it: ffmpeg -i a.m4a a.wav" in found[0]
    assert "there is no recording 'b.wav', but 'b.flac' is there; correct the listing" in found[1]
    assert r"write / for \ in its path" in found[2]
    assert "there is no recording 'wavs/d'; add it" in found[3]


def test_the_first_readable_suffix_of_an_id_is_taken(tmp_path: Path) -> None:
    root = corpus_of(tmp_path, "a|one", recordings=("wavs/a.mp3", "wavs/a.WAV", "wavs/a.m4a"))
    assert [Path(item.audio).name for item in read_corpus(root).items] == ["a.WAV"]


def test_absolute_paths_in_the_corpus_are_read(tmp_path: Path) -> None:
    root = tmp_path / "c"
    corpus_of(root, f"{root}/wavs/a.wav|anna|hello there", recordings=("wavs/a.wav",))
    (tmp_path / "link").symlink_to(root)
    for folder in (root, tmp_path / "link"):
        (item,) = read_corpus(folder).items
        assert (item.id, item.audio) == ("wavs_a", f"{folder}/wavs/a.wav")


def test_other_folders_are_read_where_they_are_allowed(tmp_path: Path) -> None:
    root, other = tmp_path / "c", tmp_path / "other"
    lines = ("in|one", f"{other}/a.wav|two", "../other/b.wav|three", "linked|four")
    corpus_of(root, *lines, recordings=("wavs/in.wav",))
    corpus_of(other, recordings=("a.wav", "b.wav", "c.wav"))
    (root / "wavs/linked.wav").symlink_to(other / "c.wav")
    corpus = read_corpus(root)
    assert [item.id for item in corpus.items] == ["in"]
    assert {exclusion.reason for exclusion in corpus.exclusions} == {"path outside the corpus"}
    assert all(f"--allow-root {other}" in detail for detail in details(corpus))
    corpus = read_corpus(root, allow_roots=[other])
    assert [corpus.relative(item.audio) for item in corpus.items[::3]] == ["wavs/in.wav", "wavs/linked.wav"]
    assert len(corpus.items) == 4
    with pytest.raises(InputError, match=r"--allow-root .*none: no such folder"):
        read_corpus(root, allow_roots=[tmp_path / "none"])


def test_a_folder_that_is_linked_into_the_corpus_is_part_of_it(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", "a|one", "b|two", "sub/d|three")
    corpus_of(tmp_path / "big", recordings=("a.wav", "sub/c.wav"))
    corpus_of(tmp_path / "secret", recordings=("b.wav", "d.wav"))
    (root / "wavs").symlink_to(tmp_path / "big")
    (tmp_path / "big/b.wav").symlink_to(tmp_path / "secret/b.wav")
    (tmp_path / "big/sub/d.wav").symlink_to(tmp_path / "secret/d.wav")
    corpus = read_corpus(root)
    assert [item.audio for item in corpus.items] == [str(root / "wavs/a.wav")]
    assert [exclusion.reason for exclusion in corpus.exclusions] == ["path outside the corpus"] * 2


def test_a_link_to_a_folder_above_opens_nothing(tmp_path: Path) -> None:
    root = corpus_of(tmp_path / "c", "a|one", "x/secret|two", recordings=("wavs/a.wav",))
    corpus_of(tmp_path, recordings=("secret.wav",))
    (root / "x").symlink_to(tmp_path)
    corpus = read_corpus(root)
    assert [(e.id, e.reason) for e in corpus.exclusions] == [("x/secret", "path outside the corpus")]


def test_a_path_that_climbs_does_so_from_its_listing(tmp_path: Path) -> None:
    """``wavs/../a.wav`` would be there."""
    root = corpus_of(tmp_path / "c", "../a.wav|one", "b|two", recordings=("a.wav", "wavs/b.wav"))
    corpus = read_corpus(root)
    assert [item.id for item in corpus.items] == ["b"]
    assert corpus.exclusions[0].reason == "path outside the corpus"
