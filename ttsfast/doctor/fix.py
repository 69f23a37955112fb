"""The safe remedies, applied: a new corpus beside the old one, and a list of what was done.

Safe is what cannot make a good utterance worse: leaving out what teaches nothing right, one encoding for one
letter, a mean of 0, one channel of two that fight. What takes a choice (another text, less noise) stays with
the reader.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttsfast.data.checks.check import Row
from ttsfast.data.checks.finding import ERROR, Finding
from ttsfast.data.corpus.audio import read_samples
from ttsfast.data.corpus.split import TEST, VALIDATION
from ttsfast.data.corpus.text import normalize_text
from ttsfast.doctor.dataset import Examination
from ttsfast.errors import InputError
from ttsfast.files import atomic_write, fsync_folder
from ttsfast.progress import track

RECORD = "fixes.json"
LEFT_OUT = (
    "left out",
    "silent",
    "hole",
    "few frames",
    "repeated audio",
    "odd texts",
    "duration",
    "garbled text",
    "mismatch",
)
"""Checks whose errors are left out; of a recording that is there twice with one text, all but the first."""


@dataclass(frozen=True)
class Fixed:
    """What was done."""

    folder: Path
    utterances: int
    done: Mapping[str, list[str]]
    """What: to which utterances."""

    def __str__(self) -> str:
        """For a person: a line for each remedy."""
        lines = [f"{self.folder}: {self.utterances} utterances; {RECORD} lists what was done"]
        lines += [f"  {what}: {len(ids)}" for what, ids in self.done.items()]
        return "\n".join(lines)


def write_fixed(folder: Path, examination: Examination) -> Fixed:
    """Write the corpus (``metadata.jsonl``, ``wavs/``, lists of what is held out), mended as is safe.

    Recordings that stay as they are become hard links, or copies on another disk. The folder appears when all
    of it is there.

    Raises:
        InputError: the folder is there already; or no recordings are at hand; or none is left.
        OSError: it cannot be written.
    """
    check_new_folder(folder)
    rows = [row for row in examination.subject.rows if row.audio]
    if not rows:
        raise InputError(
            f"{examination.diagnosis.subject}: its recordings are not at hand; name them with --corpus"
        )
    findings, done = examination.diagnosis.findings, defaultdict[str, list[str]](list)
    gone = _left_out(findings, done)
    kept = [row for row in rows if row.id not in gone]
    if not kept:
        raise InputError(
            f"{examination.diagnosis.subject}: nothing is left that could be kept; record it again"
        )
    language = examination.subject.language
    work = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    (work / "wavs").mkdir(parents=True)
    try:
        lines = [
            _line(row, _text(row, language, done), _recording(row, work, done))
            for row in track(kept, "writing the corpus", len(kept))
        ]
        _write(work / "metadata.jsonl", "".join(lines))
        for split in (VALIDATION, TEST):
            if held := [row.id for row in kept if row.split == split]:
                _write(work / f"{split}.txt", "".join(f"{name}\n" for name in held))
        _write(work / RECORD, json.dumps(done, ensure_ascii=False, indent=1) + "\n")
        work.rename(folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Fixed(folder, len(kept), dict(done))


def check_new_folder(folder: Path) -> None:
    """Raise InputError for a folder that is there already."""
    if folder.exists():
        raise InputError(f"{folder}: is there already; give a new folder to --fix")


def _left_out(findings: Sequence[Finding], done: dict[str, list[str]]) -> set[str]:
    gone: set[str] = set()
    for finding in findings:
        twice = finding.check == "repeated audio"
        if finding.check in LEFT_OUT and (finding.severity == ERROR or twice):
            done[f"left out: {finding.what}"] += finding.ids
            gone |= set(finding.ids)
    return gone


_TEXT_REMEDIES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("HTML entities as the signs they stand for", html.unescape),
    ("tags taken out", lambda text: re.sub(r"<[/a-zA-Z][^<>]*>", "", text)),
    ("quotes of a csv file taken off", lambda text: re.sub(r'^"(.*)"$', r"\1", text.replace('""', '"'))),
    ("plain letters for full width and ligatures", lambda text: "".join(map(_plain, text))),
    ("composed letters", lambda text: unicodedata.normalize("NFC", text)),
)


def _text(row: Row, language: str, done: dict[str, list[str]]) -> str:
    text = row.text
    for what, remedy in _TEXT_REMEDIES:
        mended = " ".join(remedy(text).split())
        if mended != text and mended:
            done[f"text: {what}"].append(row.id)
            text = mended
    if language == "fa":
        mended = normalize_text(text, language, keep_case=True, keep_diacritics=True)
        if mended != text and mended:
            done["text: Persian letters, digits and joiners for those that look like them"].append(row.id)
            text = mended
    return text


def _plain(character: str) -> str:
    shape = unicodedata.decomposition(character).split(" ")[0]
    return (
        unicodedata.normalize("NFKC", character) if shape in ("<wide>", "<narrow>", "<compat>") else character
    )


def _recording(row: Row, work: Path, done: dict[str, list[str]]) -> str:
    """Put a row's recording into the new corpus; its path there."""
    figures = row.figures
    source = Path(row.audio)
    assert figures is not None
    what = ""
    if figures.channels > 1 and figures.correlation < -0.3:
        what = "sound: the louder of two channels of opposite phase"
    elif figures.channels > 1 and figures.balance > 30:
        what = "sound: the channel that has something in it"
    elif abs(figures.offset) >= 0.1:
        what = "sound: a mean of 0"
    if not what:
        place = f"wavs/{row.id}{source.suffix}"
        try:
            os.link(source.resolve(), work / place)
        except OSError:
            shutil.copyfile(source, work / place)
        return place
    samples, rate = read_samples(source)
    if what.startswith("sound: the"):
        samples = samples[:, [int(np.square(samples, dtype=np.float64).sum(axis=0).argmax())]]
    samples = samples - samples.mean(axis=0) if abs(figures.offset) >= 0.1 else samples
    done[what].append(row.id)
    place = f"wavs/{row.id}.wav"
    _write_wav(work / place, samples, rate)
    return place


def _write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    import soundfile

    # 24 bits: no rounding on top of the source's own.
    soundfile.write(path, np.clip(samples, -1, 1 - 2**-23), rate, subtype="PCM_24")


def _line(row: Row, text: str, audio: str) -> str:
    values = {"id": row.id, "audio": audio, "text": text}
    values |= {"speaker": row.speaker} if row.speaker else {}
    plain: dict[str, object] = {**values, **({"truncated": True} if row.truncated else {})}
    return json.dumps(plain, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as handle:
        handle.write(text.encode())
