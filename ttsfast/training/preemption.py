"""SIGTERM, as a scheduler sends it before it takes a machine away: save, then leave."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Preemption:
    """Within the block SIGTERM sets :attr:`requested` instead of ending the process.

    A signal can only be caught in the main thread; elsewhere this does nothing, and SIGTERM ends the process
    as ever.
    """

    def __init__(self) -> None:
        self.requested = False
        self._earlier: Any = None
        self._installed = False

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():
            self._earlier = signal.signal(signal.SIGTERM, self._request)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            # None: a handler that was not set from Python, which cannot be put back from here.
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._earlier is None else self._earlier)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
