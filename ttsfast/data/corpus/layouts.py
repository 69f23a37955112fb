"""The corpus layouts: what each is known by, and which one a folder is in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ttsfast.data.corpus import folders
from ttsfast.data.corpus.columns import FORMS, read_columns
from ttsfast.data.corpus.fields import AUDIO, TEXT, find_header, pick
from ttsfast.data.corpus.json_lines import read_json_lines, read_lhotse
from ttsfast.data.corpus.parquet import find_parquet, read_parquet
from ttsfast.data.corpus.rows import Exclusion, Listing, read_lines
from ttsfast.data.corpus.split import TEST, VALIDATION
from ttsfast.errors import InputError

HELD_OUT = (VALIDATION, TEST)
"""Of each, its own listing is this name with ``.txt``."""
_NAMES = ("metadata.csv", "filelist.txt")
_COLUMN_SUFFIXES = (".csv", ".tsv", ".txt", ".list", ".psv")
_COMMON_VOICE = ("validated.tsv", "train.tsv")
_SAMPLE = 1 << 16


def read_listing(root: Path, layout: str) -> Listing:
    """What a corpus folder lists, in the layout named or, for "auto", in the one whose marks it has.

    Raises InputError for a layout that is unknown, or that the folder is not in; for several listings; for
    one that is empty, or of which no line can be read.
    """
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"unknown corpus layout {layout!r}; use auto, {', '.join(LAYOUTS)}")
    listing = _recognise(root) if layout == "auto" else LAYOUTS[layout](root)
    if listing is None:
        names = f"{', '.join(_NAMES)} or metadata.jsonl"
        remedy = "add one"
        if any(root.rglob("*.arrow")):
            remedy = "write the data set as parquet (Dataset.to_parquet), as its arrow files are not read"
        elif arrays := [path.name for path in sorted(root.glob("*.json")) if _is_array(path)]:
            remedy = f"{arrays[0]} is one JSON array: write an object a line (jq -c '.[]')"
        raise InputError(f"{root}: holds no listing ({names}) of layout {layout!r}; {remedy}")
    return listing


def _recognise(root: Path) -> Listing | None:
    """By the names that only one layout has; then by folders; then by what is in other files."""
    for name in ("kaldi", "vctk", "commonvoice"):
        if listing := LAYOUTS[name](root):
            return listing
    named = _present(root, *_NAMES, "metadata.jsonl")
    if len(named) > 1:
        raise _several(root, named, "give the layout, or leave one")
    if named and named[0].name in _NAMES:
        return _read_columns(named[0], "auto")
    for name in ("jsonl", "lhotse", "parquet", "mls", "libritts", "mailabs"):
        if listing := LAYOUTS[name](root):
            return listing
    found = _columns_by_content(root)
    return _read_columns(_only(root, found), "auto") if found else None


def _present(root: Path, *names: str) -> list[Path]:
    return [root / name for name in names if (root / name).is_file()]


def _several(root: Path, found: list[Path], remedy: str = "leave one") -> InputError:
    choices = ", ".join(path.relative_to(root).as_posix() for path in found)
    return InputError(f"{root}: holds several listings ({choices}); {remedy}")


def _only(root: Path, found: list[Path]) -> Path:
    if len(found) > 1:
        raise _several(root, found)
    return found[0]


def _lines(path: Path) -> tuple[list[tuple[int, str]], list[Exclusion]]:
    check_name(path)
    lines, undecodable = read_lines(path)
    if not lines:
        raise InputError(f"{path}: the listing is empty; write a line for each recording")
    return lines, undecodable


def check_name(path: Path) -> None:
    """Raise InputError for a name that is not UTF-8: a store says where it came from, in JSON, and libsndfile
    cannot open what has no such name.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise InputError(f"{shown}: its name is not UTF-8; rename it, or give a link to it") from error


def _read_columns(path: Path, layout: str) -> Listing:
    return read_columns(path, *_lines(path), layout)


def _find_columns(root: Path, *, layout: str) -> Listing | None:
    found = _present(root, *_NAMES)[:1] or _columns_by_content(root)
    return _read_columns(_only(root, found), layout) if found else None


def _columns_by_content(root: Path) -> list[Path]:
    """Files whose lines have columns, of any name but that of a list of held-out utterances."""
    held_out = {f"{name}.txt" for name in HELD_OUT}
    files = (path for path in sorted(root.iterdir()) if path.suffix in _COLUMN_SUFFIXES)
    return [path for path in files if path.name not in held_out and path.is_file() and _has_columns(path)]


