"""An end to code that does not end by itself."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeUp(BaseException):
    """The time of a block is over. Not an Exception, so that code of other people's does not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeUp` within the block after so many seconds.

    By an alarm, which interrupts Python but not a call into C that takes long, and which only a main thread
    can set: in another thread the block runs to its end. A timer that was set before goes on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeUp

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            rest = max(1e-3, left - (time.monotonic() - started))
            signal.setitimer(signal.ITIMER_REAL, rest, interval)
