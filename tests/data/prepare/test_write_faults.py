"""Disks that fill, folders that may not be written, files cut short while in use: one line, and no crash."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from children import killed_at
from small_corpus import contents, options, prepare_small, write_corpus

from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.prepare.append import append
from ttsfast.data.prepare.partitions import Partition
from ttsfast.data.prepare.prepare import finalize, prepare_partition
from ttsfast.data.prepare.rebuild import rebuild
from ttsfast.data.store.folder import WORK
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError

pytestmark = pytest.mark.usefixtures("small_pieces")
NOBODY = 65534


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 12)


@pytest.fixture
def store(corpus: Path, tmp_path: Path) -> Path:
    return Path(prepare_small(corpus, tmp_path / "store").store)


def failing(monkeypatch: pytest.MonkeyPatch, code: int, call: int) -> None:
    """The n-th flush to disk fails as the system would."""
    flush_to_disk, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == call:
            raise OSError(code, os.strerror(code))
        flush_to_disk(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def prepare_it(corpus: Path, folder: Path) -> None:
    prepare_small(corpus, folder)


def prepare_partitions(corpus: Path, folder: Path) -> None:
    if not (folder / NAME).exists():
        for shard in ("1/2", "2/2"):
            prepare_partition(corpus, folder, options(), Partition.parse(shard))
    finalize(folder)


def append_to(corpus: Path, folder: Path) -> None:
    append(corpus, folder, jobs=1)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("run", [prepare_it, prepare_partitions])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[Path, Path], None],
    code: int,
) -> None:
    prepare_it(corpus, tmp_path / "whole")
    folder = tmp_path / "store"
    for call in (1, 2, 5, 9, 11):
        with monkeypatch.context() as patch:
            failing(patch, code, call)
            with pytest.raises(InputError, match=r"store: cannot be written, .*make room") as error:
                run(corpus, folder)
        assert "\n" not in str(error.value)
        assert not (folder / NAME).exists()
        assert not list(folder.rglob("*.tmp"))
        run(corpus, folder)
        assert contents(folder) == contents(tmp_path / "whole")
        shutil.rmtree(folder)


def test_an_append_that_fills_the_disk_leaves_the_old_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus", 12)
    folder = Path(prepare_small(corpus, tmp_path / "store").store)
    before = contents(folder)
    write_corpus(corpus, 20)
    for call in (1, 3, 3, 5):
        with monkeypatch.context() as patch:
            failing(patch, errno.ENOSPC, call)
            with pytest.raises(InputError, match="make room"):
                append_to(corpus, folder)
        assert before.items() <= contents(folder).items()
        assert verify(folder).ok
    append_to(corpus, folder)
    assert len(Store.open(folder)) == 20


def test_the_limit_of_the_system_itself(corpus: Path, tmp_path: Path) -> None:
    """A real refusal by the kernel: files may not grow past 4 KiB."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "sys.argv = ['ttsfast', *sys.argv[1:]]; from ttsfast.cli import main; main()"
    )
    arguments = ["prepare", str(corpus), str(tmp_path / "store"), "--resample", "--jobs", "1"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ttsfast:")]
    assert f"{tmp_path / 'store'}: cannot be written, file too large" in line
    assert "Traceback" not in done.stderr


@contextmanager
def nobody() -> Iterator[None]:
    """Root may do anything, whatever the permissions say."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public(corpus: Path) -> Iterator[Path]:
    """A folder that anyone may look into."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(corpus, folder / "corpus").chmod(0o755)
        yield folder


def test_a_folder_that_may_not_be_written_is_named_before_any_work(public: Path) -> None:
    folder = public / "store"
    folder.mkdir(mode=0o555)
    for target in (folder, folder / "below"):
        with nobody(), pytest.raises(InputError, match="that this user may write to") as error:
            prepare_small(public / "corpus", target)
        assert str(error.value).startswith(f"{target}: cannot be written, permission denied ({folder})")
    with nobody(), pytest.raises(InputError, match="may write to"):
        prepare_partition(public / "corpus", folder, options(), Partition(1, 2))
    folder.chmod(0o755)
    prepare_small(public / "corpus", folder)
    write_corpus(public / "corpus", 16)
    folder.chmod(0o555)
    with nobody():
        # Reading, and finding that nothing is to be done, take no right to write.
        assert verify(folder).ok
        for run in (lambda: append(public / "corpus", folder, jobs=1), lambda: rebuild(folder)):
            with pytest.raises(
                InputError, match=r"store: cannot be written, permission denied .*may write to"
            ):
                run()
    assert not list(folder.glob(".*"))


def test_a_complete_store_in_a_read_only_folder_is_complete(public: Path) -> None:
    folder = public / "store"
    prepare_small(public / "corpus", folder)
    folder.chmod(0o555)
    with nobody():
        assert prepare_small(public / "corpus", folder).unchanged
        assert append(public / "corpus", folder, jobs=1).unchanged


def test_files_that_may_not_be_read_are_named(public: Path) -> None:
    folder = public / "store"
    prepare_small(public / "corpus", folder)
    for path in (folder / NAME, next(iter(folder.glob("mel-*")))):
        path.chmod(0)
        with nobody(), pytest.raises(InputError, match=rf"{path.name}: cannot be read \(Permission denied\)"):
            Store.open(folder)
        with nobody():
            assert path.name in verify(folder).problems[0]
        path.chmod(0o644)
    (public / "corpus" / "u003.wav").chmod(0)
    with nobody(), pytest.raises(InputError, match=r"u003\.wav"):
        prepare_small(public / "corpus", folder)


def outcome(store: Store, index: int) -> Any:
    try:
        return store[index].mel.tobytes()
    except InputError as error:
        return " ".join(error.args)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_shard_cut_short_while_it_is_open_is_an_error_and_no_signal(store: Path, keep: float) -> None:
    opened, loaded = Store.open(store), Store.open(store, memory_map=False)
    expected = [utterance.mel.tobytes() for utterance in (loaded[i] for i in range(len(loaded)))]
    for name in store.glob("mel-*"):
        os.truncate(name, int(keep * name.stat().st_size))
    found = [outcome(opened, index) for index in range(len(opened))]
    wrong = [text for text, right in zip(found, expected, strict=True) if text != right]
    assert wrong
    assert all("cut short to" in text and "while it is in use" in text for text in wrong)
    assert not any("\n" in text for text in wrong)
    assert [outcome(loaded, index) for index in range(len(loaded))] == expected


def test_a_shard_written_over_while_it_is_open_is_found_at_the_first_read(store: Path) -> None:
    opened = Store.open(store)
    for name in store.glob("mel-*"):
        size = name.stat().st_size
        name.write_bytes(b"\1" * size)
    for index in range(len(opened)):
        assert "do not fit their checksum" in outcome(opened, index)


def test_a_loader_over_a_shard_cut_short_raises(store: Path) -> None:
    with MelLoader.open(store, batch_size=4, num_workers=1) as loader:
        for name in store.glob("mel-*"):
            os.truncate(name, 100)
        with pytest.raises(InputError, match=r"mel-.*safetensors"):
            list(loader)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_while_reading(store: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    opened = Store.open(store)

    def pread(*_: object) -> bytes:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(InputError, match=r"safetensors: cannot be read"):
        opened[0]
    assert "cannot be read" in verify(store).problems[0]


def test_too_many_shards_for_the_open_files(store: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    held = [os.open("/dev/null", os.O_RDONLY)]
    # Numbers that are free among those in use would be taken first.
    while held[-1] < highest:
        held.append(os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 4, limits[1]))
    try:
        with pytest.raises(InputError, match=r"Too many open files.*ulimit -n"):
            [Store.open(store) for _ in range(4)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)


def test_an_append_killed_at_every_flush_ends_in_the_same_bytes(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 6)
    prepare_small(corpus, tmp_path / "old")
    old = contents(tmp_path / "old")
    write_corpus(corpus, 12)
    append_to(corpus, Path(shutil.copytree(tmp_path / "old", tmp_path / "new")))
    new = contents(tmp_path / "new")
    flush, killed, seen = 1, True, []
    while killed:
        folder = Path(shutil.copytree(tmp_path / "old", tmp_path / "store"))
        killed = killed_at(flush, append_to, corpus, folder)
        # Nothing of the old store is touched before the manifest is.
        assert (folder / NAME).read_bytes() in (old[NAME], new[NAME])
        assert verify(folder).ok
        seen.append(len(read_manifest(folder).entries))
        append_to(corpus, folder)
        assert contents(folder) == new
        shutil.rmtree(folder)
        flush += 1
    assert seen == sorted(seen)
    assert set(seen) == {6, 12}
    assert seen.count(6) > 4


def test_partitions_and_their_end_killed_at_every_third_flush(corpus: Path, tmp_path: Path) -> None:
    prepare_it(corpus, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    flush, killed, states = 1, True, set()
    while killed:
        folder = tmp_path / "store"
        killed = killed_at(flush, prepare_partitions, corpus, folder)
        states.add((folder / NAME).exists())
        assert not (folder / NAME).exists() or verify(folder).ok
        prepare_partitions(corpus, folder)
        assert contents(folder) == expected
        assert not (folder / WORK).exists()
        shutil.rmtree(folder)
        flush += 3
    assert states == {True, False}


def test_every_byte_matters_to_verify_and_to_reading(store: Path) -> None:
    """Sampled; ``bench/faults.py`` takes every byte of the headers and of the manifest."""

    def read() -> None:
        opened = Store.open(store)
        for index in range(len(opened)):
            opened[index]

    for path in sorted(store.iterdir()):
        pristine = path.read_bytes()
        for place in range(0, len(pristine), max(1, len(pristine) // 40)):
            damaged = bytearray(pristine)
            damaged[place] ^= 1 << place % 8
            for content in (damaged, pristine[:place]):
                path.write_bytes(content)
                assert not verify(store).ok, (path.name, place)
                with pytest.raises(InputError, match=path.name):
                    read()
        path.write_bytes(pristine)
    assert verify(store).ok
    read()
