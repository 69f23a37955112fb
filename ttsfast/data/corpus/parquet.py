"""Recordings that lie inside parquet files, as Hugging Face's ``datasets`` writes them.

Such a recording has an address, ``data/train-00000-of-00001.parquet#17``: row 17, from 0, of the column that
holds the bytes of audio files.
"""

from __future__ import annotations

import io
import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from ttsfast.data.corpus.fields import ID, SPEAKER, TEXT, pick
from ttsfast.data.corpus.rows import Exclusion, Listing, Row
from ttsfast.data.corpus.split import TEST, TRAIN, VALIDATION
from ttsfast.errors import InputError
from ttsfast.files import file_sha256

_ADDRESS = re.compile(r"(.+\.parquet)(#\d+)", re.DOTALL)
_SPLITS = {"train": TRAIN, "validation": VALIDATION, "valid": VALIDATION, "dev": VALIDATION, "test": TEST}
_reading = Lock()


def split_address(path: str) -> tuple[str, str]:
    """A file's path and, of a recording inside it, ``#row``; "" for one that is the file."""
    match = _ADDRESS.fullmatch(path)
    return (match[1], match[2]) if match else (path, "")


@contextmanager
def open_recording(path: Path | str) -> Iterator[BinaryIO]:
    """Open a recording to read its bytes; raises InputError when it is not there."""
    file, row = split_address(os.fspath(path))
    if not os.path.isfile(file):
        raise InputError(f"{path}: no such file; check the corpus listing")
    if row:
        yield io.BytesIO(_cell(file, int(row[1:])))
    else:
        with open(file, "rb") as opened:
            yield opened


def recording_sha256(path: Path | str) -> str:
    """The SHA-256 of a recording's bytes, in hexadecimal; raises InputError when it cannot be read."""
    file, row = split_address(os.fspath(path))
    return sha256(_cell(file, int(row[1:]))).hexdigest() if row else file_sha256(path)


def find_parquet(root: Path) -> list[Path]:
    """The parquet files of a folder, or of its own folders."""
    return sorted(root.glob("*.parquet")) or sorted(root.glob("*/*.parquet"))


def read_parquet(root: Path, files: list[Path]) -> Listing:
    """The rows of parquet files with a column of audio and one of text; ``train-``, ``validation-`` and
    ``test-`` before a file's name, or its folder's, say the split.

    Raises InputError, naming the file, where pyarrow is not installed, or a file is damaged or lacks these
    columns.
    """
    rows: list[Row] = []
    exclusions: list[Exclusion] = []
    form = ""
    for path in files:
        source = path.relative_to(root).as_posix()
        with _open(path) as table:
            columns = _columns(path, table)
            form = f"columns {', '.join(columns.values())}"
            read = table.read(columns=[name for role, name in columns.items() if role != "audio"]).to_pydict()
            paths = _member(table, columns["audio"], "path")
        names, speakers = read.get(columns.get("id", "")), read.get(columns.get("speaker", ""))
        for place, text in enumerate(read[columns["text"]]):
            where = f"{source}#{place}"
            if not isinstance(text, str):
                detail = f"{where}: its {columns['text']!r} is no text; write what is said, or remove the row"
                exclusions.append(Exclusion(where, "empty text", detail))
                continue
            name = str(names[place]) if names else Path(paths[place] or where).name
            speaker = "" if speakers is None or speakers[place] is None else str(speakers[place])
            rows.append(Row(name, where, text, speaker, split=_split(path), line=place + 1))
    if len({row.name for row in rows}) < len(rows):
        # Names that the audio had before are often all the same.
        rows = [replace(row, name=row.audio) for row in rows]
    if {row.split for row in rows} == {TRAIN}:
        # Nothing is held out, so it is not said what is.
        rows = [replace(row, split=None) for row in rows]
    source = f"{len(files)} parquet files" if len(files) > 1 else files[0].name
    return Listing("parquet", form, source, [*rows], exclusions)


def _split(path: Path) -> str:
    for name in (path.name, path.parent.name):
        if (match := re.match(r"[a-z]+", name.lower())) and match[0] in _SPLITS:
            return _SPLITS[match[0]]
    return TRAIN


def _columns(path: Path, table: Any) -> dict[str, str]:
    """Which column is what, by role."""
    schema = table.schema_arrow
    audio = next((field.name for field in schema if _holds_files(field.type)), "")
    found = {"audio": audio, "text": pick(schema.names, TEXT)}
    if not all(found.values()):
        raise InputError(
            f"{path}: has the columns {', '.join(schema.names)}; needed are one of audio files (with "
            "bytes and path) and one of text"
        )
    optional = {"speaker": pick(schema.names, SPEAKER), "id": pick(schema.names, ID)}
    return found | {role: name for role, name in optional.items() if name}


def _holds_files(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _member(table: Any, column: str, member: str) -> list[Any]:
    if table.schema_arrow.field(column).type.get_field_index(member) < 0:
        return [None] * table.metadata.num_rows
    read = table.read(columns=[f"{column}.{member}"]).column(0)
    return [None if value is None else value[member] for value in read.to_pylist()]


def _cell(file: str, row: int) -> bytes:
    # One at a time: each reads a block of rows, and the next one wants the same block.
    with _reading:
        changed = os.stat(file).st_mtime_ns
        group = bisect_right(_starts(file, changed), row) - 1
        values = _row_group(file, changed, group)
        place = row - _starts(file, changed)[group]
        content = values[place].as_py()["bytes"] if place < len(values) else None
    if not content:
        raise InputError(f"{file}#{row}: has no bytes of a recording; embed the audio, or remove the row")
    return bytes(content)


@lru_cache(maxsize=64)
def _starts(file: str, changed: int) -> list[int]:
    """The first row of each row group."""
    with _open(file) as table:
        groups = range(table.metadata.num_row_groups)
        return [0, *accumulate(table.metadata.row_group(group).num_rows for group in groups)][:-1]


@lru_cache(maxsize=2)
def _row_group(file: str, changed: int, group: int) -> Any:
    with _open(file) as table:
        audio = _columns(Path(file), table)["audio"]
        return table.read_row_group(group, columns=[f"{audio}.bytes"]).column(0)


@contextmanager
def _open(path: Path | str) -> Iterator[Any]:
    """A parquet file; its faults become an InputError that names it."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"{path}: reading parquet needs pyarrow; pip install 'ttsfast[parquet]'") from error
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as parquet ({why}); fetch it again") from error
