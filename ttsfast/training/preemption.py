"""SIGTERM, as a scheduler sends it before it takes a machine away, and Ctrl-C: save, then leave."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
HEARD = b"\nCtrl-C: a checkpoint is written after the step under way; once more ends at once, without one\n"


class Preemption:
    """Within the block SIGTERM, or a first Ctrl-C, sets :attr:`requested` instead of ending the process.

    A signal can only be caught in the main thread; elsewhere this does nothing, and SIGTERM ends the process
    as ever.

    Args:
        alone: a second Ctrl-C ends at once. Under ``torchrun`` each comes twice, from the terminal and from
            torchrun, so several ranks take any number as one.
    """

    def __init__(self, *, alone: bool = True) -> None:
        self.requested = False
        self.cause = NAMES[signal.SIGTERM]
        """What came first; of several ranks another may have been told."""
        self._alone = alone
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():
            for number in NAMES:
                # A shell keeps Ctrl-C from what it starts in its background.
                if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                    self._earlier[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, earlier in self._earlier.items():
            # None: a handler that was not set from Python, which cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)

    def _request(self, number: int, frame: FrameType | None) -> None:
        interrupted = number == signal.SIGINT
        if self.requested and interrupted and self._alone:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self.cause = True, NAMES[signal.Signals(number)]
            if interrupted and self._alone:
                # Not by a stream, which the signal may have come in the midst of.
                with suppress(OSError):
                    os.write(2, HEARD)
