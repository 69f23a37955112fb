"""Corpus layouts: what each line gives, and a reason and place for whatever is left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttsfast.data.corpus.listings import Corpus, count_exclusions, read_corpus, safe_id
from ttsfast.errors import InputError


def make(root: Path, listing: str, content: str | bytes, recordings: tuple[str, ...] = ()) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / listing).write_bytes(content.encode() if isinstance(content, str) else content)
    for recording in recordings:
        (root / recording).parent.mkdir(parents=True, exist_ok=True)
        (root / recording).write_bytes(b"RIFF")
    return root


def faults(corpus: Corpus) -> list[tuple[str, str]]:
    assert all("\n" not in exclusion.detail and exclusion.detail for exclusion in corpus.exclusions)
    return [(exclusion.id, exclusion.reason) for exclusion in corpus.exclusions]


def test_ljspeech_takes_the_normalised_text_where_there_is_one(tmp_path: Path) -> None:
    make(tmp_path, "metadata.csv", 'a|In 1492|In fourteen\nb|He said "yes"|\n', ("wavs/a.wav", "wavs/b.flac"))
    corpus = read_corpus(tmp_path)
    assert corpus.layout == "ljspeech"
    assert [(i.id, i.text, Path(i.audio).name, i.speaker, i.split, i.line) for i in corpus.items] == [
        ("a", "In fourteen", "a.wav", "", None, 1),
        ("b", 'He said "yes"', "b.flac", "", None, 2),
    ]
    assert corpus.exclusions == ()


def test_ljspeech_with_two_columns_throughout(tmp_path: Path) -> None:
    make(tmp_path, "metadata.csv", "a|one\nb|two\nc|three|more\n", ("wavs/a.wav", "wavs/b.wav", "wavs/c.wav"))
    corpus = read_corpus(tmp_path)
    assert [item.text for item in corpus.items] == ["one", "two"]
    assert faults(corpus) == [("metadata.csv:3", "malformed line")]


@pytest.mark.parametrize("listing", ["metadata.csv", "filelist.txt"])
def test_multispeaker_is_known_by_its_paths(tmp_path: Path, listing: str) -> None:
    make(tmp_path, listing, "p1/a.wav|p1|one\np2/a.WAV|p2|two\n", ("p1/a.wav", "p2/a.WAV"))
    corpus = read_corpus(tmp_path)
    assert corpus.layout == "multispeaker"
    assert [(i.id, i.speaker, i.text) for i in corpus.items] == [("p1_a", "p1", "one"), ("p2_a", "p2", "two")]


def test_json_lines_take_every_key(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"audio": "x/a.wav", "text": "one"},
        {"audio": "x/b.wav", "text": "سلام", "speaker": "p", "id": "ب-2", "truncated": True},
    ]
    make(tmp_path, "data.jsonl", "\n".join(map(json.dumps, rows)), ("x/a.wav", "x/b.wav"))
    corpus = read_corpus(tmp_path)
    assert corpus.layout == "jsonl"
    assert [(i.id, i.text, i.speaker, i.truncated) for i in corpus.items] == [
        ("x_a", "one", "", False),
        ("ب-2", "سلام", "p", True),
    ]


def test_bom_crlf_and_blank_lines_mean_nothing(tmp_path: Path) -> None:
    content = "\ufeffa|one|one\r\n\r\n  \nb|two|two\r\n".encode()
    corpus = read_corpus(make(tmp_path, "metadata.csv", content, ("wavs/a.wav", "wavs/b.wav")))
    assert [(item.id, item.text, item.line) for item in corpus.items] == [("a", "one", 1), ("b", "two", 4)]


def test_every_fault_of_a_line_has_its_reason_place_and_remedy(tmp_path: Path) -> None:
    lines = [
        "good|one|one",
        "none|two|two",
        "good|three|three",
        "blank| | ",
        "short|four",
        "long|five|five|five",
        "|six|six",
        "../out|seven|seven",
        "/abs|eight|eight",
        "n" * 5000 + "|nine|nine",
        "nul\0|ten|ten",
    ]
    make(
        tmp_path / "c",
        "metadata.csv",
        "\n".join(lines),
        ("wavs/good.wav", "wavs/blank.wav", "wavs/short.wav"),
    )
    make(tmp_path, "out.wav", "")
    corpus = read_corpus(tmp_path / "c")
    assert [item.id for item in corpus.items] == ["good"]
    assert faults(corpus) == [
        ("none", "missing audio"),
        ("good", "duplicate id"),
        ("blank", "empty text"),
        ("metadata.csv:5", "malformed line"),
        ("metadata.csv:6", "malformed line"),
        ("metadata.csv:7", "malformed line"),
        ("../out", "path outside the corpus"),
        ("/abs", "path outside the corpus"),
        ("n" * 5000, "missing audio"),
        ("'nul\\x00'", "missing audio"),
    ]
    details = [exclusion.detail for exclusion in corpus.exclusions]
    assert all(detail.startswith(f"metadata.csv:{line}: ") for line, detail in enumerate(details, start=2))
    assert "'wavs/none'; add it" in details[0]
    assert "line 1 has the id 'good' too" in details[1]
    assert "has 2 columns, expected 3 (ID|text|normalised)" in details[3]
    assert count_exclusions(corpus.exclusions) == {
        "missing audio": 3,
        "malformed line": 3,
        "path outside the corpus": 2,
        "duplicate id": 1,
        "empty text": 1,
    }


@pytest.mark.parametrize("layout", ["ljspeech", "multispeaker", "jsonl"])
def test_no_path_leaves_the_corpus_folder(tmp_path: Path, layout: str) -> None:
    make(tmp_path, "secret.wav", "x")
    root = tmp_path / "c"
    make(root, "unused", "", ("wavs/in.wav",))
    (root / "wavs/link.wav").symlink_to(tmp_path / "secret.wav")
    (root / "wavs/inner.wav").symlink_to(root / "wavs/in.wav")
    if layout == "ljspeech":
        names = ["in", "../../secret", "link", "inner"]
        make(root, "metadata.csv", "".join(f"{name}|{name}|{name}\n" for name in names))
    else:
        paths = [
            "wavs/in.wav",
            "wavs/../../secret.wav",
            "wavs/link.wav",
            "wavs/inner.wav",
            str(tmp_path / "secret.wav"),
        ]
        if layout == "jsonl":
            make(
                root,
                "metadata.jsonl",
                "".join(json.dumps({"audio": p, "text": f"at {p} it is"}) + "\n" for p in paths),
            )
        else:
            make(root, "metadata.csv", "".join(f"{path}|s|at {path} it is\n" for path in paths))
    corpus = read_corpus(root)
    assert [Path(item.audio).name for item in corpus.items] == ["in.wav", "inner.wav"]
    assert {reason for _, reason in faults(corpus)} == {"path outside the corpus"}
    assert len(corpus.exclusions) == (2 if layout == "ljspeech" else 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "not a JSON object"),
        ('{"audio": "a.wav"}', "no key 'text'"),
        ('{"text": "t"}', "no key 'audio'"),
        ('{"audio": "a.wav", "text": 3}', "'text' must be of type str"),
        ('{"audio": "a.wav", "text": "t", "truncated": "no"}', "'truncated' must be of type bool"),
        ('{"audio": "a.wav", "text": "t", "truncted": true}', "unknown key 'truncted'"),
        ('{"audio": "a.wav", "text": "t", "id": " "}', "'id' is empty"),
        ('{"audio": "", "text": "t"}', "'audio' is empty"),
        ('{"audio": "a.wav", "text": "\\ud800"}', "lone surrogate"),
        ('{"audio": "a.wav", "text": "t", "\\ud800": 1}', "unknown key"),
    ],
)
def test_malformed_json_lines(tmp_path: Path, line: str, message: str) -> None:
    good = json.dumps({"audio": "a.wav", "text": "t"})
    corpus = read_corpus(make(tmp_path, "metadata.jsonl", f"{good}\n{line}\n", ("a.wav",)))
    assert len(corpus.items) == 1
    assert faults(corpus) == [("metadata.jsonl:2", "malformed line")]
    assert message in corpus.exclusions[0].detail
    corpus.exclusions[0].detail.encode()


def test_multispeaker_lines_need_path_and_speaker(tmp_path: Path) -> None:
    lines = "a.wav|s|t\na.wav||t\n|s|t\nb.wav|t\na.wav|s|t\n"
    corpus = read_corpus(make(tmp_path, "metadata.csv", lines, ("a.wav",)), "multispeaker")
    reasons = [reason for _, reason in faults(corpus)]
    assert reasons == ["malformed line"] * 3 + ["duplicate id"]


def test_the_corpus_may_hold_out_its_own(tmp_path: Path) -> None:
    names = ("x/a", "x/b", "x/c", "x/d")
    listing = "".join(f"{name}.wav|s|the text of {name}\n" for name in names) + "x/e.wav|s|text\n"
    make(tmp_path, "metadata.csv", listing, tuple(f"{name}.wav" for name in names))
    # By path, by id, one whose recording is missing, one unknown.
    make(tmp_path, "validation.txt", "\ufeffx/b.wav\nx_d\n\nx/e.wav\nnobody\n")
    corpus = read_corpus(tmp_path)
    assert [item.split for item in corpus.items] == ["train", "validation", "train", "validation"]
    assert faults(corpus) == [("x/e.wav", "missing audio"), ("nobody", "unknown held-out id")]
    assert corpus.exclusions[1].detail.startswith("validation.txt:5: ")
    # What is in both reports and does not choose.
    make(tmp_path, "test.txt", "x_a\nx_b\nnone\n")
    corpus = read_corpus(tmp_path)
    assert [item.split for item in corpus.items] == ["test", "test", "train", "validation"]
    assert corpus.exclusions[2].detail.startswith("test.txt:3: ")


def test_listings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such corpus folder"):
        read_corpus(tmp_path / "none")
    with pytest.raises(InputError, match="holds no listing"):
        read_corpus(tmp_path)
    with pytest.raises(InputError, match="unknown corpus layout 'csv'"):
        read_corpus(tmp_path, "csv")
    make(tmp_path, "corpus.json", '[\n {"audio": "wavs/b.wav", "text": "two"}\n]\n')
    with pytest.raises(InputError, match=r"corpus\.json is one JSON array: write an object a line"):
        read_corpus(tmp_path)
    make(tmp_path, "metadata.csv", b"\nb|tw\xf6|tw\xf6\nc|\xfc|\xfc\n", ("wavs/b.wav",))
    with pytest.raises(InputError, match=r"metadata\.csv:2: is not UTF-8 \(byte 5\).*no line"):
        read_corpus(tmp_path)
    for encoding in ("utf-16", "utf-16-be"):
        content = "\ufeffa|one|one\nb|two|two\n" if encoding == "utf-16-be" else "a|one|one\nb|two|two\n"
        with pytest.raises(InputError, match=r"metadata\.csv:1: is not UTF-8 but UTF-16"):
            read_corpus(make(tmp_path, "metadata.csv", content.encode(encoding)))
    with pytest.raises(InputError, match=r"holds no listing .* of layout 'jsonl'"):
        read_corpus(tmp_path, "jsonl")
    make(tmp_path, "metadata.jsonl", "")
    with pytest.raises(InputError, match=r"several listings \(metadata\.csv, metadata\.jsonl\)"):
        read_corpus(tmp_path)


def test_every_line_that_is_not_utf8_is_a_fault_of_its_own(tmp_path: Path) -> None:
    content = "a|one|one\nb|zwö|zwö\nc|three|three\nd|fünf|fünf\n".encode("latin-1")
    make(tmp_path, "metadata.csv", content, tuple(f"wavs/{name}.wav" for name in "abcd"))
    corpus = read_corpus(tmp_path)
    assert [(item.id, item.line) for item in corpus.items] == [("a", 1), ("c", 3)]
    assert faults(corpus) == [("metadata.csv:2", "not UTF-8"), ("metadata.csv:4", "not UTF-8")]
    assert corpus.exclusions[1].detail.startswith("metadata.csv:4: is not UTF-8 (byte 4)")
    make(tmp_path, "validation.txt", b"c\n\xff\n")
    corpus = read_corpus(tmp_path)
    assert [item.split for item in corpus.items] == ["train", "validation"]
    assert faults(corpus)[2:] == [("validation.txt:2", "not UTF-8")]


def test_a_layout_that_is_asked_for_is_not_guessed(tmp_path: Path) -> None:
    make(tmp_path, "metadata.csv", "a.wav|s|text\n", ("wavs/a.wav.wav", "a.wav"))
    assert read_corpus(tmp_path, "ljspeech").items[0].text == "text"
    assert read_corpus(tmp_path).items[0].speaker == "s"
    make(tmp_path, "notes.jsonl", "")
    assert read_corpus(tmp_path).layout == "multispeaker"


def test_every_fault_is_told_even_when_nothing_is_left(tmp_path: Path) -> None:
    corpus = read_corpus(make(tmp_path, "metadata.csv", "a|one|one\nb|two|two\nc|\n"))
    assert corpus.items == ()
    assert [reason for _, reason in faults(corpus)] == ["missing audio", "missing audio", "malformed line"]


def test_an_empty_listing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the listing is empty"):
        read_corpus(make(tmp_path, "metadata.csv", "\n \n"))


@given(st.text(min_size=1, max_size=300))
def test_ids_are_safe_as_file_names(name: str) -> None:
    cleaned = safe_id(name)
    assert cleaned not in ("", ".", "..")
    assert not set(cleaned) & set('/\\\0 \n:*?"<>|')
    assert not cleaned.startswith((".", "-"))
    assert 0 < len(cleaned.encode()) <= 120
    assert safe_id(cleaned) == cleaned


def test_unsafe_ids_are_made_safe_or_reported_as_equal(tmp_path: Path) -> None:
    assert safe_id("LJ001-0001") == "LJ001-0001"
    assert safe_id("x" * 200) != safe_id("x" * 199 + "y")
    recordings = ("wavs/a b.wav", "wavs/a_b.wav", "wavs/sub/c.wav", "wavs/-d.wav")
    make(tmp_path, "metadata.csv", "a b|t|t\na_b|u|u\nsub/c|v|v\n-d|w|w\n", recordings)
    corpus = read_corpus(tmp_path)
    assert [item.id for item in corpus.items] == ["a_b", "sub_c", "_d"]
    assert faults(corpus) == [("a_b", "duplicate id")]


@given(st.binary(max_size=60), st.sampled_from(["metadata.csv", "metadata.jsonl", "filelist.txt"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_listing_ends_in_another_error(tmp_path: Path, content: bytes, listing: str) -> None:
    root = make(tmp_path / listing, listing, content, ("wavs/a.wav",))
    try:
        outcome: Corpus | str = read_corpus(root)
    except InputError as error:
        outcome = str(error)
    assert "\n" not in outcome if isinstance(outcome, str) else outcome.items + outcome.exclusions


def test_the_demo_corpus_is_read_whole(tmp_path: Path) -> None:
    from ttsfast.data.corpus.espeak import available
    from ttsfast.demo.corpus import write_demo_corpus

    if not available():
        pytest.skip("espeakng-loader is not installed (extra 'demo')")
    write_demo_corpus(tmp_path / "c", "fa", utterances=8, held_out=1)
    corpus = read_corpus(tmp_path / "c")
    assert (corpus.layout, len(corpus.items), corpus.exclusions) == ("ljspeech", 9, ())
    assert [item.split for item in corpus.items] == ["train"] * 8 + ["validation"]
