"""Stores at an address that ``fsspec`` reads (S3, GCS, Azure, HTTP, a zip file, and its many others), and the
folder on this machine that keeps their shards.

Shards are kept by the SHA-256 of their content, so stores that share shards (one before and after an append)
share the files, and a store that was replaced is never mixed with the new one. A file is fetched under a
temporary name, compared with the manifest's size and hash, and only then given its own name: what is there by
that name was right. Processes may share the folder: each file is fetched by one of them, the others wait.

With a limit, what was not opened for the longest time goes first, and never what the store being opened
needs. Files that another process has open stay readable to it: the system keeps them until it closes them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ttsfast.data.store.folder import explained_disk_errors
from ttsfast.data.store.manifest import NAME, Manifest
from ttsfast.data.store.manifest_reader import parse_manifest
from ttsfast.data.store.shard import Shard
from ttsfast.data.store.shard_file import ShardFile, check_index
from ttsfast.errors import InputError
from ttsfast.files import atomic_write
from ttsfast.progress import track

_REMEDY = "check the address, what it may be read with, and the connection"


class Remote:
    """A store's files, read whole. Raises InputError, naming the address, for whatever goes wrong there."""

    def __init__(self, address: str) -> None:
        try:
            import fsspec
        except ModuleNotFoundError as error:
            raise InputError(f"{address}: needs the package fsspec: pip install 'ttsfast[remote]'") from error
        self.address = address.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        # Back ends raise exceptions of their own, of no common base.
        except Exception as error:
            raise _failed(self.address, error) from error

    def read(self, name: str) -> bytes:
        """A file of the store."""
        try:
            return self._files.cat_file(f"{self._root.rstrip('/')}/{name}")
        except FileNotFoundError:
            raise InputError(f"{self.address}/{name}: no such file; {_REMEDY}") from None
        except Exception as error:
            raise _failed(f"{self.address}/{name}", error) from error

    def manifest(self) -> Manifest:
        """Read and checked."""
        return parse_manifest(self.read(NAME), f"{self.address}/{NAME}")

    def open_shard(self, shard: Shard, n_mels: int, _quick: bool) -> ShardFile:
        """A shard in memory, checked as :class:`ShardFile` does."""
        return ShardFile(f"{self.address}/{shard.name}", shard, n_mels, content=self.read(shard.name))


def _failed(what: str, error: Exception) -> InputError:
    text = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{what}: cannot be read ({type(error).__name__}: {text}); {_REMEDY}")


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/ttsfast/shards``, or ``~/.cache/ttsfast/shards``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ttsfast" / "shards"


def open_shards(
    address: str, cache: Path | str | None, limit: int | None, *, in_memory: bool
) -> tuple[Manifest, list[ShardFile]]:
    """The manifest at ``address``, and every shard that it names, fetched where it is not in the cache yet.

    Raises InputError as :class:`Remote` does; when what arrives is not what the manifest says; and when the
    cache cannot be written to, its disk is full, or its limit is below the size of this one store.
    """
    folder = Path(cache) if cache is not None else default_cache()
    remote = Remote(address)
    manifest = remote.manifest()
    with explained_disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise InputError(f"{folder}: is a file; give a folder for the cache") from None
        if limit is not None:
            _make_room(folder, manifest.shards, limit)
        opened = []
        # Held until all are open, so that no other process removes one in between.
        with _locked(folder / ".lock", fcntl.LOCK_SH):
            shards = track(manifest.shards, "fetching shards", len(manifest.shards))
            for number, shard in enumerate(shards):
                path = _fetched(folder, remote, shard)
                remedy = f"remove it, and it will be fetched from {address} again"
                file = ShardFile(path, shard, manifest.contract.n_mels, in_memory=in_memory, remedy=remedy)
                check_index(manifest, number, file)
                opened.append(file)
    return manifest, opened


def _fetched(folder: Path, remote: Remote, shard: Shard) -> Path:
    path = _path(folder, shard)
    if not _there(path, shard):
        with _locked(folder / f".{shard.sha256}.lock", fcntl.LOCK_EX):
            # Another process may have fetched it meanwhile.
            if not _there(path, shard):
                content = remote.read(shard.name)
                if len(content) != shard.size or hashlib.sha256(content).hexdigest() != shard.sha256:
                    raise InputError(
                        f"{remote.address}/{shard.name}: what arrives is not what the manifest says "
                        f"({len(content)} bytes of {shard.size}); try again, or run `ttsfast verify` on it"
                    )
                with atomic_write(path) as handle:
                    handle.write(content)
    # When it was last opened, on file systems that do not record reading. Not the kernel's own idea of now,
    # which two openings within milliseconds share.
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    return path


def _path(folder: Path, shard: Shard) -> Path:
    return folder / f"{shard.sha256}.safetensors"


def _there(path: Path, shard: Shard) -> bool:
    """Whether a shard is in the cache; one that was cut short since is fetched again."""
    try:
        return path.stat().st_size == shard.size
    except FileNotFoundError:
        return False


def _make_room(folder: Path, shards: Sequence[Shard], limit: int) -> None:
    """Remove what was not opened for the longest time, until what is needed fits."""
    needed = {_path(folder, shard): shard.size for shard in shards}
    total = sum(needed.values())
    if total > limit:
        raise InputError(
            f"{folder}: this store alone takes {total} bytes and the cache's limit is {limit}; raise the "
            "limit"
        )
    others = [path for path in folder.glob("*.safetensors") if path not in needed]
    room = limit - total
    if sum(path.stat().st_size for path in others) <= room:
        return
    with _locked(folder / ".lock", fcntl.LOCK_EX):
        kept = 0
        for path in sorted((p for p in others if p.exists()), key=lambda p: -p.stat().st_mtime_ns):
            kept += path.stat().st_size
            if kept > room:
                path.unlink()


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    """Wait for a lock of the system; a killed process leaves none behind."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
