"""The loader: the plan's batches bit for bit, whatever the threads do, from any position."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batcher_cases import assert_all_same, needs_native
from small_corpus import prepare_small, write_corpus

from ttsfast.data.loading.batch import Batch, Utterance
from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.loading.plan import BatchPlan
from ttsfast.data.loading.plan_loader import select
from ttsfast.data.store.store import Store
from ttsfast.devices import available_cores
from ttsfast.errors import InputError


def plan_of(store: Store, seed: int = 0) -> BatchPlan:
    return BatchPlan(store.frames, store.indices("train"), batch_size=4, seed=seed)


def reference(store: Store, plan: BatchPlan, epochs: int) -> list[Batch]:
    """In plain Python, without the loader or the extension's gather."""
    batches = []
    for indices in (indices for epoch in range(epochs) for indices in plan.epoch(epoch)):
        rows = [store[int(i)] for i in indices]
        frames = -(-(max(len(row.mel) for row in rows) + 8) // 8) * 8
        mel = np.stack(
            [
                np.concatenate(
                    [row.mel.astype(np.float32), np.tile(store.silence, (frames - len(row.mel), 1))]
                )
                for row in rows
            ]
        )
        symbols = -(-max(len(row.text) for row in rows) // 8) * 8
        text = torch.zeros(len(rows), symbols, dtype=torch.int64)
        for place, row in zip(text, rows, strict=True):
            place[: len(row.text)] = torch.from_numpy(row.text)
        batches.append(
            Batch(
                ids=tuple(row.id for row in rows),
                text=text,
                text_lengths=torch.tensor([len(row.text) for row in rows]),
                mel=torch.from_numpy(mel),
                mel_lengths=torch.tensor([len(row.mel) for row in rows]),
                speaker=torch.tensor([row.speaker for row in rows]),
                truncated=torch.tensor([row.truncated for row in rows]),
                frames=sum(len(row.mel) for row in rows),
            )
        )
    return batches


BACKENDS = ["python", pytest.param("cpp", marks=needs_native)]


class Troubled(Store):
    """A store whose reads can be slowed down, or fail."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.path, store.manifest, store.shards, verify=False)
        self.broken: dict[int, Exception] = {}
        self.seconds = 0.0
        self.reads: list[int] = []

    def __getitem__(self, index: int) -> Utterance:
        self.reads.append(index)
        # Utterances take unlike times, so threads finish out of order.
        time.sleep(self.seconds * (1 + index % 3))
        if index in self.broken:
            raise self.broken[index]
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_bytes_are_the_reference_s_whatever_the_threads(
    store: Store, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttsfast.data.loading.loader.available_cores", lambda: 4)
    slow = Troubled(store)
    slow.seconds = 0.0005
    with MelLoader(slow, plan_of(store), num_workers=workers) as loader:
        batches = [batch for _ in range(3) for batch in loader]
    assert_all_same(batches, reference(store, plan_of(store), 3))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("in_memory", [False, True])
def test_every_backend_gives_the_reference_s_bytes(
    store: Store, backend: str, workers: int, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttsfast.data.loading.loader.available_cores", lambda: 4)
    opened = Store.open(store.path, memory_map=not in_memory)
    with MelLoader(opened, plan_of(store), num_workers=workers, backend=backend) as loader:
        batches = [batch for _ in range(3) for batch in loader]
    assert_all_same(batches, reference(store, plan_of(store), 3))


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_resumes_at_every_position(store: Store, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttsfast.data.loading.loader.available_cores", lambda: 4)
    whole = reference(store, plan_of(store), 2)
    per_epoch = len(plan_of(store).epoch(0))
    assert len(whole) == 2 * per_epoch
    for start in range(2 * per_epoch):
        with MelLoader(store, plan_of(store), num_workers=workers) as first:
            stream = (batch for _ in range(2) for batch in first)
            for _ in range(start):
                next(stream)
            state = first.state_dict()
        assert state == {"epoch": start // per_epoch, "position": start % per_epoch}
        with MelLoader(store, plan_of(store), num_workers=workers) as second:
            second.load_state_dict(state)
            assert len(second) == per_epoch
            rest = list(second)
        assert_all_same(rest, whole[start : (start // per_epoch + 1) * per_epoch])


def test_seeks_backwards_in_the_middle_of_an_epoch(store: Store) -> None:
    whole = reference(store, plan_of(store), 1)
    with MelLoader(store, plan_of(store)) as loader:
        stream = iter(loader)
        for _ in range(4):
            next(stream)
        loader.load_state_dict({"epoch": 0, "position": 1})
        assert_all_same(list(loader), whole[1:])
        loader.load_state_dict({"epoch": 0, "position": len(whole)})
        assert loader.state_dict() == {"epoch": 1, "position": 0}


def test_leaving_the_loop_loses_nothing(store: Store) -> None:
    whole = reference(store, plan_of(store), 1)
    with MelLoader(store, plan_of(store)) as loader:
        taken = []
        while loader.state_dict()["epoch"] == 0:
            for batch in loader:
                taken.append(batch)
                break
    assert_all_same(taken, whole)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"epoch": 0},
        {"epoch": 0, "position": -1},
        {"epoch": 0, "position": 1.0},
        {"epoch": True, "position": 0},
        {"epoch": 0, "position": "0"},
        {"epoch": 0, "position": 0, "more": 1},
        {"epoch": 2**64, "position": 0},
        None,
        [0, 0],
        {"epoch": 0, "position": 10**6},
    ],
)
def test_a_foreign_state_is_refused(store: Store, state: Any) -> None:
    with MelLoader(store, plan_of(store)) as loader, pytest.raises(InputError, match="loader state"):
        loader.load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_arrives_in_its_place_and_names_the_utterance(store: Store, workers: int) -> None:
    troubled = Troubled(store)
    plan = plan_of(store)
    whole = reference(store, plan, 1)
    bad = int(plan.epoch(0)[2][1])
    troubled.broken[bad] = OSError("the disk has gone")
    with MelLoader(troubled, plan, num_workers=workers) as loader:
        stream = iter(loader)
        assert_all_same([next(stream), next(stream)], whole[:2])
        with pytest.raises(RuntimeError, match=rf"utterance '{store.entries.id[bad]}': the disk has gone"):
            next(stream)
        assert loader.state_dict() == {"epoch": 0, "position": 2}
        troubled.broken[bad] = InputError("utterance 'x': damaged; prepare again")
        with pytest.raises(InputError, match="'x': damaged"):
            next(iter(loader))
        del troubled.broken[bad]
        assert_all_same(list(loader), whole[2:])


def test_damage_on_disk_reaches_the_consumer(store: Store, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(store.path, tmp_path / "store"))
    shard = next(iter(folder.glob("mel-*")))
    content = bytearray(shard.read_bytes())
    content[-9] ^= 4
    shard.write_bytes(content)
    with (
        MelLoader.open(folder, batch_size=4) as loader,
        pytest.raises(InputError, match=rf"{shard.name}: utterance 'u0\d\d'"),
    ):
        list(loader)


def test_look_ahead_is_bounded_and_crosses_epochs(store: Store) -> None:
    troubled = Troubled(store)
    plan = plan_of(store)
    epochs = [np.concatenate(plan.epoch(epoch)) for epoch in range(2)]
    with MelLoader(troubled, plan, num_workers=1) as loader:
        ahead = loader._batcher.ahead
        stream = iter(loader)
        next(stream)
        expected = sum(map(len, plan.epoch(0)[: 1 + ahead]))
        while len(troubled.reads) < expected:
            time.sleep(0.005)
        time.sleep(0.05)
        assert troubled.reads == epochs[0][:expected].tolist()
        for _ in stream:
            pass
        expected = sum(map(len, plan.epoch(1)[:ahead]))
        while len(troubled.reads) < len(epochs[0]) + expected:
            time.sleep(0.005)
        assert troubled.reads[len(epochs[0]) :] == epochs[1][:expected].tolist()


def test_wait_is_counted(store: Store) -> None:
    slow = Troubled(store)
    slow.seconds = 0.01
    with MelLoader(slow, plan_of(store), num_workers=0) as loader:
        assert loader.wait_seconds == 0.0
        before = time.perf_counter()
        next(iter(loader))
        passed = time.perf_counter() - before
        assert 0.04 <= loader.wait_seconds <= passed


def test_padding_is_as_asked(store: Store) -> None:
    with MelLoader(store, plan_of(store), tail_frames=3, pad_to_multiple=5) as loader:
        for batch in loader:
            longest = int(batch.mel_lengths.max())
            assert batch.mel.shape[1] == -(-(longest + 3) // 5) * 5


def test_pinning_asks_for_cuda(store: Store) -> None:
    with MelLoader(store, plan_of(store), pin_memory=True) as loader:
        assert next(iter(loader)).mel.is_pinned() == torch.cuda.is_available()
    with MelLoader(store, plan_of(store), device="cpu") as loader:
        assert next(iter(loader)).mel.device == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_on_the_device_are_the_same(store: Store, workers: int) -> None:
    plan = plan_of(store)
    with MelLoader(store, plan, num_workers=workers, device="cuda") as loader:
        batches = []
        for _ in range(3):
            for batch in loader:
                assert batch.mel.is_cuda
                batches.append(batch.to("cpu"))
    assert_all_same(batches, reference(store, plan, 3))


def test_open_applies_the_limits_and_reports(store: Store) -> None:
    limit = int(np.median(store.frames))
    with MelLoader.open(store.path, "train", batch_size=4, max_mel_frames=limit) as loader:
        ids = [name for batch in loader for name in batch.ids]
    left_out = {exclusion.id for exclusion in loader.exclusions}
    assert left_out
    train = {store.entries.id[i] for i in store.indices("train")}
    assert sorted([*ids, *left_out]) == sorted(train)
    with MelLoader.open(store, "validation", batch_size=4) as loader:
        held = {name for batch in loader for name in batch.ids}
    assert held == {store.entries.id[i] for i in store.indices("validation")}
    assert loader.exclusions == []


def test_the_test_split_is_read_like_the_others(tmp_path: Path) -> None:
    prepare_small(write_corpus(tmp_path / "corpus", 20), tmp_path / "store", test_fraction=0.3)
    with MelLoader.open(tmp_path / "store", "test", batch_size=4) as loader:
        held = [name for batch in loader for name in batch.ids]
    opened = Store.open(tmp_path / "store")
    assert sorted(held) == [opened.entries.id[i] for i in opened.indices("test")]
    assert held


def test_select_gives_each_exclusion_one_reason(store: Store) -> None:
    frames, symbols = int(np.median(store.frames)), int(np.median(store.text_lengths))
    indices, exclusions = select(store, "train", frames, symbols)
    assert (store.frames[indices] <= frames).all()
    assert (store.text_lengths[indices] <= symbols).all()
    assert len(indices) + len(exclusions) == len(store.indices("train"))
    assert len({e.id for e in exclusions}) == len(exclusions)
    assert {e.reason for e in exclusions} == {"max_mel_frames", "max_text_length"}
    for exclusion in exclusions:
        assert str(frames if exclusion.reason == "max_mel_frames" else symbols) in exclusion.detail
    everything, none = select(store, "train")
    assert everything.tolist() == store.indices("train").tolist()
    assert none == []
    with pytest.raises(InputError, match="max_mel_frames 1 and max_text_length None"):
        select(store, "train", 1)


def test_an_empty_split_is_not_blamed_on_the_limits(tmp_path: Path) -> None:
    prepare_small(write_corpus(tmp_path / "corpus", 1), tmp_path / "store")
    one = Store.open(tmp_path / "store")
    assert select(one, "train")[0].tolist() == [0]
    with pytest.raises(
        InputError, match=r"validation split has no utterance; .*--validation-fraction"
    ) as error:
        select(one, "validation", 4000, 400)
    assert "max_mel_frames" not in str(error.value)


def threads() -> int:
    """Of either batcher; the C++ ones are not known to Python."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        # One that has ended since it was listed has no name.
        with suppress(FileNotFoundError, ProcessLookupError):
            names.append((task / "comm").read_text().strip())
    python = [thread for thread in threading.enumerate() if thread.name.startswith("ttsfast-batcher")]
    # Where Python names its threads for the system too, one is found twice.
    return max(names.count("ttsfast-batcher"), len(python))


@pytest.mark.parametrize("backend", BACKENDS)
def test_closing_ends_the_threads(store: Store, backend: str) -> None:
    assert threads() == 0
    with MelLoader(store, plan_of(store), backend=backend) as loader:
        next(iter(loader))
        assert threads() > 0
    assert threads() == 0
    loader.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(loader))


@needs_native
def test_a_dropped_loader_leaves_no_thread(store: Store) -> None:
    loader = MelLoader(store, plan_of(store))
    batch = next(iter(loader))
    assert threads() > 0
    del loader
    gc.collect()
    assert threads() == 0
    assert_all_same([batch], reference(store, plan_of(store), 1)[:1])


def test_unknown_options_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="backend"):
        MelLoader(store, plan_of(store), backend="c")
    with pytest.raises(ValueError, match="dtype"):
        MelLoader(store, plan_of(store), dtype=torch.float64)
    with pytest.raises(InputError, match="backend 'cpp': a Troubled"):
        MelLoader(Troubled(store), plan_of(store), backend="cpp")


def test_num_workers_is_capped_and_checked(store: Store) -> None:
    with MelLoader(store, plan_of(store), num_workers=1000) as loader:
        list(loader)
        assert threads() <= available_cores()
    with pytest.raises(ValueError, match="num_workers"):
        MelLoader(store, plan_of(store), num_workers=-1)


def test_a_forked_process_is_told(store: Store) -> None:
    with MelLoader(store, plan_of(store)) as loader:
        next(iter(loader))
        child = os.fork()
        if child == 0:
            try:
                next(iter(loader))
                os._exit(1)
            except RuntimeError as error:
                os._exit(0 if "fork" in str(error) else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
