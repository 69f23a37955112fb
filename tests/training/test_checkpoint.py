from __future__ import annotations

import json
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ttsfast.config import Config
from ttsfast.errors import InputError
from ttsfast.models.checkpoint import (
    FORMAT,
    PAYLOAD,
    best_checkpoint,
    checkpoint_folder,
    checkpoints,
    file_fingerprint,
    find_checkpoint,
    load_checkpoint,
    seal_of,
)
from ttsfast.training.checkpoint import prune, record_best, save_checkpoint
from ttsfast.training.trainer import Trainer


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


@pytest.mark.parametrize("limit", [1, 200, 5_000, 60_000, 90_000])
def test_a_disk_that_fills_up_at_any_byte_leaves_the_checkpoint_before(limit: int, tmp_path: Path) -> None:
    """The kernel itself refuses to write beyond ``limit`` bytes of a file, as a full disk would."""

    def attempt(step: int) -> None:
        parts = {"weights": {"w": torch.ones(25_000)}, "training": {"x": torch.ones(20_000)}}
        folder = checkpoint_folder(tmp_path, step)
        save_checkpoint(folder, step, **parts, voice={"v": "x" * 300}, state={})  # type: ignore[arg-type]

    attempt(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with pytest.raises(OSError, match=r"step-00000002: cannot be written .*: make room"):
            attempt(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    attempt(3)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000001", "step-00000003"]
    for path in checkpoints(tmp_path):
        assert load_checkpoint(path).weights["w"].sum() == 25_000


def test_the_validated_checkpoint_of_a_step_is_the_later_one(tmp_path: Path) -> None:
    write(tmp_path, 1)
    for step, unvalidated in ((2, False), (2, True), (3, True)):
        folder = checkpoint_folder(tmp_path, step, unvalidated=unvalidated)
        save_checkpoint(folder, step, weights={}, training={}, voice={}, state={})
    assert [p.name.removeprefix("step-0000000") for p in checkpoints(tmp_path)] == [
        "1",
        "2-unvalidated",
        "2",
        "3-unvalidated",
    ]
    assert load_checkpoint(find_checkpoint(tmp_path, prefer_best=False)).step == 3


def test_nothing_unpickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 1)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was read")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, forbidden)
    load_checkpoint(path)


def test_another_format_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    state = json.loads((path / "state.json").read_text())
    del state["seal"]
    state["format"] = FORMAT - 1
    (path / "state.json").write_text(json.dumps({**state, "seal": seal_of(state)}))
    with pytest.raises(InputError, match=rf"format {FORMAT - 1}, this version reads {FORMAT}; use"):
        load_checkpoint(path)


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


def test_a_linked_checkpoint_is_unlinked_and_its_target_left_alone(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "other", 1)
    for step in (2, 3):
        write(tmp_path / "run", step)
    folder = tmp_path / "run" / "checkpoints"
    for name in ("step-00000001", ".step-00000007.old"):
        (folder / name).symlink_to(elsewhere)
    prune(tmp_path / "run", 1)
    assert [p.name for p in folder.iterdir()] == ["step-00000003"]
    assert load_checkpoint(elsewhere).step == 1


def reseal(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """As a program would write it that means harm, or another state."""
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    del state["seal"]
    state["files"] = {name: file_fingerprint(path / name) for name in PAYLOAD}
    change(state)
    (path / "state.json").write_text(json.dumps({**state, "seal": seal_of(state)}), encoding="utf-8")


def test_sealed_nonsense_is_one_line(
    make_config: Callable[..., Config], make_model: Callable[[], torch.nn.Module], tmp_path: Path
) -> None:
    config = make_config(training__max_steps=1, training__val_step=2)
    with Trainer(config, model=make_model()) as trainer:
        trainer.fit()
        run = trainer.run_folder
    (path,) = checkpoints(run)
    whole = tmp_path / "whole"
    shutil.copytree(path, whole)

    def refused() -> None:
        with pytest.raises(InputError, match=r"step-00000001|training\.optimizer differs") as caught:
            Trainer(config, model=make_model(), resume=True)
        assert "\n" not in str(caught.value)

    nonsense = {"files": "x", "step": None, "config": {}, "components": None}
    for key, value in nonsense.items():
        shutil.copytree(whole, path, dirs_exist_ok=True)
        reseal(path, lambda state, key=key, value=value: state.update({key: value}))
        refused()
    for name, component in (("optimizers", None), ("loader", "x"), ("early_stopping", -1)):
        shutil.copytree(whole, path, dirs_exist_ok=True)
        reseal(path, lambda state, name=name, value=component: state["components"].update({name: value}))
        refused()
    tensors = load_file(whole / "training.safetensors")
    for name in ("spike_guard.sum", "loss.adaptive.fast.stop", "optimizers.adam.read.weight.exp_avg"):
        shutil.copytree(whole, path, dirs_exist_ok=True)
        save_file({k: v for k, v in tensors.items() if k != name}, path / "training.safetensors")
        reseal(path, lambda state: None)
        refused()
    for name in ("voice.json", "state.json"):
        shutil.copytree(whole, path, dirs_exist_ok=True)
        (path / name).write_text("[" * 100_000)
        if name == "voice.json":
            reseal(path, lambda state: None)
        refused()
    shutil.copytree(whole, path, dirs_exist_ok=True)
    Trainer(config, model=make_model(), resume=True).close()


def test_another_store_is_told_by_what_differs(
    make_config: Callable[..., Config], make_model: Callable[[], torch.nn.Module]
) -> None:
    config = make_config(training__max_steps=1, training__val_step=2)
    with Trainer(config, model=make_model()) as trainer:
        trainer.fit()
    path = checkpoints(trainer.run_folder)[0]
    voice = json.loads((path / "voice.json").read_text(encoding="utf-8"))
    voice["contract"]["fmax"] = 7000.0
    voice["speakers"] = ["anna", "ben"]
    (path / "voice.json").write_text(json.dumps(voice), encoding="utf-8")
    reseal(path, lambda state: state.update(store_fingerprint="0"))
    with pytest.raises(InputError, match=r"contract\.fmax 7000\.0 there.*speakers \(2 there, 1 here\)"):
        Trainer(config, model=make_model(), resume=True)
