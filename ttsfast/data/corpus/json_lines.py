"""Listings of JSON lines: this project's own, NeMo's manifests and others of their kind, Lhotse's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ttsfast.data.corpus.fields import AUDIO, ID, SPEAKER, TEXT, pick
from ttsfast.data.corpus.rows import Exclusion, Fault, Listing, Row, read_lines, rows_of
from ttsfast.data.corpus.suffixes import FOLDERS

FORM = '{"audio": path, "text": ...}'
_KINDS = {"audio": str, "text": str, "speaker": str, "id": str, "truncated": bool}
_CLOSE = 0.05
"""Seconds by which a recording's end may differ from that of the piece that is listed."""


def read_json_lines(path: Path, lines: list[tuple[int, str]], undecodable: list[Exclusion]) -> Listing:
    """A listing of a JSON object a line: with the keys of :data:`_KINDS`, of which a wrong one is a fault, or
    with other names for path, text and speaker, among keys that are not read.
    """
    used: set[str] = set()

    def parse(number: int, line: str) -> Row:
        return _row(parse_object(line), number, used)

    rows = rows_of(path.name, lines, parse)
    form = FORM if not used else f"JSON with the keys {', '.join(sorted(used))}"
    return Listing("jsonl", form, path.name, rows, undecodable, ("", *FOLDERS))


def parse_object(line: str) -> dict[str, Any]:
    """The JSON object of a line; raises Fault for what is none."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Fault("malformed line", f"is not JSON ({error}); correct the line") from error
    if not isinstance(values, dict):
        raise Fault("malformed line", 'is not a JSON object; write {"audio": ..., "text": ...}')
    return values


def _row(values: dict[str, Any], number: int, used: set[str]) -> Row:
    if "audio" in values or not pick(values, AUDIO):
        return _own_row(values, number)
    keys = {"audio": pick(values, AUDIO), "text": pick(values, TEXT)}
    keys |= {"speaker": pick(values, SPEAKER), "id": pick(values, ID)}
    if not keys["text"]:
        raise Fault("malformed line", "has no key 'text'; add it")
    if values.get("offset"):
        raise Fault("piece of a recording", _PIECE)
    used |= {key for key in keys.values() if key}
    # Speakers are numbers in many.
    plain = {
        role: str(values[key]) if role in ("speaker", "id") and type(values[key]) is int else values[key]
        for role, key in keys.items()
        if key and values[key] is not None
    }
    return _own_row(plain, number)


def _own_row(values: dict[str, Any], number: int) -> Row:
    for key in values:
        if key not in _KINDS:
            raise Fault("malformed line", f"has the unknown key {key!r}; the keys are {', '.join(_KINDS)}")
        if not isinstance(values[key], _KINDS[key]):
            raise Fault("malformed line", f"{key!r} must be of type {_KINDS[key].__name__}; correct the line")
    for key in ("audio", "text"):
        if key not in values:
            raise Fault("malformed line", f"has no key {key!r}; add it")
    for key in ("audio", "id"):
        if not values.get(key, "x").strip():
            raise Fault("malformed line", f"{key!r} is empty; correct the line")
    # JSON can spell half a surrogate pair, which no file or screen can hold.
    if any("\ud800" <= character <= "\udfff" for value in values.values() for character in str(value)):
        raise Fault("malformed line", "holds a lone surrogate, which is not text; correct the line")
    return Row(
        name=values.get("id", values["audio"]),
        audio=values["audio"],
        text=values["text"],
        speaker=values.get("speaker", ""),
        truncated=values.get("truncated", False),
        line=number,
    )


_PIECE = "is a piece of a recording; cut the recordings, so that each utterance has its own"


def read_lhotse(
    path: Path, lines: list[tuple[int, str]], undecodable: list[Exclusion], recordings: Path | None
) -> Listing:
    """Lhotse's cuts, or its supervisions beside its ``recordings``; one supervision a recording."""
    known, faults = _recordings(recordings) if recordings is not None else ({}, [])

    def parse(number: int, line: str) -> Row:
        values = parse_object(line)
        try:
            if recordings is None:
                said, recording = values["supervisions"], values["recording"]
                if len(said) != 1:
                    raise Fault(
                        "piece of a recording", f"has {len(said)} supervisions, one is needed; {_PIECE}"
                    )
                return _lhotse_row(said[0], recording, values, number)
            if values["recording_id"] not in known:
                detail = f"{recordings.name} has no recording {values['recording_id']!r}; add it"
                raise Fault("missing audio", detail)
            return _lhotse_row(values, known[values["recording_id"]], values, number)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise Fault("malformed line", f"is not Lhotse's ({error!r}); correct the line") from error

    rows = rows_of(path.name, lines, parse)
    return Listing("lhotse", "Lhotse's manifests", path.name, rows, undecodable + faults)


def _recordings(path: Path) -> tuple[dict[str, dict[str, Any]], list[Exclusion]]:
    found: dict[str, dict[str, Any]] = {}

    def parse(number: int, line: str) -> Row:
        values = parse_object(line)
        found[str(values.get("id"))] = values
        return Row("", "", "")

    lines, undecodable = read_lines(path)
    faults = [line for line in rows_of(path.name, lines, parse) if isinstance(line, Exclusion)]
    return found, undecodable + faults


def _lhotse_row(said: dict[str, Any], recording: dict[str, Any], piece: dict[str, Any], number: int) -> Row:
    source = recording["sources"][0]
    if source["type"] != "file":
        detail = f"is of the source {source['type']!r}, which is not read; export the recording as a file"
        raise Fault("missing audio", detail)
    rest = recording["duration"] - piece["duration"]
    if (
        abs(piece["start"]) > _CLOSE
        or abs(rest) > _CLOSE
        or (said is not piece and abs(said["start"]) > _CLOSE)
    ):
        raise Fault("piece of a recording", _PIECE)
    values = {"audio": source["source"], "text": said["text"], "id": str(said["id"])}
    if said.get("speaker") is not None:
        values["speaker"] = str(said["speaker"])
    return _own_row(values, number)
