"""What a client may ask for, as OpenAI's ``POST /v1/audio/speech`` has it, and how it is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ttsfast.models.interface import AS_LEARNT, RANGES, Delivery

STREAMED = {"wav": "audio/wav", "pcm": "audio/pcm"}
"""Formats that are sent a sentence at a time, with their media types."""
WHOLE = {"mp3": "audio/mpeg", "flac": "audio/flac"}
"""Formats that are sent when all is spoken."""
DEFAULT = "mp3"
_ANY_SPEAKER = ("", "default")
_KNOWN = ("model", "input", "voice", "response_format", "speed", "stream_format", "instructions")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the service takes on at once, so that no client can exhaust it."""

    characters: int = 4096
    """of a text"""
    requests: int = 32
    """being spoken or waiting for it; one more is told to come back"""
    seconds: float = 30.0
    """that a client may take to send its request, or to read the next 32 KiB of an answer"""

    @property
    def body_bytes(self) -> int:
        """of a request: JSON may write a character in twelve."""
        return 12 * self.characters + 4096


class Refused(Exception):
    """A request that is answered with an error; ``param`` is the key that is at fault."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param

    def to_dict(self) -> dict[str, Any]:
        """As OpenAI's clients expect it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": None}}


@dataclass(frozen=True)
class SpeechRequest:
    """One text to speak."""

    text: str
    speaker: str | None
    """by name; None for the voice's first"""
    format: str
    delivery: Delivery

    @classmethod
    def parse(cls, body: bytes, speakers: Sequence[str], limits: Limits) -> SpeechRequest:
        """Read a request's body; raises Refused, naming the key, for what cannot be done as it is asked.

        No value is taken for a path: ``voice`` is looked up among ``speakers``, and ``model`` may be any
        name, as there is one.
        """
        try:
            values = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"the body is not JSON ({str(error)[:100]})") from error
        if not isinstance(values, dict):
            raise Refused(400, "the body must be a JSON object")
        if unknown := [str(key) for key in values if key not in _KNOWN]:
            raise Refused(
                400, f"unknown key {unknown[0]!r:.80}; known are {', '.join(_KNOWN)}", unknown[0][:80]
            )
        for key in ("model", "input", "voice", "response_format", "stream_format", "instructions"):
            if not isinstance(values.get(key, ""), str):
                raise Refused(400, f"{key} must be a string", key)
        return cls(
            _text(values.get("input", ""), limits),
            _speaker(values.get("voice", ""), speakers),
            _format(values),
            Delivery(speed=_speed(values.get("speed", AS_LEARNT.speed))),
        )


def _text(text: str, limits: Limits) -> str:
    if not text.strip():
        raise Refused(400, "input is empty: give a text to speak", "input")
    if len(text) > limits.characters:
        raise Refused(
            400,
            f"input has {len(text)} characters, at most {limits.characters} are spoken at a time",
            "input",
        )
    # Half of a surrogate pair is no character, and cannot be written in any message.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Refused(400, "input holds half of a surrogate pair", "input")
    return text


def _speaker(name: str, speakers: Sequence[str]) -> str | None:
    if name in speakers:
        return name
    if name in _ANY_SPEAKER:
        return None
    known = ", ".join(repr(speaker) for speaker in speakers if speaker) or "'default'"
    raise Refused(400, f"no voice {ascii(name)[:80]}; there is {known}", "voice")


def _speed(wanted: Any) -> float:
    low, high = RANGES["speed"]
    # Compared as it came: no float is as large as an integer of JSON may be.
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not low <= wanted <= high:
        raise Refused(400, f"speed must be a number from {low:g} to {high:g}", "speed")
    return float(wanted)


def _format(values: dict[str, Any]) -> str:
    wanted = values.get("response_format", DEFAULT)
    if wanted not in (*STREAMED, *WHOLE):
        raise Refused(
            400,
            f"response_format {ascii(wanted)[:80]} is not made here; use {', '.join((*STREAMED, *WHOLE))}",
            "response_format",
        )
    if values.get("stream_format", "audio") != "audio":
        raise Refused(400, "only stream_format 'audio' is made here", "stream_format")
    if values.get("instructions"):
        raise Refused(400, "the voice takes no instructions: leave them out", "instructions")
    return str(wanted)
