"""Every layout is known by what is in it and read the same when named; what is none is refused in a line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from listed_corpora import CORPORA, WORDS, check_reading, check_refusal, damaged_corpora, write_listed

from ttsfast.data.corpus.listings import Corpus, read_corpus
from ttsfast.errors import InputError


def write(root: Path, listing: str, *lines: str, recordings: tuple[str, ...] = ()) -> Path:
    for path, content in [(listing, "\n".join(lines)), *((name, "") for name in recordings)]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


def listed(corpus: Corpus) -> list[tuple[str, str, str]]:
    return [(item.id, item.speaker, item.text) for item in corpus.items]


@pytest.mark.parametrize("name", CORPORA)
def test_a_layout_is_recognised_by_what_is_in_it(tmp_path: Path, name: str) -> None:
    _, layout, expected = CORPORA[name]
    corpus = read_corpus(write_listed(tmp_path, name))
    assert (corpus.layout, corpus.exclusions) == (layout, ())
    assert listed(corpus) == expected
    assert all(Path(item.audio).is_file() for item in corpus.items)
    assert f"{len(expected)} utterances, read as {layout} ({corpus.form})" in corpus.reading
    assert listed(read_corpus(tmp_path, layout)) == expected


def test_the_columns_that_were_taken_are_said(tmp_path: Path) -> None:
    assert read_corpus(write_listed(tmp_path / "a", "path|text|speaker")).form == "path|text|speaker"
    assert "not age" in read_corpus(write_listed(tmp_path / "b", "common voice")).form
    assert read_corpus(write_listed(tmp_path / "c", "lj, two columns")).form == "ID|text"


def test_the_first_microphone_is_taken_of_two(tmp_path: Path) -> None:
    corpus = read_corpus(write_listed(tmp_path, "vctk"))
    assert all(item.audio.endswith("_mic1.flac") for item in corpus.items)


def test_splits_of_a_corpus_are_kept(tmp_path: Path) -> None:
    write_listed(tmp_path, "mls")
    write(tmp_path, "dev/transcripts.txt", "7_6_0\tmore words", recordings=("dev/audio/7/6/7_6_0.flac",))
    assert [item.split for item in read_corpus(tmp_path).items] == ["train"] * 4 + ["validation"]


def test_short_utterances_are_no_speakers(tmp_path: Path) -> None:
    """One word each, twice: LJ Speech's text and normalised text."""
    lines = [
        f"a{number}|{word}|{word}" for number, word in enumerate(("yes", "no", "maybe", "never", "always"))
    ]
    corpus = read_corpus(
        write(tmp_path, "metadata.csv", *lines, recordings=tuple(f"wavs/a{n}.wav" for n in range(5)))
    )
    assert (corpus.layout, [item.text for item in corpus.items][1]) == ("ljspeech", "no")


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ('"he said ""yes"" to me"', 'he said "yes" to me'),
        ('"a bar | inside"', "a bar | inside"),
        ('"He said so."', '"He said so."'),
        ('"Oh," he said, "no"', '"Oh," he said, "no"'),
        ('"""All of it."""', '"All of it."'),
        ('he said "yes"', 'he said "yes"'),
    ],
)
def test_quotation_marks_of_a_csv_writer_are_undone_and_others_kept(
    tmp_path: Path, field: str, text: str
) -> None:
    corpus = read_corpus(write(tmp_path, "metadata.csv", f"a|{field}", recordings=("wavs/a.wav",)))
    assert [item.text for item in corpus.items] == [text]


def test_a_listing_that_is_quoted_throughout_is_csv(tmp_path: Path) -> None:
    lines = ('"a"|"one ""and"" two"', '"b"|"three"')
    corpus = read_corpus(write(tmp_path, "metadata.csv", *lines, recordings=("wavs/a.wav", "wavs/b.wav")))
    assert [item.text for item in corpus.items] == ['one "and" two', "three"]


def test_a_quoted_field_of_csv_may_go_over_lines(tmp_path: Path) -> None:
    lines = ("path,text", 'a.wav,"one', 'two"', "b.wav,three")
    corpus = read_corpus(write(tmp_path, "metadata.csv", *lines, recordings=("a.wav", "b.wav")))
    assert [(item.text, item.line) for item in corpus.items] == [("one two", 2), ("three", 4)]


def test_a_carriage_return_within_a_line_of_csv_is_white_space(tmp_path: Path) -> None:
    corpus = read_corpus(
        write(tmp_path, "metadata.csv", "path,text", "a.wav,one\rtwo", recordings=("a.wav",))
    )
    assert [item.text for item in corpus.items] == ["one two"]


def test_a_quotation_mark_that_is_never_closed_is_named_with_its_line(tmp_path: Path) -> None:
    rest = [f"b{number}.wav,{'word ' * 400}" for number in range(70)]
    lines = ("path,text", "a.wav,one", 'b.wav,"two', *rest)
    corpus = read_corpus(write(tmp_path, "metadata.csv", *lines, recordings=("a.wav", "b.wav")))
    assert [item.text for item in corpus.items] == ["one"]
    (unclosed,) = corpus.exclusions
    assert unclosed.id == "metadata.csv:3"
    assert "is a quotation mark not closed?" in unclosed.detail


