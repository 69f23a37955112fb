"""Files that are either absent, old or complete, and paths that stay inside their folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ttsfast.errors import InputError


def is_folder(path: Path) -> bool:
    """Whether a folder is there; False too for what the system cannot look for, such as too long a name."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` and publish it only when the block succeeds.

    Written, flushed to disk, renamed over ``path``; then the folder is flushed. When the block
    raises, the temporary file is removed and ``path`` keeps what it held.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        # mkstemp creates 0600; what is published is as readable as any new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


@contextmanager
def naming(path: Path | str, remedy: str) -> Iterator[None]:
    """In the block that writes ``path``, give an OSError one line that names it and ends in ``remedy``."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(f"{path}: cannot be written ({why}); {remedy}") from error


def output_folder(path: Path) -> Path:
    """Make a folder for results before the work that fills it; raise InputError when that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be written to ({error.strerror}); choose another folder") from error
    return path


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raise InputError where ``what`` needs more bytes in ``folder`` (there or not yet) than are free."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(
            f"{folder}: {what} takes about {needed / 2**30:,.2f} GiB, and {free / 2**30:,.2f} GiB are free "
            "there; make room, or choose another folder"
        )


def check_output_file(path: Path) -> None:
    """Refuse, before the work that fills it, a file that cannot be written; makes nothing.

    Raises InputError when it is a folder, or when files cannot be made beside it.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file's name")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        # A name can be too long where the folder is right.
        path.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another file") from error


def inside(root: Path, relative: str, what: str) -> Path:
    """Join ``relative`` to ``root``; raise InputError when the result would leave ``root``.

    ``what`` names the file and entry that the path came from, for the message.
    """
    candidate = Path(relative)
    resolved = (root / candidate).resolve()
    if candidate.is_absolute() or not resolved.is_relative_to(root.resolve()):
        raise InputError(f"{what}: the path {relative!r} leaves {root}; use a path inside that folder")
    return root / candidate


def file_sha256(path: Path | str) -> str:
    """The SHA-256 of a file's content, in hexadecimal; raises InputError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error
    return digest.hexdigest()


def from_home(path: str) -> str:
    """A path with the folder that ``~`` or ``~name`` at its start stands for; any other as it is.

    A shell leaves them to the program in ``key=~/x``, and nobody else reads them in a file.
    """
    return os.path.expanduser(path)


def is_address(path: Path | str) -> bool:
    """Whether ``path`` is an address (``s3://bucket/store``) and not a path of this machine."""
    return "://" in str(path)
