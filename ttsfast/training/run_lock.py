"""One trainer at a time in a run folder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ttsfast.errors import InputError
from ttsfast.files import naming, output_folder
from ttsfast.progress import console
from ttsfast.training.distributed.process_group import ProcessGroup

NAME = ".lock"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What a file system says that keeps none, such as NFS without its lock service."""


class RunLock:
    """Held by the first rank while a run is read and written; the others go by its word.

    The lock is the system's (``flock``, which Linux passes on to an NFS server), so it ends with the process
    that holds it, however that ends, and a suspended one keeps it. Its file stays, and says who held it last.
    """

    def __init__(self, run_folder: Path, ranks: ProcessGroup) -> None:
        self._path, self._ranks = run_folder / NAME, ranks
        self._held: int | None = None
        self._taken = False

    def take(self) -> None:
        """Take it, and make the folder, where this trainer does not hold it already.

        Raises:
            InputError: another trainer holds it; on all ranks.
        """
        if self._taken:
            return
        refusal = self._ranks.broadcast_object(self._try() if self._ranks.is_first else None)
        if refusal is not None:
            raise InputError(refusal)
        self._taken = True

    def release(self) -> None:
        """Let others take it; once more does nothing."""
        self._taken = False
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def __enter__(self) -> RunLock:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _try(self) -> str | None:
        """Take it, or say who has it."""
        output_folder(self._path.parent)
        with naming(self._path, "make room, or let it be written to"):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno in NO_LOCKS:
                console.print(
                    f"{self._path.parent}: its file system has no locks ({error.strerror}), so nothing "
                    "keeps a second trainer out",
                    markup=False,
                )
                return None
            if error.errno != errno.EWOULDBLOCK:
                raise
            who = f" ({holder})" if holder else ""
            return (
                f"{self._path.parent}: another trainer is at work there{who}; wait for it, end it (a "
                "suspended one is still there), or set another training.run_folder"
            )
        self._held = descriptor
        # For people only: on a full disk it is missing.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return None