FOUR = tuple(f"wavs/{number}.wav" for number in range(4))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([f"wavs/{n}.wav,{t}" for n, t in enumerate(WORDS)], r"separated by ','.*header row"),
        ([f"wavs/{n}.wav;{t}, and so on" for n, t in enumerate(WORDS)], r"separated by ';'.*audio;text"),
        ([f"wavs/{n}.wav|{t}|{n}|{n}|en" for n, t in enumerate(WORDS)], "has 5 columns, and no header row"),
        ([f"wavs/{n}.wav|{t}|0" for n, t in enumerate(["x"] * 4)], "all 4 texts are '0'"),
        ([f"{t}|wavs/{n}.wav" for n, t in enumerate(WORDS)], "its texts are paths, such as 'wavs/0.wav'"),
        (
            [f"wavs/{n}.wav|{n}|{t}" for n, t in enumerate(WORDS)],
            "has another speaker.*say --layout multispeaker",
        ),
        ([f"wavs/{n}.wav|{t}|{t[::-1]}" for n, t in enumerate(WORDS)], "sentences that differ"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, lines: list[str], message: str) -> None:
    write(tmp_path, "metadata.csv", *lines, recordings=FOUR)
    with pytest.raises(InputError, match=message) as caught:
        read_corpus(tmp_path)
    assert "\n" not in str(caught.value)
    assert "metadata.csv" in str(caught.value)


def test_a_named_layout_is_refused_where_it_swaps_columns(tmp_path: Path) -> None:
    write(
        tmp_path, "metadata.csv", *(f"wavs/{n}.wav|{t}|{n % 2}" for n, t in enumerate(WORDS)), recordings=FOUR
    )
    with pytest.raises(InputError, match="its speakers are sentences, such as"):
        read_corpus(tmp_path, "multispeaker")
    write(
        tmp_path, "metadata.csv", "path|text|speaker", *(f"wavs/{n}.wav|{t}|x" for n, t in enumerate(WORDS))
    )
    with pytest.raises(InputError, match=r"line 1 is a header row; .*--layout table"):
        read_corpus(tmp_path, "multispeaker")
    assert len(read_corpus(tmp_path, "table").items) == 4


def test_what_is_odd_may_be_meant(tmp_path: Path) -> None:
    write(tmp_path, "metadata.csv", *(f"wavs/{n}.wav|s{n}|{t}" for n, t in enumerate(WORDS)), recordings=FOUR)
    assert len(read_corpus(tmp_path, "multispeaker").items) == 4


def test_a_fault_of_all_lines_is_one(tmp_path: Path) -> None:
    write(tmp_path, "metadata.csv", *(f"x{number}|sentence {number}" for number in range(1, 3000)))
    with pytest.raises(
        InputError, match=r"none of its 2999 lines can be used: missing audio; the first: .*x1'"
    ):
        read_corpus(tmp_path)


def test_pieces_and_commands_are_refused_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    scp = (f"a touch {marker} |", "b audio/b.wav")
    write(tmp_path / "k", "wav.scp", *scp, recordings=("audio/b.wav",))
    write(tmp_path / "k", "text", "a one two", "b three")
    corpus = read_corpus(tmp_path / "k")
    assert [item.id for item in corpus.items] == ["b"]
    assert "a command for 'a', and none is run" in corpus.exclusions[0].detail
    assert not marker.exists()
    write(tmp_path / "k", "segments", "a a 0 1")
    with pytest.raises(InputError, match=r"segments: utterances are pieces of recordings"):
        read_corpus(tmp_path / "k")
    rows = [
        {"audio_filepath": "a.wav", "text": "one", "offset": 0.0},
        {"audio_filepath": "a.wav", "text": "two", "offset": 3.5},
    ]
    write(tmp_path / "n", "manifest.json", *map(json.dumps, rows), recordings=("a.wav",))
    corpus = read_corpus(tmp_path / "n")
    assert [exclusion.reason for exclusion in corpus.exclusions] == ["piece of a recording"]


def test_a_manifest_may_be_packed(tmp_path: Path) -> None:
    write_listed(tmp_path, "lhotse's cuts")
    content = (tmp_path / "cuts.jsonl").read_bytes()
    (tmp_path / "cuts.jsonl").unlink()
    (tmp_path / "cuts.jsonl.gz").write_bytes(gzip.compress(content))
    assert len(read_corpus(tmp_path).items) == 4
    (tmp_path / "cuts.jsonl.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(InputError, match=r"cuts\.jsonl\.gz: cannot be read"):
        read_corpus(tmp_path)


def test_cuts_of_longer_recordings_are_faults(tmp_path: Path) -> None:
    write_listed(tmp_path, "lhotse's cuts")
    cuts = [json.loads(line) for line in (tmp_path / "cuts.jsonl").read_text().splitlines()]
    cuts[1]["recording"]["duration"] = 9.0
    cuts[2]["supervisions"] *= 2
    cuts[3]["recording"]["sources"][0]["type"] = "command"
    (tmp_path / "cuts.jsonl").write_text("\n".join(map(json.dumps, cuts)))
    corpus = read_corpus(tmp_path)
    assert [item.id for item in corpus.items] == ["a1"]
    reasons = [exclusion.reason for exclusion in corpus.exclusions]
    assert reasons == ["piece of a recording", "piece of a recording", "missing audio"]


@given(damaged_corpora())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_a_listing_ends_in_another_error(
    tmp_path: Path, case: tuple[str, dict[str, bytes]]
) -> None:
    """At length: bench/fuzz_corpora.py."""
    name, changed = case
    root = write_listed(tmp_path / name, name)
    for path, content in changed.items():
        (root / path).write_bytes(content)
    try:
        check_reading(read_corpus(root))
    except InputError as error:
        check_refusal(error)
