"""Child processes for the tests: started quickly, and killed where a test wants it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from small_corpus import set_small_pieces

# Imported by the package when they are needed: once in the server is faster than in every child.
_LAZY = ("joblib", "librosa.filters", "safetensors.numpy", "scipy.fft", "soundfile")


def start(function: Callable[..., object], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Call a function of a module in a child, on a corpus cut into small pieces.

    The child comes from a server without threads: one forked from here could wait for ever for a lock that
    another thread of this process held at that moment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "ttsfast.data.append", *_LAZY])
    child = context.Process(target=_run, args=(function, arguments))
    child.start()
    return child


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
