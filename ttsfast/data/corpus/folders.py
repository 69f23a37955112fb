"""Corpora that are listed by their folders: VCTK, LibriTTS, MLS, M-AILABS, and Kaldi's data folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from ttsfast.data.corpus.columns import FORMS, read_columns
from ttsfast.data.corpus.rows import Exclusion, Fault, Listing, Row, read_lines, rows_of
from ttsfast.data.corpus.split import TEST, TRAIN, VALIDATION
from ttsfast.errors import InputError

_VCTK_FOLDERS = ("wav48_silence_trimmed", "wav48", "wav22", "wavs", "wav")
_NORMALISED = ".normalized.txt"
_MLS_SPLITS = {"train": TRAIN, "dev": VALIDATION, "test": TEST}


def is_vctk(root: Path) -> bool:
    """``txt/SPEAKER/SPEAKER_NUMBER.txt`` and recordings of the same names in another folder."""
    return (root / "txt").is_dir() and any((root / name).is_dir() for name in _VCTK_FOLDERS)


def read_vctk(root: Path) -> Listing:
    """Each text with its recording, of two microphones the first."""
    folder = next(name for name in _VCTK_FOLDERS if (root / name).is_dir())
    lines: list[Row | Exclusion] = []
    for path in sorted((root / "txt").glob("*/*.txt")):
        speaker, name = path.parent.name, path.stem
        first = f"{folder}/{speaker}/{name}_mic1"
        # Not looked up in a table of all files: nothing of the corpus is read here but its texts.
        audio = first if any(os.path.exists(root / f"{first}{s}") for s in (".flac", ".wav")) else first[:-5]
        lines.append(_with_text(root, path, Row(name, audio, "", speaker)))
    return Listing("vctk", "txt/SPEAKER/ID.txt beside recordings", "txt", lines, [])


def is_libritts(root: Path) -> bool:
    """Recordings with a ``.normalized.txt`` beside each."""
    return next(_normalised_texts(root), None) is not None


def read_libritts(root: Path) -> Listing:
    """Each text with the recording beside it; the speaker is the number that its name begins with."""
    lines: list[Row | Exclusion] = []
    for path in sorted(_normalised_texts(root)):
        name = path.name.removesuffix(_NORMALISED)
        audio = path.relative_to(root).as_posix().removesuffix(_NORMALISED)
        lines.append(_with_text(root, path, Row(name, audio, "", name.split("_")[0])))
    return Listing("libritts", "ID.normalized.txt beside recordings", ".", lines, [])


def _normalised_texts(root: Path) -> Iterator[Path]:
    return (
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if name.endswith(_NORMALISED)
    )


def _with_text(root: Path, path: Path, row: Row) -> Row | Exclusion:
    where = path.relative_to(root).as_posix()
    try:
        text = " ".join(path.read_bytes().decode("utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        return Exclusion(row.name, "not UTF-8", f"{where}: cannot be read as UTF-8 text ({why}); correct it")
    return replace(row, text=text, listing=where)


def find_mls(root: Path) -> list[Path]:
    """``transcripts.txt`` of the folder, or of its train, dev and test."""
    here = root / "transcripts.txt"
    splits = [root / name / "transcripts.txt" for name in _MLS_SPLITS]
    return [here] if here.is_file() else [path for path in splits if path.is_file()]


def read_mls(root: Path) -> Listing:
    """Lines of ``SPEAKER_BOOK_NUMBER``, a tab and the text; audio/SPEAKER/BOOK/ID.flac beside the listing."""
    lines: list[Row | Exclusion] = []
    undecodable: list[Exclusion] = []
    listings = find_mls(root)
    for path in listings:
        base = path.parent.relative_to(root).as_posix()
        source = path.relative_to(root).as_posix()
        split = _MLS_SPLITS[path.parent.name] if len(listings) > 1 else None
        numbered, faults = read_lines(path)
        undecodable += faults
        for line in rows_of(source, numbered, partial(_mls_row, base=base)):
            lines.append(replace(line, split=split, listing=source) if isinstance(line, Row) else line)
    source = listings[0].relative_to(root).as_posix()
    return Listing("mls", "SPEAKER_BOOK_NUMBER, tab, text", source, lines, undecodable)


def _mls_row(number: int, line: str, base: str) -> Row:
    name, tab, text = line.partition("\t")
    parts = name.split("_")
    if not tab or len(parts) != 3:
        raise Fault("malformed line", "is not an id, SPEAKER_BOOK_NUMBER, a tab and a text; correct it")
    return Row(name, f"{base}/audio/{parts[0]}/{parts[1]}/{name}", text, parts[0], line=number)


def find_mailabs(root: Path) -> list[Path]:
    """``metadata.csv`` of books, a folder each with wavs/ beside it, at any depth."""
    walk = os.walk(root)
    return sorted(
        Path(f, "metadata.csv") for f, _, names in walk if "metadata.csv" in names and Path(f) != root
    )


def read_mailabs(root: Path) -> Listing:
    """Each book as LJ Speech; the speaker is the folder that a book lies in: ``female/SPEAKER/BOOK``."""
    lines: list[Row | Exclusion] = []
    undecodable: list[Exclusion] = []
    listings = find_mailabs(root)
    for path in listings:
        base = path.parent.relative_to(root).as_posix()
        speaker = base.split("/")[-2] if "/" in base else base
        numbered, faults = read_lines(path)
        if not numbered:
            raise InputError(f"{path}: the listing is empty; write a line for each recording")
        book = read_columns(path, numbered, faults, "ljspeech")
        undecodable += book.undecodable
        for line in book.lines:
            if isinstance(line, Row):
                name, audio = f"{base}/{line.name}", f"{base}/wavs/{line.audio}"
                listing = f"{base}/{book.source}"
                lines.append(replace(line, name=name, audio=audio, speaker=speaker, listing=listing))
            else:
                lines.append(replace(line, detail=f"{base}/{line.detail}"))
    form = f"{len(listings)} books of {FORMS['ljspeech']}"
    return Listing("mailabs", form, "*/metadata.csv", lines, undecodable)


def is_kaldi(root: Path) -> bool:
    """A data folder of Kaldi or ESPnet."""
    return (root / "wav.scp").is_file() and (root / "text").is_file()


def read_kaldi(root: Path) -> Listing:
    """``text``, with the recording of each utterance in ``wav.scp`` and its speaker in ``utt2spk``.

    Raises InputError where ``segments`` cuts recordings up. A command in ``wav.scp`` is never run.
    """
    if (root / "segments").is_file():
        raise InputError(
            f"{root / 'segments'}: utterances are pieces of recordings; cut them to a file each (ESPnet's "
            "format_wav_scp.sh does), and remove it"
        )
    audio, speakers = _table(root / "wav.scp"), _table(root / "utt2spk")

    def parse(number: int, line: str) -> Row:
        name, _, text = line.replace("\t", " ").partition(" ")
        path = audio.get(name, "")
        if path.endswith("|"):
            detail = f"wav.scp has a command for {name!r}, and none is run; give the path of a recording"
            raise Fault("missing audio", detail)
        if not path:
            raise Fault("missing audio", f"wav.scp has no recording of {name!r}; add it, or remove the line")
        return Row(name, path, text, speakers.get(name, ""), line=number)

    lines, undecodable = read_lines(root / "text")
    return Listing("kaldi", "wav.scp and text", "text", rows_of("text", lines, parse), undecodable)


def _table(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines, undecodable = read_lines(path)
    if undecodable:
        raise InputError(f"{path.parent}/{undecodable[0].detail}")
    pairs = (line.replace("\t", " ").partition(" ") for _, line in lines)
    return {name: value.strip() for name, _, value in pairs}
