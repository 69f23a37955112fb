"""The folder of a store: which names in it are ours, who may write into it, and what is cleaned away."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ttsfast.data.store.manifest import NAME, Manifest
from ttsfast.data.store.shard import SHARD_NAME
from ttsfast.errors import InputError
from ttsfast.files import fsync_folder

WORK = ".ttsfast-work"
"""What preparation keeps until the store is complete, in the store's own folder: so on the same disk."""
_DONE = ".ttsfast-work-done"
_LEFTOVER = re.compile(rf"\.({SHARD_NAME.pattern}|manifest\.json)\..*\.tmp")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_PLACE = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EEXIST}


def check_folder(folder: Path) -> None:
    """Refuse to write below a file, or among files that are not ours; makes nothing."""
    with explained_disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; give a folder for the store")
        for path in (folder, *folder.parents):
            if path.is_symlink() and not path.exists():
                raise InputError(
                    f"{folder}: cannot be made, the link {path} leads nowhere; give another folder for "
                    "the store"
                )
        for parent in folder.parents:
            if parent.exists() and not parent.is_dir():
                raise InputError(
                    f"{folder}: cannot be made, {parent} is a file; give another folder for the store"
                )
        if folder.is_dir() and not (folder / NAME).exists():
            strangers = [path.name for path in folder.iterdir() if not _ours(path.name)]
            if strangers:
                raise InputError(
                    f"{folder}: holds other files ({sorted(strangers)[0]}); give an empty folder"
                )
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        # Nothing need be written to a store that turns out to be complete.
        if not (folder / NAME).exists() and not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
            code = errno.EROFS if os.statvfs(nearest).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(code, os.strerror(code), str(nearest))
        if not (folder / NAME).exists():
            _try_to_write(folder, nearest)


def _try_to_write(folder: Path, nearest: Path) -> None:
    """What permissions do not tell: that the system makes no files there, or lets nobody, root included."""
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        if error.errno in _FULL | _FORBIDDEN:
            raise OSError(error.errno, error.strerror, str(nearest)) from error
        why = (error.strerror or str(error)).lower()
        raise InputError(
            f"{folder}: cannot be made, {why} ({nearest}); give another folder for the store"
        ) from error


def _ours(name: str) -> bool:
    return name in (WORK, _DONE) or bool(SHARD_NAME.fullmatch(name) or _LEFTOVER.fullmatch(name))


@contextmanager
def explained_disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the system says of a full disk or a folder that is not to be written to into one line.

    Other errors of the system pass: they are no one's input.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(
                f"{folder}: cannot be written, {_one_line(error)}: make room, or raise the quota, and run it "
                "again; what is complete is kept, and no store is damaged"
            ) from error
        if error.errno in _FORBIDDEN:
            raise InputError(
                f"{folder}: cannot be written, {_one_line(error)}: give a folder that this user may write to"
            ) from error
        if error.errno in _NO_PLACE:
            raise InputError(f"{folder}: cannot be made, {_one_line(error)}: give another folder") from error
        if error.errno == errno.ENOENT and not folder.is_dir():
            raise InputError(
                f"{folder}: cannot be made, or was removed meanwhile, {_one_line(error)}: give another "
                "folder, or run it again"
            ) from error
        raise


def _one_line(error: OSError) -> str:
    named = f" ({error.filename})" if error.filename else ""
    return f"{(error.strerror or str(error)).lower()}{named}"


@contextmanager
def folder_lock(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """One preparation at a time, or several workers that keep to parts of their own (``shared``).

    The lock is the system's, so a killed process leaves none behind.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another preparation is at work there; wait for it") from None
        yield
    finally:
        os.close(descriptor)


def withdraw_manifest(folder: Path) -> None:
    """Take a store's manifest away: for a while the folder holds no store."""
    (folder / NAME).unlink()
    fsync_folder(folder)


def remove_leftovers(folder: Path, manifest: Manifest) -> None:
    """Remove what interrupted runs and a replaced store have left.

    The work goes as a whole: a part of it that is left would be taken for the beginning of another.
    """
    current = {shard.name for shard in manifest.shards}
    for path in folder.iterdir():
        stale = SHARD_NAME.fullmatch(path.name) and path.name not in current
        if stale or _LEFTOVER.fullmatch(path.name):
            path.unlink()
    shutil.rmtree(folder / _DONE, ignore_errors=True)
    with suppress(FileNotFoundError):
        (folder / WORK).rename(folder / _DONE)
    shutil.rmtree(folder / _DONE, ignore_errors=True)
