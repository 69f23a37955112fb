"""Workers that know nothing of each other, what joins their work, and a manifest made from shards alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from children import start
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_corpus import contents, options, prepare_small, write_corpus

from ttsfast.data.prepare.append import append
from ttsfast.data.prepare.partitions import Partition
from ttsfast.data.prepare.prepare import CorpusFaults, finalize, prepare_partition
from ttsfast.data.prepare.rebuild import rebuild
from ttsfast.data.store.folder import WORK, remove_leftovers
from ttsfast.data.store.manifest import NAME
from ttsfast.data.store.manifest_reader import read_manifest
from ttsfast.data.store.store import Store
from ttsfast.data.store.verify import verify
from ttsfast.errors import InputError

pytestmark = pytest.mark.usefixtures("small_pieces")
fuzz = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 22)


@pytest.fixture
def whole(corpus: Path, tmp_path: Path) -> dict[str, bytes]:
    """What one undisturbed run with one worker writes."""
    return contents(Path(prepare_small(corpus, tmp_path / "whole").store))


def work(corpus: Path, folder: Path, *shards: str, **changes: object) -> None:
    for shard in shards:
        prepare_partition(corpus, folder, options(**changes), Partition.parse(shard))


@pytest.mark.parametrize("shards", [["1/1"], ["3/3", "1/3", "2/3"], [f"{i}/9" for i in range(1, 10)]])
def test_parts_in_any_order_give_the_bytes_of_one_run(
    corpus: Path, tmp_path: Path, whole: dict[str, bytes], shards: list[str]
) -> None:
    work(corpus, tmp_path / "store", *shards)
    report = finalize(tmp_path / "store")
    assert (report.utterances, report.computed) == (22, 0)
    assert contents(tmp_path / "store") == whole
    assert finalize(tmp_path / "store").unchanged
    assert prepare_small(corpus, tmp_path / "store").unchanged
    assert contents(tmp_path / "store") == whole


def test_workers_at_once_and_a_run_over_their_work(
    corpus: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    folder = tmp_path / "store"
    workers = [start(work, corpus, folder, shard) for shard in ("1/2", "2/2", "2/2")]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    # One that does everything finds all of it done.
    assert prepare_small(corpus, folder).computed == 0
    assert contents(folder) == whole


def test_exclusions_of_all_partitions_are_those_of_one_run(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    (mine / "u003.wav").write_bytes(b"not a recording")
    (mine / "u014.wav").unlink()
    changes = {"exclude_bad": True, "max_duration": 0.5}
    prepare_small(mine, tmp_path / "whole", **changes)
    work(mine, tmp_path / "store", "2/2", "1/2", **changes)
    report = finalize(tmp_path / "store")
    assert {e.reason for e in report.exclusions} == {"bad audio", "missing audio", "too long"}
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_fault_stops_the_worker_that_finds_it(corpus: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    (mine / "u005.wav").write_bytes(b"not a recording")
    work(mine, tmp_path / "store", "1/2")
    with pytest.raises(CorpusFaults, match="u005"):
        work(mine, tmp_path / "store", "2/2")
    with pytest.raises(InputError, match=r"partition 2/2 is missing; run .*--shard 2/2"):
        finalize(tmp_path / "store")


def test_missing_partitions_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        finalize(tmp_path / "store")
    (tmp_path / "store").mkdir()
    with pytest.raises(InputError, match="no partition of a preparation"):
        finalize(tmp_path / "store")
    work(corpus, tmp_path / "store", "2/4")
    with pytest.raises(InputError, match=r"partition 1/4 and 2 more is missing; run .*--shard 1/4"):
        finalize(tmp_path / "store")
    with pytest.raises(InputError, match="no complete store"):
        Store.open(tmp_path / "store")


def test_partitions_of_two_preparations_are_not_mixed(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    work(corpus, folder, "1/2")
    work(corpus, folder, "2/2", seed=1)
    with pytest.raises(InputError, match="is missing"):
        finalize(folder)
    work(corpus, folder, "1/2", seed=1)
    assert finalize(folder).utterances == 22
    assert read_manifest(folder).options["seed"] == 1
    both = tmp_path / "both"
    work(corpus, both, "1/1")
    work(corpus, both, "1/1", seed=1)
    with pytest.raises(InputError, match="partitions of 2 preparations"):
        finalize(both)


def test_damaged_partitions_and_lost_features_are_named(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    work(corpus, folder, "1/1")
    kept = Path(shutil.copytree(folder, tmp_path / "kept"))
    record = next(iter((folder / WORK).glob("part-*")))
    data = record.read_bytes()
    record.write_bytes(data.replace(b"one", b"two", 1))
    with pytest.raises(InputError, match=f"{record.name}: not the record of a partition"):
        finalize(folder)
    next(iter((kept / WORK).glob("*.safetensors"))).unlink()
    with pytest.raises(InputError, match="features of 1 chunks are gone"):
        finalize(kept)


@given(data=st.data())
@fuzz
def test_junk_in_the_record_of_a_partition_is_refused(
    corpus: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """One changed byte, a cut, or arbitrary bytes in its place."""
    folder = tmp_path / "store"
    if not folder.exists():
        work(corpus, folder, "1/1")
    record = next(iter((folder / WORK).glob("part-*")))
    pristine = record.read_bytes()
    content = bytearray(pristine)
    kind = data.draw(st.sampled_from(["flip", "cut", "junk"]))
    if kind == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content = bytearray(data.draw(st.binary(max_size=100)))
    record.write_bytes(content)
    try:
        with pytest.raises(InputError, match="not the record of a partition"):
            finalize(folder)
    finally:
        record.write_bytes(pristine)


def test_a_complete_store_is_not_written_over(corpus: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "store"
    prepare_small(corpus, folder)
    with pytest.raises(InputError, match=r"holds a complete store.*ttsfast append.*--force"):
        work(corpus, folder, "1/2")
    work(corpus, folder, "1/1", seed=1, force=True)
    with pytest.raises(InputError, match="seed was 0, is 1"):
        finalize(folder)
    assert finalize(folder, force=True).utterances == 22
    assert read_manifest(folder).options["seed"] == 1
    assert verify(folder).ok


@pytest.mark.parametrize("value", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", "1/0", ""])
def test_impossible_partitions_are_refused(value: str) -> None:
    with pytest.raises(InputError, match="must be i/n"):
        Partition.parse(value)


def test_the_work_goes_as_a_whole(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it, left by a kill during cleaning, would be taken for the beginning of another preparation."""
    folder = tmp_path / "store"
    work(corpus, folder, "1/1")
    finalize(folder)
    work(corpus, folder, "1/1", force=True)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    remove_leftovers(folder, read_manifest(folder))
    assert not (folder / WORK).exists()
    monkeypatch.undo()
    assert finalize(folder).unchanged
    assert not list(folder.glob(".ttsfast*"))


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """A store of two preparations, the second an append, with exclusions."""
    corpus = write_corpus(tmp_path / "growing", 12)
    folder = tmp_path / "grown"
    prepare_small(corpus, folder, max_duration=0.5)
    append(write_corpus(corpus, 22), folder, jobs=1)
    assert len(read_manifest(folder).shards) > 3
    return folder


