"""Stores at an address that ``fsspec`` reads: S3, GCS, Azure, HTTP, a zip file, and its many others."""

from __future__ import annotations

from ttsfast.data.store.manifest import NAME, Manifest
from ttsfast.data.store.manifest_reader import parse_manifest
from ttsfast.data.store.shard import Shard
from ttsfast.data.store.shard_file import ShardFile
from ttsfast.errors import InputError

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
        return ShardFile.of_bytes(f"{self.address}/{shard.name}", self.read(shard.name), shard, n_mels)


def _failed(what: str, error: Exception) -> InputError:
    text = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{what}: cannot be read ({type(error).__name__}: {text}); {_REMEDY}")
