"""A run as one safetensors file: it speaks as the run does, says where it is from, and shows any damage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from voices import small_voice

from ttsfast.config import Config
from ttsfast.errors import InputError
from ttsfast.export.single_file import export_single_file
from ttsfast.models.build import build_model
from ttsfast.models.checkpoint import checkpoint_folder
from ttsfast.models.voice import Voice
from ttsfast.training.checkpoint import save_checkpoint

CONFIG = Config(model=replace(Config().model, size="nano", reduction_factor=8))


def run_folder(folder: Path, licence: str = "", architecture: str = "convtts") -> Path:
    """A run with one checkpoint of a nano voice, whose weights are random."""
    info = replace(small_voice(), licence=licence)
    torch.manual_seed(0)
    save_checkpoint(
        checkpoint_folder(folder, 7),
        7,
        weights=build_model(CONFIG.model, info).state_dict(),
        training={"optimizer.moments": torch.zeros(3)},
        voice=info.to_dict(),
        state={"config": {"model": {**CONFIG.to_dict()["model"], "architecture": architecture}}},
    )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("run"), licence="CC-BY-4.0, © somebody")


@pytest.fixture(scope="module")
def file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "voice.safetensors"
    report = export_single_file(run, path)
    assert (report.bytes, report.step) == (path.stat().st_size, 7)
    assert report.licence == "CC-BY-4.0, © somebody"
    return path


def test_the_file_speaks_as_the_run_does(run: Path, file: Path) -> None:
    ours, theirs = Voice.load(run), Voice.load(file)
    assert theirs.to_dict() == ours.to_dict()
    spoken, again = (voice.speak(["bad cab"], ["ben"])[0] for voice in (ours, theirs))
    assert np.abs(spoken.log_mel).max() > 0.1
    assert np.array_equal(spoken.log_mel, again.log_mel)


def test_anybody_can_read_what_it_holds(file: Path) -> None:
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        names = set(opened.keys())
    assert metadata["licence"] == "CC-BY-4.0, © somebody"
    entries = json.loads(metadata["ttsfast.voice"])
    assert entries["voice"]["speakers"] == ["anna", "ben"]
    assert entries["model"]["size"] == "nano"
    assert names == set(Voice.load(file).model.state_dict())


def test_every_byte_is_checked(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    copy = tmp_path / "voice.safetensors"
    for place in (0, header // 2, header + 9, len(whole) - 1):
        copy.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"voice\.safetensors: .*(damaged|not a|export the voice again)"):
            Voice.load(copy)
    for content in (b"", whole[: len(whole) // 2], b"\x02" + bytes(7) + b"[]"):
        copy.write_bytes(content)
        with pytest.raises(InputError, match=r"voice\.safetensors: "):
            Voice.load(copy)


def test_weights_alone_are_no_voice(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="a safetensors file, but not a voice"):
        Voice.load(tmp_path / "w.safetensors")


def test_a_model_of_ones_own_is_written_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "voice.safetensors"
    export_single_file(run_folder(tmp_path / "run", architecture="nowhere:factory"), path)
    with safe_open(path, "pt") as opened:
        assert "licence" not in opened.metadata()
    with pytest.raises(InputError, match="nowhere"):
        Voice.load(path)


def test_where_nothing_can_be_written_nothing_is_read(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        export_single_file(run, tmp_path / "none" / "voice.safetensors")
