"""The corpus on the device: the loader's batches bit for bit, from any position; nothing that does not fit.

Mutants that these tests were seen to kill: one chunk's offset for all; rows of the store taken for rows of
the corpus; the first epoch's order kept; a batch that begins where the epoch does; free memory that is not
asked for; symbol ids and lengths unchecked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batcher_cases import assert_all_same

from ttsfast.data.loading import device_corpus
from ttsfast.data.loading.batch import Batch, Utterance, collate
from ttsfast.data.loading.device_corpus import DeviceCorpus, fits_beside_a_model, needed_bytes
from ttsfast.data.loading.device_loader import DeviceLoader
from ttsfast.data.loading.loader import MelLoader
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError


def two_epochs(loader: MelLoader | DeviceLoader) -> list[Batch]:
    with loader:
        return [copied(batch) for _ in range(2) for batch in loader]


def copied(batch: Batch) -> Batch:
    """On the host, in memory that no loader uses again."""
    return Batch(
        ids=batch.ids,
        frames=batch.frames,
        **{name: tensor.to("cpu", copy=True) for name, tensor in batch.tensors().items()},
    )


@pytest.mark.parametrize("padding", [{}, {"tail_frames": 3, "pad_to_multiple": 5, "targets": True}])
@pytest.mark.parametrize("limits", [{}, {"max_mel_frames": 50}])
@pytest.mark.parametrize(
    "planning", [{}, {"frame_budget": 400, "speaker_balance": 1.0, "rank": 1, "world_size": 2}]
)
def test_batches_are_the_loader_s(
    store: Store, padding: dict[str, Any], limits: dict[str, Any], planning: dict[str, Any]
) -> None:
    options = {"batch_size": 4, "seed": 5, **padding, **limits, **planning}
    ours = DeviceLoader.open(store, device="cpu", **options)
    theirs = MelLoader.open(store, **options)
    assert [e.id for e in ours.exclusions] == [e.id for e in theirs.exclusions]
    assert bool(ours.exclusions) == bool(limits)
    assert len(ours) == len(theirs)
    assert_all_same(two_epochs(ours), two_epochs(theirs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_collate_s(store: Store, dtype: torch.dtype) -> None:
    rows = [3, 1, 4]
    corpus = DeviceCorpus(store, np.arange(6), "cpu")
    batch = corpus.gather(np.array(rows), torch.tensor([0, *rows]), 1, dtype=dtype, targets=True)
    utterances = [store[i] for i in rows]
    assert {utterance.truncated for utterance in utterances} == {True, False}
    assert_all_same([batch], [collate(utterances, pad_value=store.silence, dtype=dtype, targets=True)])


@pytest.mark.parametrize("kinds", ["device-mel", "mel-device"])
def test_a_run_goes_on_with_either_loader(store: Store, kinds: str) -> None:
    def opened(kind: str) -> MelLoader | DeviceLoader:
        if kind == "mel":
            return MelLoader.open(store, batch_size=4)
        return DeviceLoader.open(store, batch_size=4, device="cpu")

    first_kind, second_kind = kinds.split("-")
    whole = two_epochs(opened("mel"))
    for start in range(len(whole)):
        with opened(first_kind) as first:
            stream = (batch for _ in range(2) for batch in first)
            for _ in range(start):
                next(stream)
            state = first.state_dict()
        with opened(second_kind) as second:
            second.load_state_dict(state)
            rest = [copied(batch) for batch in second]
        end = len(whole) // 2 * (1 + state["epoch"])
        assert_all_same(rest, whole[start:end])


def test_a_foreign_state_is_refused(store: Store) -> None:
    loader = DeviceLoader.open(store, batch_size=4, device="cpu")
    for state in (
        {},
        {"epoch": 0, "position": -1},
        {"epoch": 0, "position": 10**6},
        {"epoch": True, "position": 0},
    ):
        with pytest.raises(InputError, match="loader state"):
            loader.load_state_dict(state)
    loader.load_state_dict({"epoch": 3, "position": len(loader)})
    assert loader.state_dict() == {"epoch": 4, "position": 0}


def test_the_order_of_an_epoch_is_sent_without_a_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, bool]] = []

    class Order:
        """An order on the host."""

        kind = "pageable"

        def pin_memory(self) -> Order:
            self.kind = "page-locked"
            return self

        def to(self, device: torch.device, non_blocking: bool = False) -> None:
            sent.append((self.kind, non_blocking))

    with DeviceLoader.open(store, device="cpu", batch_size=4) as loader:
        loader.corpus.device = torch.device("cuda")
        monkeypatch.setattr(torch, "from_numpy", lambda array: Order())
        loader._begin(0)
    assert sent == [("page-locked", True)]


def test_it_is_read_in_chunks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = DeviceCorpus(store, np.arange(len(store)), "cpu")
    for size in (1, 2000):
        monkeypatch.setattr(device_corpus, "_CHUNK", size)
        chunked = DeviceCorpus(store, np.arange(len(store)), "cpu")
        assert torch.equal(whole.mel, chunked.mel)
        assert torch.equal(whole.text, chunked.text)
    assert torch.equal(whole.mel[: store.frames[0]], torch.from_numpy(store[0].mel.copy()))


def test_what_it_takes_is_known_before(store: Store) -> None:
    indices = np.arange(2, 20)
    corpus = DeviceCorpus(store, indices, "cpu")
    held = (corpus.mel, corpus.text, corpus.speaker, corpus.truncated, corpus.mel_starts, corpus.text_starts)
    # But for the ends of the last utterance.
    assert sum(t.numel() * t.element_size() for t in held) - 16 == needed_bytes(store, indices)


def test_only_what_fits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    indices = np.arange(len(store))
    needed = needed_bytes(store, indices)
    assert not fits_beside_a_model(store, indices, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for free, fits in ((4 * needed, True), (4 * needed - 4, False)):
        monkeypatch.setattr(device_corpus, "free_bytes", lambda device, free=free: free)
        assert fits_beside_a_model(store, indices, torch.device("cuda")) == fits
    DeviceCorpus(store, indices, "cpu")
    monkeypatch.setattr(device_corpus, "free_bytes", lambda device: needed - 1)
    with pytest.raises(InputError, match=r"need .* GiB.*corpus_on_device=never"):
        DeviceCorpus(store, indices, "cpu")


class Wrong(Store):
    """A store that gives utterance 3 changed."""

    def __init__(self, store: Store, change: dict[str, np.ndarray]) -> None:
        self.__dict__.update(store.__dict__)
        self.change = change

    def __getitem__(self, index: int) -> Utterance:
        found = super().__getitem__(index)
        return Utterance(**{**vars(found), **(self.change if index == 3 else {})})


def test_bounds_are_checked_at_the_start(store: Store) -> None:
    good = store[3]
    for change, message in (
        ({"mel": good.mel[:-1]}, "lengths"),
        ({"mel": good.mel[:, :-1]}, "lengths"),
        ({"text": good.text[:-1]}, "lengths"),
        ({"text": good.text * 0}, "symbol id"),
        ({"text": good.text + 10**6}, "symbol id"),
    ):
        with pytest.raises(InputError, match=f"'{good.id}'.*{message}"):
            DeviceCorpus(Wrong(store, change), np.arange(5), "cpu")
    for indices in ([], [1, 1], [2, 1], [-1, 0]):
        with pytest.raises(ValueError, match="ascending"):
            DeviceCorpus(store, np.array(indices, dtype=np.int64), "cpu")
    corpus = DeviceCorpus(store, np.array([2, 5, 9]), "cpu")
    assert corpus.rows(np.array([9, 2])).tolist() == [2, 0]
    for index in (1, 3, 10):
        with pytest.raises(ValueError, match="not in the corpus"):
            corpus.rows(np.array([index]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_a_gpu(store: Store, dtype: torch.dtype) -> None:
    ours = DeviceLoader.open(store, device="cuda", batch_size=4, dtype=dtype, targets=True)
    theirs = two_epochs(MelLoader.open(store, batch_size=4, targets=True))
    for batch in theirs:
        batch.mel = batch.mel.to(dtype)
    batches = two_epochs(ours)
    assert ours.corpus.mel.is_cuda
    assert_all_same(batches, theirs)
