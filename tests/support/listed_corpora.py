"""A small corpus of each layout: its files, and the utterances that they list."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from hypothesis import strategies as st

from ttsfast.data.corpus.listings import Corpus
from ttsfast.errors import InputError

WORDS = (
    "the red book is here",
    "a blue lamp stands there",
    "seven birds are singing",
    "it was late, he said",
)

Files = dict[str, str]
Listed = list[tuple[str, str, str]]
"""Id, speaker and text of each."""


def _columns(form: str, names: tuple[str, ...] = ("a1", "a2", "b1", "b2"), end: str = "") -> str:
    """``form`` for each sentence: NAME, SPEAKER, TEXT and NORMALISED are filled in."""
    lines = []
    for name, text in zip(names, WORDS, strict=True):
        line = form.replace("NAME", name).replace("SPEAKER", name[0]).replace("TEXT", text)
        lines.append(line.replace("NORMALISED", f"{text} indeed") + end)
    return "\n".join(lines) + "\n"


def _files(
    listing: str, content: str, audio: str, names: tuple[str, ...] = ("a1", "a2", "b1", "b2")
) -> Files:
    return {
        listing: content,
        **{audio.replace("NAME", name).replace("SPEAKER", name[0]): "" for name in names},
    }


def _plain(prefix: str = "", speakers: bool = False, end: str = "") -> Listed:
    names = ("a1", "a2", "b1", "b2")
    return [(f"{prefix}{n}", n[0] if speakers else "", t + end) for n, t in zip(names, WORDS, strict=True)]


def _lines(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _cut(name: str, text: str) -> dict[str, object]:
    recording = {
        "id": name,
        "sources": [{"type": "file", "channels": [0], "source": f"wavs/{name}.wav"}],
        "sampling_rate": 8000,
        "duration": 1.0,
    }
    said = {"id": name, "recording_id": name, "start": 0.0, "duration": 1.0, "text": text, "speaker": name[0]}
    return {"id": name, "start": 0, "duration": 1.0, "supervisions": [said], "recording": recording}


_CUTS = [_cut(name, text) for name, text in zip(("a1", "a2", "b1", "b2"), WORDS, strict=True)]
_CSV = 'audio,text,speaker\nwavs/a1.wav,"the red book, it is here",a\nwavs/a2.wav,"a ""blue"" lamp",a\n'

CORPORA: dict[str, tuple[Files, str, Listed]] = {
    "lj": (
        _files("metadata.csv", _columns("NAME|TEXT|NORMALISED"), "wavs/NAME.wav"),
        "ljspeech",
        _plain(end=" indeed"),
    ),
    "lj, two columns": (
        _files("metadata.csv", _columns("NAME|TEXT"), "wavs/NAME.flac"),
        "ljspeech",
        _plain(),
    ),
    "lj, a suffix": (
        _files("metadata.csv", _columns("NAME.wav|TEXT"), "wavs/NAME.wav"),
        "ljspeech",
        _plain(),
    ),
    "lj, wav/ and .WAV": (
        _files("metadata.csv", _columns("NAME|TEXT|"), "wav/NAME.WAV"),
        "ljspeech",
        _plain(),
    ),
    "lj, opus": (_files("metadata.csv", _columns("NAME|TEXT"), "wavs/NAME.opus"), "ljspeech", _plain()),
    "path|text": (
        _files("train.txt", _columns("wavs/NAME.wav|TEXT"), "wavs/NAME.wav"),
        "ljspeech",
        _plain("wavs_"),
    ),
    "path|text, tabs": (_files("list.tsv", _columns("NAME.wav\tTEXT"), "NAME.wav"), "ljspeech", _plain()),
    "path|text|normalised": (
        _files("metadata.csv", _columns("NAME.wav|TEXT|NORMALISED"), "wavs/NAME.wav"),
        "ljspeech",
        _plain(end=" indeed"),
    ),
    "path|text|speaker": (
        _files("filelist.txt", _columns("wavs/NAME.wav|TEXT|SPEAKER"), "wavs/NAME.wav"),
        "text-speaker",
        _plain("wavs_", speakers=True),
    ),
    "path|speaker|text": (
        _files("filelist.txt", _columns("wavs/NAME.wav|SPEAKER|TEXT"), "wavs/NAME.wav"),
        "multispeaker",
        _plain("wavs_", speakers=True),
    ),
    "piper, id|speaker|text": (
        _files("metadata.csv", _columns("NAME|SPEAKER|TEXT"), "wav/NAME.wav"),
        "multispeaker",
        _plain(speakers=True),
    ),
    "coqui's header": (
        _files(
            "metadata.csv",
            "audio_file|text|speaker_name\n" + _columns("wavs/NAME.wav|TEXT|SPEAKER"),
            "wavs/NAME.wav",
        ),
        "table",
        _plain("wavs_", speakers=True),
    ),
    "csv with a header": (
        _files("metadata.csv", _CSV, "wavs/NAME.wav", ("a1", "a2")),
        "table",
        [("wavs_a1", "a", "the red book, it is here"), ("wavs_a2", "a", 'a "blue" lamp')],
    ),
    "css10": (
        _files("transcript.txt", _columns("book/NAME.wav|TEXT|NORMALISED|3.25"), "book/NAME.wav"),
        "css10",
        _plain("book_", end=" indeed"),
    ),
    "thorsten": (_files("metadata.csv", _columns("NAME|TEXT"), "wavs/NAME.wav"), "ljspeech", _plain()),
    "common voice": (
        _files(
            "validated.tsv",
            "client_id\tpath\tsentence\tage\n" + _columns("SPEAKER\tNAME.mp3\tTEXT\t"),
            "clips/NAME.mp3",
        )
        | {"invalidated.tsv": "client_id\tpath\tsentence\tage\n"},
        "commonvoice",
        _plain(speakers=True),
    ),
    "vctk": (
        {f"txt/{n[0]}/{n}.txt": f"{t}\n" for n, t in zip(("a1", "a2", "b1", "b2"), WORDS, strict=True)}
        | {
            f"wav48_silence_trimmed/{n[0]}/{n}_mic{m}.flac": ""
            for n in ("a1", "a2", "b1", "b2")
            for m in (1, 2)
        }
        | {"speaker-info.txt": "ID AGE\n"},
        "vctk",
        _plain(speakers=True),
    ),
    "libritts": (
        {f"train-clean/9/8/9_8_{n}.normalized.txt": t for n, t in enumerate(WORDS)}
        | {f"train-clean/9/8/9_8_{n}.wav": "" for n in range(4)}
        | {"SPEAKERS.txt": "9 | F | train-clean\n"},
        "libritts",
        [(f"9_8_{n}", "9", text) for n, text in enumerate(WORDS)],
    ),
    "mls": (
        {"train/transcripts.txt": "".join(f"9_8_{n}\t{t}\n" for n, t in enumerate(WORDS))}
        | {f"train/audio/9/8/9_8_{n}.flac": "" for n in range(4)},
        "mls",
        [(f"9_8_{n}", "9", text) for n, text in enumerate(WORDS)],
    ),
    "m-ailabs": (
        {"female/a/book/metadata.csv": "x1|the red book|the red book\nx2|a blue lamp|a blue lamp\n"}
        | {f"female/a/book/wavs/x{n}.wav": "" for n in (1, 2)}
        | {"male/b/tale/metadata.csv": "x1|seven birds|seven birds\n", "male/b/tale/wavs/x1.wav": ""},
        "mailabs",
        [
            ("female_a_book_x1", "a", "the red book"),
            ("female_a_book_x2", "a", "a blue lamp"),
            ("male_b_tale_x1", "b", "seven birds"),
        ],
    ),
    "kaldi": (
        _files("wav.scp", _columns("NAME audio/NAME.wav"), "audio/NAME.wav")
        | {"text": _columns("NAME TEXT"), "utt2spk": _columns("NAME SPEAKER")},
        "kaldi",
        _plain(speakers=True),
    ),
    "json lines in a folder of theirs": (
        {"lists/all.jsonl": _lines({"audio": "x/a.wav", "text": "one"}), "x/a.wav": ""},
        "jsonl",
        [("x_a", "", "one")],
    ),
    "nemo": (
        {
            "manifest.json": _lines(
                {
                    "audio_filepath": "x/a.wav",
                    "duration": 1.0,
                    "text": "1",
                    "normalized_text": "one",
                    "speaker": 7,
                },
                {"audio_filepath": "x/b.wav", "duration": 1.0, "text": "two", "speaker": 8},
            ),
            "x/a.wav": "",
            "x/b.wav": "",
        },
        "jsonl",
        [("x_a", "7", "one"), ("x_b", "8", "two")],
    ),
    "hugging face's audio folder": (
        {"metadata.csv": "file_name,transcription\nx/a.mp3,one\n", "x/a.mp3": ""},
        "table",
        [("x_a", "", "one")],
    ),
    "lhotse's cuts": (_files("cuts.jsonl", _lines(*_CUTS), "wavs/NAME.wav"), "lhotse", _plain(speakers=True)),
    "lhotse's supervisions": (
        _files(
            "corpus_supervisions_all.jsonl",
            _lines(*(cut["supervisions"][0] for cut in _CUTS)),
            "wavs/NAME.wav",
        )  # type: ignore[index]
        | {"corpus_recordings_all.jsonl": _lines(*(cut["recording"] for cut in _CUTS))},  # type: ignore[arg-type]
        "lhotse",
        _plain(speakers=True),
    ),
}
"""By name: the files (path: content; recordings are empty), the layout, and what is listed."""


def write_listed(root: Path, name: str, recording: Path | None = None) -> Path:
    """Write one of :data:`CORPORA`, its recordings empty or, by turns of suffix, copies of ``recording``."""
    for path, content in CORPORA[name][0].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if not content and recording is not None:
            shutil.copy(recording, root / path)
        else:
            (root / path).write_text(content)
    return root


JUNK = st.one_of(
    st.sampled_from(
        ["", "|", "||", "\t", ",", '"', '""', "\n", "\r\n", "\0", "\ufeff", "../", "/etc/passwd", "{"]
    ),
    st.sampled_from(['"text": 3', '"start": 1e9', "null", "e\u0301", "é", "\u202e", "\\ud83d"]),
    st.text(max_size=12),
)


@st.composite
def damaged_corpora(draw: st.DrawFn) -> tuple[str, dict[str, bytes]]:
    """The name of a corpus of :data:`CORPORA`, and its listings with some of their characters replaced, their
    lines repeated, or cut.
    """
    name = draw(st.sampled_from(sorted(CORPORA)))
    listings = {path: content for path, content in CORPORA[name][0].items() if content}
    path = draw(st.sampled_from(sorted(listings)))
    text = listings[path]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(JUNK) + text[start + draw(st.sampled_from([0, 0, 1, 5, 1000])) :]
    content = text.encode()
    if draw(st.integers(0, 9)) == 0:
        content = text.encode(draw(st.sampled_from(["utf-16", "latin-1", "cp1256"])), errors="replace")
        content += draw(st.binary(max_size=8))
    return name, {path: content}


def check_reading(corpus: Corpus) -> None:
    """What holds of every corpus that was read: recordings in its folder, texts, ids, faults in a line."""
    root = corpus.root.resolve()
    for item in corpus.items:
        assert Path(item.audio.partition(".parquet#")[0]).resolve().is_relative_to(root), item
        assert item.text.strip() == item.text != "", item
    assert len({item.id for item in corpus.items}) == len(corpus.items)
    assert all("\n" not in one.detail and one.detail and one.reason for one in corpus.exclusions)


def check_refusal(error: InputError) -> None:
    """What holds of every refusal: it is a line."""
    assert "\n" not in str(error)
