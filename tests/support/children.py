"""Child processes that prepare small corpora, and are killed where a test wants it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import forks
from small_corpus import set_small_pieces


def start(function: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Call a function of a module in a child, on a corpus cut into small pieces."""
    return forks.start(_run, function, arguments)


def killed_at(flush: int, function: Callable[..., object], *arguments: Any, **named: Any) -> bool:
    """Call a function in a child that kills itself at its n-th flush to disk; False when it ended before."""
    child = start(_die_at, flush, function, arguments, named)
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def _run(function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    set_small_pieces()
    function(*arguments)


def _die_at(
    flush: int, function: Callable[..., object], arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    flush_to_disk, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == flush:
            os.kill(os.getpid(), signal.SIGKILL)
        flush_to_disk(descriptor)

    os.fsync = fsync
    function(*arguments, **named)
