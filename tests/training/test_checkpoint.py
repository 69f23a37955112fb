from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ttsfast.errors import InputError
from ttsfast.training.checkpoint import (
    best_checkpoint,
    checkpoint_folder,
    checkpoints,
    find_checkpoint,
    load_checkpoint,
    prune,
    record_best,
    save_checkpoint,
)


def write(run: Path, step: int) -> Path:
    return save_checkpoint(
        checkpoint_folder(run, step),
        step,
        weights={"w": torch.arange(6.0).reshape(2, 3).t()},
        training={"random.cpu": torch.get_rng_state()},
        voice={"name": "صدا"},
        state={"window": [0.1]},
    )


def test_round_trip(tmp_path: Path) -> None:
    found = load_checkpoint(write(tmp_path, 7))
    assert found.step == 7
    assert torch.equal(found.weights["w"], torch.arange(6.0).reshape(2, 3).t())
    assert found.voice == {"name": "صدا"}
    assert found.state["window"] == [0.1]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000007"]


@pytest.mark.parametrize("name", ["weights.safetensors", "training.safetensors", "voice.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_named(name: str, damage: str, tmp_path: Path) -> None:
    path = write(tmp_path, 1) / name
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    with pytest.raises(InputError, match=name):
        load_checkpoint(path.parent)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "files": 3}', "\x00"])
def test_a_broken_state_file_is_an_input_error(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    (path / "state.json").write_text(text)
    with pytest.raises(InputError, match="step-00000001"):
        load_checkpoint(path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(InputError, match="99"):
        load_checkpoint(path)


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        write(tmp_path, step)
    record_best(tmp_path, 10, "mel_l1", 0.5)
    (tmp_path / "checkpoints" / ".step-00000050.tmp").mkdir()
    prune(tmp_path, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000010", "step-00000030", "step-00000040"]
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert best_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 10)
    assert find_checkpoint(tmp_path, prefer_best=True) == checkpoint_folder(tmp_path, 10)
    assert find_checkpoint(tmp_path, prefer_best=False) == checkpoint_folder(tmp_path, 40)


def test_a_failed_write_leaves_the_old_checkpoint_and_no_litter(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(TypeError):
        save_checkpoint(
            checkpoint_folder(tmp_path, 2), 2, weights={}, training={}, voice={"x": object()}, state={}
        )
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    load_checkpoint(find_checkpoint(tmp_path, prefer_best=True))


def test_a_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    """Replacing takes two renames, and a kill between them would leave none."""
    write(tmp_path, 1)
    with pytest.raises(OSError, match="step-00000001"):
        write(tmp_path, 1)
    assert list(load_checkpoint(checkpoint_folder(tmp_path, 1)).weights) == ["w"]


def test_every_flipped_byte_of_the_state_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, 1) / "state.json"
    content = path.read_bytes()
    for place in range(len(content)):
        if chr(content[place]).isspace():
            continue
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(InputError) as caught:
            load_checkpoint(path.parent)
        assert "step-00000001" in str(caught.value)


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    write(tmp_path, 1)
    monkeypatch.setattr("ttsfast.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match=r"weights\.safetensors.*No space left"):
        write(tmp_path, 2)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_stray_file_is_no_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-zzz").write_text("")
    (tmp_path / "checkpoints" / "step-99999999").write_text("")
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000001"]


@pytest.mark.parametrize("text", ["{}", '{"step": 1e999}', "[]", "\x00"])
def test_a_broken_pointer_is_an_input_error(text: str, tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "checkpoints" / "best.json").write_text(text)
    with pytest.raises(InputError, match=r"best\.json"):
        best_checkpoint(tmp_path)


def test_no_checkpoint_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        find_checkpoint(tmp_path, prefer_best=True)
