"""Published HiFi-GAN weights become a vocoder that says what they say, and nothing else does."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hifigan import CONFIGS, PublishedGenerator
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations

from ttsfast.data.features.contract import MelContract
from ttsfast.errors import InputError
from ttsfast.export.hifigan import Generator
from ttsfast.export.vocoder import convert_vocoder
from ttsfast.synthesis.vocoder import load_vocoder

pytest.importorskip("onnx", reason="onnx is not installed (extra 'onnx')")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra 'onnx')")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra 'onnx')")

PUBLISHED = MelContract.preset("hifigan-22k")
SMALL: dict[str, Any] = {**CONFIGS["V1"], "upsample_initial_channel": 32}


def old_weight_norm(module: nn.Module) -> nn.Module:
    """What published checkpoints were saved from: weight_g and weight_v."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module)


def written(folder: Path, config: dict[str, Any], norm: Any, save: Callable[[Any, Path], Any]) -> nn.Module:
    """A generator with random weights, saved in ``folder`` beside its configuration."""
    torch.manual_seed(5)
    generator = PublishedGenerator(config, norm).eval()
    with torch.no_grad():
        for parameter in generator.parameters():
            # Weight norm starts with scales that are the directions' lengths, which would hide a mistake.
            parameter *= 1.0 + 0.3 * torch.rand_like(parameter)
    save(generator.state_dict(), folder / "generator")
    (folder / "config.json").write_text(json.dumps({**config, "batch_size": 16}))
    return generator


def published(state: dict[str, Any], path: Path) -> None:
    torch.save({"generator": state}, path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    written(folder, SMALL, old_weight_norm, published)
    return folder


@pytest.fixture
def saved(small: Path, tmp_path: Path) -> Path:
    """A folder of a small generator of one's own."""
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    return tmp_path


def convert(folder: Path, name: str = "generator") -> Path:
    convert_vocoder(folder / name, folder / "config.json", folder / "vocoder.onnx")
    return folder / "vocoder.onnx"


@pytest.mark.parametrize(
    ("config", "norm", "save"),
    [
        (CONFIGS["V1"], old_weight_norm, published),
        (CONFIGS["V2"], parametrizations.weight_norm, published),
        (CONFIGS["V3"], lambda module: module, torch.save),
    ],
    ids=["V1", "V2", "V3"],
)
def test_the_file_speaks_as_the_published_network_does(
    config: dict[str, Any], norm: Any, save: Any, tmp_path: Path
) -> None:
    generator = written(tmp_path, {**config, "upsample_initial_channel": 32}, norm, save)
    vocoder = load_vocoder(convert(tmp_path), PUBLISHED)
    for frames in (1, 5):
        mel = np.random.default_rng(frames).normal(-5.0, 2.0, (frames, 80)).astype(np.float32)
        with torch.no_grad():
            expected = generator(torch.from_numpy(mel.T[None])).numpy().reshape(-1)
        assert expected.std() > 0.003
        assert np.abs(expected).max() < 0.999
        wave = vocoder(mel)
        assert wave.shape == expected.shape
        assert np.abs(wave - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_names_and_shapes_are_those_of_the_published_checkpoints(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At their full width, for which no numbers are needed."""
    for kind in (nn.Conv1d, nn.ConvTranspose1d):
        monkeypatch.setattr(kind, "reset_parameters", lambda module: None)
    layout = PublishedGenerator(config, lambda module: module).state_dict()
    shapes = dict(Generator.from_config(config).shapes())
    assert shapes == {name: tuple(value.shape) for name, value in layout.items() if "bias" not in name}
    assert {f"{name.removesuffix('weight')}bias" for name in shapes} | shapes.keys() == layout.keys()


def test_weights_in_safetensors_are_as_good(saved: Path) -> None:
    state = torch.load(saved / "generator", weights_only=True)["generator"]
    save_file(state, saved / "generator.safetensors")
    assert convert(saved, "generator.safetensors").read_bytes() == convert(saved).read_bytes()


class Bomb:
    """Pickled, it is a call: what loads it in the usual way makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.mkdir, (self.path,))


@pytest.mark.parametrize("legacy", [False, True])
def test_no_code_in_a_checkpoint_runs(legacy: bool, saved: Path) -> None:
    trap = saved / "trap"
    torch.save(
        {"generator": {}, "steps": Bomb(trap)},
        saved / "generator",
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(InputError, match=r"generator: holds more than weights, or is damaged; nothing in it"):
        convert(saved)
    assert not trap.exists()
    assert not (saved / "vocoder.onnx").exists()
    torch.load(saved / "generator", weights_only=False)
    assert trap.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resblock": "3"}, "resblock is '3', must be '1' or '2'"),
        ({"resblock": "2"}, r"the configuration has resblocks\.0\.convs\.0\.weight, the checkpoint has not"),
        ({"upsample_initial_channel": 64}, r"conv_pre\.weight is \(32, 80, 7\), by the configuration \(64,"),
        ({"resblock_dilation_sizes": [[1, 3]] * 3}, "has no place in the configuration"),
        ({"upsample_rates": [8, 8, 2]}, "upsample_rates multiply to 128, must to hop_size, 256"),
        ({"upsample_rates": "8822"}, "upsample_rates is '8822', must be a list"),
        ({"upsample_rates": [8, 8, 2, True]}, "must hold whole numbers"),
        ({"upsample_kernel_sizes": [16, 16, 4, 3]}, "3 for a rate of 2; must be larger by an even number"),
        ({"resblock_kernel_sizes": [3, 7, 10]}, "10 is even"),
        ({"upsample_initial_channel": 40}, "cannot be halved that often"),
        ({"sampling_rate": "fast", "fmax": None}, "sample_rate is 'fast', must be of type int"),
    ],
)
def test_a_configuration_that_is_not_the_checkpoints_is_named(
    change: dict[str, Any], message: str, saved: Path
) -> None:
    (saved / "config.json").write_text(json.dumps({**SMALL, **change}))
    with pytest.raises(InputError, match=message) as caught:
        convert(saved)
    assert "\n" not in str(caught.value)
    assert not (saved / "vocoder.onnx").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"backbone.embed.weight": torch.zeros(1), "head.out.bias": torch.zeros(1)}, "weights of Vocos"),
        ({"generator": {"activation_post.act.alpha": torch.zeros(1)}}, "weights of BigVGAN"),
        ({"msd": {}, "mpd": {}}, "no generator of HiFi-GAN, which has conv_pre.bias; it holds msd, mpd"),
        (torch.zeros(3), "holds a Tensor"),
    ],
)
def test_weights_of_something_else_are_named(content: Any, message: str, saved: Path) -> None:
    torch.save(content, saved / "generator")
    with pytest.raises(InputError, match=message):
        convert(saved)


def test_files_that_are_no_checkpoint_are_refused(saved: Path) -> None:
    whole = (saved / "generator").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], pickle.dumps([1], protocol=2), b"\x80\x02."):
        for name in ("generator", "generator.safetensors"):
            (saved / name).write_bytes(content)
            with pytest.raises(InputError, match=rf"{name}: (cannot be read|holds)"):
                convert(saved, name)
    with pytest.raises(InputError, match="none: cannot be read"):
        convert(saved, "none")
    (saved / "generator").write_bytes(whole)
    (saved / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        convert(saved)
    state = torch.load(saved / "generator", weights_only=True)["generator"]
    state["conv_post.bias"][0] = float("nan")
    torch.save(state, saved / "generator")
    (saved / "config.json").write_text(json.dumps(SMALL))
    with pytest.raises(InputError, match=r"conv_post\.bias holds NaN"):
        convert(saved)
