"""The loaders and ``collate`` in somebody else's trainer: item forms, worker processes, pinning, errors.

Mutants that these tests were seen to kill: unknown keys let through; symbol ids that are not whole; a tuple's
fields in another order; truncation lost; an error of several lines; a tensor left unpinned; any id taken.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batcher_cases import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import prepare_small, write_corpus
from torch.utils.data import DataLoader

import ttsfast
from ttsfast.data.store.utterance import Utterance
from ttsfast.errors import InputError

ROOT = Path(__file__).resolve().parents[3]


def plain(n: int, frames: int = 9) -> Utterance:
    draw = np.random.default_rng(n)
    mel = draw.standard_normal((frames + n, 6)).astype(np.float32)
    return Utterance(str(n), draw.integers(1, 9, 3 + n), mel, n % 2)


def forms(item: Utterance) -> dict[str, Any]:
    """The same utterance in every form there is."""
    values = {"text": item.text, "mel": item.mel, "speaker": item.speaker}
    return {
        "utterance": item,
        "mapping": {**values, "id": item.id, "truncated": False},
        "mapping-least": values,
        "tuple": (item.text, item.mel, item.speaker),
        "list": [item.text.tolist(), torch.from_numpy(item.mel), torch.tensor(item.speaker)],
        "tensors": Utterance(item.id, torch.from_numpy(item.text), torch.from_numpy(item.mel), item.speaker),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("form", forms(plain(0)))
def test_every_form_gives_the_same_batch(form: str) -> None:
    expected = ttsfast.collate([plain(n) for n in range(3)], pad_value=-2.5)
    assert_same(ttsfast.collate([forms(plain(n))[form] for n in range(3)], pad_value=-2.5), expected)


def test_a_pair_has_no_speaker_and_bfloat16_is_taken() -> None:
    item = plain(4)
    half = torch.from_numpy(item.mel).bfloat16()
    batch = ttsfast.collate([(item.text, half)], dtype=torch.bfloat16)
    assert batch.speaker.tolist() == [0]
    assert batch.ids == ("0",)
    assert torch.equal(batch.mel[0, : len(half)], half)


def test_a_cut_clip_stays_one() -> None:
    item = plain(2)
    mapping = {"text": item.text, "mel": torch.from_numpy(item.mel), "truncated": torch.tensor(True)}
    assert ttsfast.collate([mapping, (item.text, item.mel)]).truncated.tolist() == [True, False]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (7, "item 1 of the batch is a int, expected an Utterance, a mapping"),
        ("text", "item 1 of the batch is a str"),
        ((np.ones(3, int),), "item 1 of the batch is a tuple of 1"),
        ({"id": "x", "mel": np.zeros((3, 6))}, "'x': no text; its keys are 'id', 'mel'"),
        ({"text": [1], "mel": np.zeros((3, 6)), "speaker_id": 3}, "'1': unknown 'speaker_id'"),
        ({"text": ["a"], "mel": np.zeros((3, 6))}, "'1': text holds .*encode it"),
        ({"text": [1.5], "mel": np.zeros((3, 6))}, "'1': text holds float64"),
        ({"text": [1], "mel": np.zeros((3, 6), int)}, "'1': mel holds int64"),
        ({"text": [1], "mel": [[1.0], [1.0, 2.0]]}, "'1': mel is not an array"),
        (
            {"text": [1], "mel": np.zeros((6, 3))},
            r"'1': mel has shape \(6, 3\), expected \(T, 6\).*frames come",
        ),
        (([1], np.zeros((3, 6)), "ann"), "'1': speaker must be"),
        ({"id": None, "text": [1], "mel": np.zeros((3, 6))}, "item 1 of the batch: its id is a NoneType"),
    ],
)
def test_a_bad_item_is_named(item: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        ttsfast.collate([plain(0), item])
    assert "\n" not in str(error.value)


@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=3), st.floats(), st.just(np.zeros((2, 6)))),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.sampled_from(["id", "text", "mel", "speaker", "x"]), inner, max_size=4),
        ),
        max_leaves=6,
    )
)
@settings(max_examples=150, deadline=None)
def test_anything_else_is_an_error_of_one_line(item: Any) -> None:
    said = ""
    try:
        assert ttsfast.collate([item]).mel.ndim == 3
    except InputError as error:
        said = str(error)
    assert "\n" not in said


class Own:
    """Somebody's data set, in the form that Tacotron 2's loader gives."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        item = plain(index)
        return torch.from_numpy(item.text), torch.from_numpy(item.mel)


@pytest.mark.parametrize(
    ("workers", "context"), [(0, None), (2, "fork"), pytest.param(1, "spawn", marks=pytest.mark.slow)]
)
def test_in_a_data_loader(workers: int, context: str | None) -> None:
    loader: DataLoader[Any] = DataLoader(
        Own(),  # type: ignore[arg-type]
        batch_size=3,
        collate_fn=ttsfast.collate,
        num_workers=workers,
        multiprocessing_context=context,
    )
    batches = list(loader)
    own = Own()
    assert len(batches) == 3
    for number, batch in enumerate(batches):
        assert_same(batch, ttsfast.collate([own[i] for i in range(3 * number, min(3 * number + 3, 7))]))


def test_a_data_loader_pins_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``DataLoader(pin_memory=True)`` calls, where there is an accelerator."""
    from torch.utils.data._utils.pin_memory import pin_memory

    pinned = []

    def record(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", record)
    batch = ttsfast.collate([plain(1)])
    result = pin_memory(batch)
    assert_same(result, batch)
    assert {t.data_ptr() for t in pinned} == {t.data_ptr() for t in batch.tensors().values()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_by_a_data_loader_on_a_gpu() -> None:
    batch = next(iter(DataLoader(Own(), batch_size=3, collate_fn=ttsfast.collate, pin_memory=True)))  # type: ignore[arg-type]
    assert all(tensor.is_pinned() for tensor in batch.tensors().values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as the documentation assumes it."""
    folder = tmp_path_factory.mktemp("work")
    prepare_small(write_corpus(tmp_path_factory.mktemp("corpus"), 40), folder / "data" / "store")
    return folder


def test_a_store_is_a_data_set(folder: Path) -> None:
    store = ttsfast.Store.open(folder / "data" / "store")
    loader: DataLoader[Any] = DataLoader(store, batch_size=5, collate_fn=ttsfast.collate, num_workers=1)  # type: ignore[arg-type]
    ids = [name for batch in loader for name in batch.ids]
    assert ids == store.entries.id


def test_the_examples_run(folder: Path) -> None:
    """Every block of the page, one after the other, in one interpreter."""
    page = (ROOT / "docs" / "data-loading.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    assert len(blocks) >= 4
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_names_are_resolved_without_heavy_imports() -> None:
    code = (
        "import sys, ttsfast; assert 'torch' not in sys.modules;"
        "ttsfast.collate, ttsfast.MelLoader, ttsfast.DeviceLoader, ttsfast.Store, ttsfast.Utterance;"
        "heavy = {'librosa', 'typer', 'matplotlib', 'soundfile', 'scipy', 'triton', 'joblib', 'rich'};"
        "found = heavy & set(sys.modules); assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
