"""Standard streams whose reader may have gone, whose disk may be full, or which were never open."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any


class Forgiving:
    """A stream that drops what cannot be written: work is worth more than what it says of itself."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As a stream's; never raises OSError."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As a stream's; never raises OSError."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_closed() -> None:
    """Give standard streams that are closed the null device: the next files opened would get their numbers,
    and what libraries print there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def print_anything() -> None:
    """Have standard streams write, in any locale, what their encoding lacks as Python's escapes of it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def settle(stream: Any) -> None:
    """Flush a standard stream for the last time, or point it at the null device.

    The interpreter tries once more as it ends, and where that fails it prints, and changes the exit code.
    """
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
