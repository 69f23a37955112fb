"""Stores at an address: fetched once, checked before use, safe to share, and never more than the limit."""

from __future__ import annotations

import functools
import http.server
import os
import pickle
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from children import start
from small_corpus import contents, prepare_small, set_small_pieces, write_corpus

from ttsfast.config import load_config
from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.prepare.append import append
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.remote import Remote, default_cache
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError
from ttsfast.training.setup import open_store

fsspec = pytest.importorskip("fsspec", reason="the extra 'remote' is not installed")


@pytest.fixture(scope="module")
def pristine(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ttsfast.data.prepare import extraction, writer

    folder = tmp_path_factory.mktemp("store")
    kept = extraction.CHUNK, writer.SHARD_FRAMES
    set_small_pieces()
    prepare_small(corpus, folder)
    extraction.CHUNK, writer.SHARD_FRAMES = kept
    assert len(read_manifest(folder).shards) > 3
    return folder


@pytest.fixture
def memory(pristine: Path) -> Iterator[str]:
    """The store in fsspec's memory."""
    files = fsspec.filesystem("memory")
    for name, content in contents(pristine).items():
        files.pipe_file(f"/bucket/store/{name}", content)
    yield "memory://bucket/store"
    files.store.clear()


class _Server(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Quietly."""


@pytest.fixture
def served(pristine: Path, tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """The store on a server of this machine: its address, its folder, what was asked for."""
    folder = Path(shutil.copytree(pristine, tmp_path / "served"))
    _Server.asked = []
    handler = functools.partial(_Server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder, _Server.asked
        server.shutdown()
        thread.join()


def read(store: Store) -> dict[str, bytes]:
    return {utterance.id: utterance.mel.tobytes() for utterance in (store[i] for i in range(len(store)))}


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.safetensors"))


def test_the_same_utterances_from_everywhere(
    pristine: Path, memory: str, served: tuple[str, Path, list[str]], tmp_path: Path
) -> None:
    local = Store.open(pristine)
    expected = read(local)
    for number, address in enumerate((memory, served[0], f"file://{pristine}", memory + "/")):
        for memory_map in (True, False):
            store = Store.open(address, cache=tmp_path / str(number), memory_map=memory_map)
            assert read(store) == expected
            assert str(store.path) == address
            np.testing.assert_array_equal(store.silence, local.silence)
    with MelLoader.open(memory_store(memory, tmp_path), batch_size=4, num_workers=1) as loader:
        assert sum(len(batch.ids) for batch in loader) == len(local.indices("train"))


def memory_store(address: str, tmp_path: Path) -> Store:
    return Store.open(address, cache=tmp_path / "cache")


def test_each_shard_is_fetched_once(served: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    address, folder, asked = served
    shards = [f"/{shard.name}" for shard in read_manifest(folder).shards]
    for _ in range(3):
        Store.open(address, cache=tmp_path)
    assert sorted(asked) == sorted([*shards, *[f"/{NAME}"] * 3])


def open_and_read(address: str, cache: Path, expected: dict[str, bytes]) -> None:
    assert read(Store.open(address, cache=cache)) == expected


def test_processes_at_once_share_the_work(served: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    address, folder, asked = served
    expected = read(Store.open(folder))
    children = [start(open_and_read, address, tmp_path / "cache", expected) for _ in range(4)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert sorted(asked) == sorted(
        [*[f"/{shard.name}" for shard in read_manifest(folder).shards], *[f"/{NAME}"] * 4]
    )


def test_what_arrives_damaged_is_refused_and_not_kept(
    served: tuple[str, Path, list[str]], tmp_path: Path
) -> None:
    address, folder, _ = served
    shard = sorted(folder.glob("mel-*"))[1]
    whole = shard.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"\xff", b""):
        shard.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{address}/{shard.name}: what arrives is not what") as error:
            Store.open(address, cache=tmp_path / "cache")
        assert "\n" not in str(error.value)
        assert len(kept(tmp_path / "cache")) == 1
        assert not verify(address).ok
    shard.write_bytes(whole)
    assert read(Store.open(address, cache=tmp_path / "cache")) == read(Store.open(folder))


def test_a_cached_shard_cut_short_is_fetched_again(memory: str, pristine: Path, tmp_path: Path) -> None:
    Store.open(memory, cache=tmp_path)
    cached = next(iter(tmp_path.glob("*.safetensors")))
    os.truncate(cached, 50)
    assert read(Store.open(memory, cache=tmp_path)) == read(Store.open(pristine))


def test_a_cached_shard_that_rots_is_named_with_its_own_remedy(memory: str, tmp_path: Path) -> None:
    Store.open(memory, cache=tmp_path)
    cached = next(iter(tmp_path.glob("*.safetensors")))
    content = bytearray(cached.read_bytes())
    content[-1] ^= 1
    cached.write_bytes(content)
    with pytest.raises(InputError, match=rf"{cached.name}.*remove it, and it will be fetched from {memory}"):
        read(Store.open(memory, cache=tmp_path))
    cached.unlink()
    read(Store.open(memory, cache=tmp_path))


def test_the_limit_holds_and_the_longest_unused_goes_first(
    corpus: Path, memory: str, pristine: Path, tmp_path: Path
) -> None:
    size = sum(shard.size for shard in read_manifest(pristine).shards)
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=rf"takes {size} bytes and the cache's limit is {size - 1}"):
        Store.open(memory, cache=cache, cache_limit=size - 1)
    stores = {}
    for seed in (1, 2):
        prepare_small(corpus, tmp_path / str(seed), seed=seed)
        stores[seed] = f"file://{tmp_path / str(seed)}"
        Store.open(stores[seed], cache=cache)
    one, two = (read_manifest(tmp_path / str(seed)).shards[0] for seed in (1, 2))
    # The first was opened again, so the second goes.
    old = Store.open(stores[1], cache=cache)
    opened = Store.open(memory, cache=cache, cache_limit=size + max(one.size, two.size))
    names = kept(cache)
    assert f"{one.sha256}.safetensors" in names
    assert f"{two.sha256}.safetensors" not in names
    assert sum((cache / name).stat().st_size for name in names) <= size + max(one.size, two.size)
    Store.open(memory, cache=cache, cache_limit=size)
    assert len(kept(cache)) == len(read_manifest(pristine).shards)
    # What is open stays readable.
    assert read(old) == read(Store.open(tmp_path / "1"))
    assert read(opened) == read(Store.open(pristine))


def test_an_append_fetches_only_what_is_new(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 10)
    prepare_small(corpus, tmp_path / "store")
    address, cache = f"file://{tmp_path / 'store'}", tmp_path / "cache"
    Store.open(address, cache=cache)
    before = {path: path.stat().st_ino for path in cache.glob("*.safetensors")}
    append(write_corpus(corpus, 14), tmp_path / "store", jobs=1)
    assert len(Store.open(address, cache=cache)) == 14
    assert len(kept(cache)) == len(before) + 1
    assert all(path.stat().st_ino == number for path, number in before.items())


def test_verification_streams_and_keeps_nothing(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for quick in (True, False):
        report = verify(memory, quick=quick)
        assert report.ok
        assert report.to_dict()["store"] == memory
    assert not list(tmp_path.iterdir())
    files = fsspec.filesystem("memory")
    path = next(name for name in files.ls("/bucket/store", detail=False) if name.endswith(".safetensors"))
    content = bytearray(files.cat_file(path))
    content[-1] ^= 1
    files.pipe_file(path, bytes(content))
    assert any(Path(path).name in problem for problem in verify(memory).problems)


def test_the_default_cache_and_other_processes(
    memory: str, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "ttsfast" / "shards"
    store = Store.open(memory)
    assert len(kept(tmp_path / "ttsfast" / "shards")) == len(read_manifest(pristine).shards)
    assert read(pickle.loads(pickle.dumps(store))) == read(store)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "ttsfast" / "shards"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://bucket/nothing", r"memory://bucket/nothing/manifest\.json: no such file"),
        ("nonsense://bucket/store", "nonsense://bucket/store: cannot be read .*nonsense"),
        ("http://127.0.0.1:1/store", r"http://127.0.0.1:1/store/manifest\.json: cannot be read .*check the"),
    ],
)
def test_what_cannot_be_read_is_one_line(address: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        Store.open(address, cache=tmp_path)
    assert "\n" not in str(error.value)
    assert not verify(address).ok


def test_a_shard_that_is_not_there_is_named(served: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    address, folder, _ = served
    shard = sorted(folder.glob("mel-*"))[-1]
    shard.unlink()
    with pytest.raises(InputError, match=f"{address}/{shard.name}: no such file"):
        Store.open(address, cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(memory: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        Store.open(memory, cache=tmp_path / "file")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(InputError, match=r"pip install 'ttsfast\[remote\]'"):
        Remote("memory://bucket/store")


def test_a_configuration_may_name_an_address(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = {"store": f"file://{pristine}", "sample_rate": 8000, "n_mels": 12}
    config = load_config(
        overrides=[f"data.{name}={value}" for name, value in settings.items()], preset="demo"
    )
    assert read(open_store(config)) == read(Store.open(pristine))