def _has_columns(path: Path) -> bool:
    with open(path, "rb") as file:
        sample = file.read(_SAMPLE).decode(errors="replace").removeprefix("\ufeff")
    lines = [line for line in sample.splitlines() if line.strip()]
    marks = "|\t" if path.suffix != ".csv" else "|\t,;"
    cut = sum(any(mark in line for mark in marks) for line in lines)
    return bool(lines) and (10 * cut >= 9 * len(lines) or find_header(lines[0]) is not None)


def _find_common_voice(root: Path) -> Listing | None:
    found = _present(root, *_COMMON_VOICE)[:1] if (root / "clips").is_dir() else []
    return replace(_read_columns(found[0], "table"), layout="commonvoice") if found else None


def _json_files(root: Path, *kinds: str) -> dict[str, list[Path]]:
    """Files of JSON lines by what they list: "rows", or Lhotse's "cuts", "supervisions" and "recordings". Of
    the folder or, where it has none, of the folders in it.
    """
    for pattern in (
        "metadata.jsonl",
        "*.jsonl",
        "*.jsonl.gz",
        "*.json",
        "*/*.jsonl",
        "*/*.jsonl.gz",
        "*/*.json",
    ):
        found: dict[str, list[Path]] = {}
        for path in sorted(root.glob(pattern)):
            if kind := _json_kind(path):
                found.setdefault(kind, []).append(path)
        if any(kind in found for kind in kinds):
            return found
    return {}


def _json_kind(path: Path) -> str:
    if not path.is_file():
        return ""
    lines = read_lines(path)[0] if path.suffix == ".gz" else _first_line(path)
    try:
        values = json.loads(lines[0][1]) if lines else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        # A file of another kind of JSON is no listing; one of JSON lines may be a faulty one.
        return "rows" if path.suffix == ".jsonl" else ""
    for kind, marks in _MARKS.items():
        if marks <= values.keys():
            return kind
    # Other one-line objects lie about in folders, too.
    return "rows" if path.suffix == ".jsonl" or (pick(values, AUDIO) and pick(values, TEXT)) else ""


def _is_array(path: Path) -> bool:
    return path.is_file() and any(line.startswith("[") for _, line in _first_line(path))


_MARKS = {
    "cuts": {"supervisions", "start", "duration"},
    "recordings": {"sources", "sampling_rate"},
    "supervisions": {"recording_id", "start", "duration"},
}


def _first_line(path: Path) -> list[tuple[int, str]]:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        line = file.readline(_SAMPLE).strip()
    return [(1, line)] if line else []


def _find_json(root: Path) -> Listing | None:
    found = _json_files(root, "rows").get("rows")
    if not found:
        return None
    path = _only(root, found)
    return _below(root, path, read_json_lines(path, *_lines(path)))


def _find_lhotse(root: Path) -> Listing | None:
    found = _json_files(root, "cuts", "supervisions")
    if cuts := found.get("cuts"):
        path = _only(root, cuts)
        return _below(root, path, read_lhotse(path, *_lines(path), None))
    if "supervisions" in found and "recordings" in found:
        path, recordings = _only(root, found["supervisions"]), _only(root, found["recordings"])
        return _below(root, path, read_lhotse(path, *_lines(path), recordings))
    return None


def _below(root: Path, path: Path, listing: Listing) -> Listing:
    """``listing`` as read from ``path``, whose paths may be relative to its own folder, too."""
    own = path.parent.relative_to(root).as_posix()
    places = listing.folders + tuple(f"{own}/{name}" for name in listing.folders if own != ".")
    return replace(listing, source=path.relative_to(root).as_posix(), folders=places)


def _if(found: Callable[[Path], object], read: Callable[[Path], Listing]) -> Callable[[Path], Listing | None]:
    return lambda root: read(root) if found(root) else None


LAYOUTS: dict[str, Callable[[Path], Listing | None]] = {
    **{layout: partial(_find_columns, layout=layout) for layout in (*FORMS, "table")},
    "jsonl": _find_json,
    "commonvoice": _find_common_voice,
    "vctk": _if(folders.is_vctk, folders.read_vctk),
    "libritts": _if(folders.is_libritts, folders.read_libritts),
    "mls": _if(folders.find_mls, folders.read_mls),
    "mailabs": _if(folders.find_mailabs, folders.read_mailabs),
    "kaldi": _if(folders.is_kaldi, folders.read_kaldi),
    "lhotse": _find_lhotse,
    "parquet": _if(find_parquet, lambda root: read_parquet(root, find_parquet(root))),
}
"""Each with what reads it from a folder: None where the folder is in another."""
