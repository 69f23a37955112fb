"""Listings in columns: how a line is cut, and what the names in a header row mean."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ttsfast.data.corpus.rows import Fault
from ttsfast.errors import InputError

AUDIO = (
    *("audio", "audio_file", "audio_filepath", "audio_path", "path", "file", "file_name", "filename"),
    *("filepath", "file_path", "wav", "wav_path", "wav_file", "wav_filename", "clip"),
)
"""Names of a column, or a JSON key, that holds the recording; the first of them that is there counts."""
TEXT = (
    *("normalized_text", "normalised_text", "text_normalized", "normalized", "normalised"),
    *("normalized_transcription", "text", "sentence", "transcription", "transcript", "utterance"),
)
SPEAKER = ("speaker", "speaker_id", "speaker_name", "spk", "spk_id", "client_id", "reader")
ID = ("id", "utterance_id", "utt_id", "segment_id")
SEPARATORS = ("|", "\t", ",", ";")
Cut = Callable[[str], list[str]]
_QUOTED = r'"(?:[^"]|"")*"'


def pick(names: Sequence[str] | Mapping[str, object], known: Sequence[str]) -> str:
    """The first of the known names that is among ``names``; "" for none."""
    return next((name for name in known if name in names), "")


def find_header(line: str) -> tuple[str, list[str]] | None:
    """The separator and the column names of a header row; None for any other line."""
    for separator in SEPARATORS:
        names = [re.sub(r"[ -]", "_", field.strip('" ').lower()) for field in line.split(separator)]
        if len(names) > 1 and pick(names, (*AUDIO, *ID)) and pick(names, TEXT):
            return separator, names
    return None


def split_fields(line: str, separator: str) -> list[str]:
    """A line's fields, stripped. What a CSV writer has quoted, as it holds the separator or a quotation mark,
    is unquoted; a sentence in quotation marks keeps them.
    """
    if '"' in line:
        try:
            fields = next(csv.reader([line], delimiter=separator, strict=True), [])
        except csv.Error:
            fields = []
        if _as_csv(fields, separator) == line:
            return [field.strip() for field in fields]
    return [field.strip() for field in line.split(separator)]


def _as_csv(fields: list[str], separator: str) -> str:
    """As a CSV writer would have it, which quotes no more than it must."""
    return separator.join(
        '"{}"'.format(field.replace('"', '""')) if '"' in field or separator in field else field
        for field in fields
    )


def cutter(path: Path, lines: list[tuple[int, str]]) -> Cut:
    """What cuts the lines of a listing without a header: at bars, or at tabs where it has no bars.

    Raises InputError where commas separate its columns: texts hold them, too.
    """
    shares = {mark: sum(mark in line for _, line in lines) for mark in SEPARATORS}
    half = len(lines) / 2
    separator = "\t" if shares["|"] < half <= shares["\t"] else "|"
    # Of lines with semicolons, too, it is the texts that hold the commas.
    comma = max(";,", key=shares.__getitem__)
    if shares[separator] == 0 and shares[comma] >= half:
        raise InputError(
            f"{path}: its columns seem to be separated by {comma!r}, which texts hold, too; separate them by "
            f"'|', or write a header row (audio{comma}text) and quotes as CSV has them"
        )
    all_quoted = re.compile(rf"{_QUOTED}({re.escape(separator)}{_QUOTED})+")
    if all(all_quoted.fullmatch(line) and len(line) < csv.field_size_limit() for _, line in lines):
        return csv_cutter(separator)
    return lambda line: split_fields(line, separator)


def csv_cutter(separator: str) -> Cut:
    """What cuts lines as a CSV reader does; raises Fault for what such a reader does not take."""

    def cut(line: str) -> list[str]:
        try:
            # Lines were told apart before: a carriage return within one is white space of a text.
            return [
                field.strip()
                for field in next(csv.reader([line.replace("\r", " ")], delimiter=separator), [])
            ]
        except csv.Error as error:
            raise Fault("malformed line", f"is not CSV ({error}); is a quotation mark not closed?") from error

    return cut


def join_quoted(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Lines of CSV, those put together between which a quoted field goes on."""
    start, open_line = 0, ""
    for number, line in lines:
        start, open_line = (start, f"{open_line} {line}") if open_line else (number, line)
        if open_line.count('"') % 2 == 0:
            yield start, open_line
            open_line = ""
    if open_line:
        yield start, open_line