def test_a_lost_manifest_is_made_anew_to_the_same_bytes(grown: Path) -> None:
    before = contents(grown)
    for damage in (Path.unlink, lambda path: path.write_text("{}")):
        damage(grown / NAME)
        assert rebuild(grown).utterances == len(Store.open(grown))
        assert contents(grown) == before


def test_every_missing_shard_is_named(grown: Path) -> None:
    manifest = read_manifest(grown)
    (grown / NAME).unlink()
    for shard in manifest.shards:
        (grown / shard.name).rename(grown / "aside")
        with pytest.raises(InputError, match=r"missing|remove") as error:
            rebuild(grown)
        assert manifest.fingerprint[:12] in str(error.value) or shard.name[:16] in str(error.value)
        assert not (grown / NAME).exists()
        (grown / "aside").rename(grown / shard.name)


def test_without_the_shards_of_the_last_append_the_store_before_it_comes_back(grown: Path) -> None:
    manifest = read_manifest(grown)
    for path in grown.glob(f"mel-{manifest.fingerprint[:12]}-*"):
        path.unlink()
    (grown / NAME).unlink()
    rebuild(grown)
    assert read_manifest(grown).fingerprint == manifest.history[0]
    assert verify(grown).ok


@given(data=st.data())
@fuzz
def test_no_damage_is_rebuilt_into_a_manifest(corpus: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "store"
    if not folder.exists():
        prepare_small(corpus, folder)
    shard = sorted(folder.glob("mel-*"))[0]
    pristine, manifest = shard.read_bytes(), (folder / NAME).read_bytes()
    header = 8 + int.from_bytes(pristine[:8], "little")
    content = bytearray(pristine)
    place = data.draw(st.one_of(st.integers(0, header - 1), st.integers(0, len(content) - 1)))
    content[place] ^= data.draw(st.integers(1, 255))
    shard.write_bytes(content)
    try:
        rebuild(folder)
    except InputError as error:
        assert shard.name in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        # White space in the header, an escape spelt otherwise: what is said is the same.
        assert place < header
        shard.write_bytes(pristine)
        before, after = json.loads(manifest), json.loads((folder / NAME).read_bytes())
        for values in (before, after):
            values.pop("manifest_sha256")
            values["shards"][0].pop("sha256")
            values["shards"][0].pop("header_crc32c")
        assert before == after
    finally:
        shard.write_bytes(pristine)
        (folder / NAME).write_bytes(manifest)


def test_shards_of_two_stores_are_not_mixed(corpus: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    prepare_small(corpus, one)
    prepare_small(corpus, two, seed=1)
    for path in one.glob("mel-*"):
        shutil.copy(path, two)
    with pytest.raises(InputError, match="holds shards of 2 stores"):
        rebuild(two)
    with pytest.raises(InputError, match="no shard is there"):
        rebuild(corpus)
