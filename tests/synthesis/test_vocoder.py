"""Vocoders: their contracts, what they give, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from voices import BINS, small_voice

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.errors import InputError
from ttsfast.models.voice import Voice
from ttsfast.synthesis.lines import given_lines
from ttsfast.synthesis.reader import Reader
from ttsfast.synthesis.speech import write_speech
from ttsfast.synthesis.vocoder import Vocoder, load_vocoder

LIBROSA = MelContract.preset("librosa-22k")
HOP = LIBROSA.hop_length
# TorchScript is what published vocoders come in, deprecated as torch says it is.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
WEIGHTS = (0.01 * np.random.default_rng(0).normal(size=(BINS, HOP))).astype(np.float32)


@pytest.fixture(scope="module")
def voice() -> Voice:
    return small_voice()


class TinyVocoder(nn.Module):
    """Each frame, (C,), times a matrix is its ``hop`` samples."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(WEIGHTS))

    def forward(self, mel: Tensor) -> Tensor:
        return (mel.transpose(1, 2) @ self.weight).reshape(1, 1, -1)


def write_vocoder(
    folder: Path, kind: str, contract: str | None = None, weights: np.ndarray = WEIGHTS
) -> Path:
    """A vocoder's file, with a contract inside it where one is given."""
    if kind == "torchscript":
        module = TinyVocoder()
        module.weight = nn.Parameter(torch.from_numpy(weights))
        inside = {"mel_contract.json": contract} if contract else {}
        torch.jit.save(torch.jit.script(module), str(folder / "v.pt"), _extra_files=inside)
        return folder / "v.pt"
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra 'onnx')")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra 'onnx')")
    h, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        h.make_node("Transpose", ["mel"], ["frames"], perm=[0, 2, 1]),
        h.make_node("MatMul", ["frames", "weight"], ["groups"]),
        h.make_node("Reshape", ["groups", "shape"], ["wave"]),
    ]
    graph = h.make_graph(
        nodes,
        "vocoder",
        [h.make_tensor_value_info("mel", kinds.FLOAT, [1, BINS, "frames"])],
        [h.make_tensor_value_info("wave", kinds.FLOAT, [1, 1, "samples"])],
        [
            h.make_tensor("weight", kinds.FLOAT, weights.shape, weights.flatten().tolist()),
            h.make_tensor("shape", kinds.INT64, [3], [1, 1, -1]),
        ],
    )
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=10)
    if contract:
        h.set_model_props(proto, {"mel_contract": contract})
    onnx.save(proto, folder / "v.onnx")
    return folder / "v.onnx"


KINDS = ["torchscript", "onnx"]
HIFIGAN_CONFIG = {
    "sampling_rate": 22050,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "num_mels": 80,
    "fmin": 0,
    "fmax": 8000,
    "resblock": "1",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["inside", "beside"])
def test_a_vocoder_speaks_the_voices_mels(kind: str, place: str, voice: Voice, tmp_path: Path) -> None:
    contract = json.dumps("librosa-22k" if place == "inside" else {"mel_contract": LIBROSA.to_dict()})
    path = write_vocoder(tmp_path, kind, contract if place == "inside" else None)
    if place == "beside":
        (tmp_path / f"{path.name}.json").write_text(contract)
    vocoder = load_vocoder(path, voice.contract)
    speech = voice.speak(["bad cab"], vocoder=vocoder)[0]
    expected = (speech.log_mel @ WEIGHTS).reshape(-1)
    assert np.abs(expected).max() > 0.01
    assert np.abs(speech.wave - expected).max() < 1e-5
    write_speech(Reader(voice=voice, vocoder=vocoder), given_lines(["bad cab"]), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "speech.json").read_text())["vocoder"] == path.name


@pytest.mark.parametrize("kind", KINDS)
def test_another_contract_is_refused_and_every_difference_listed(kind: str, tmp_path: Path) -> None:
    path = write_vocoder(
        tmp_path, kind, json.dumps({**HIFIGAN_CONFIG, "sampling_rate": 24000, "hop_size": 300})
    )
    with pytest.raises(InputError, match="its mel contract is not the voice's") as caught:
        load_vocoder(path, LIBROSA)
    for part in (
        "sample_rate is 22050 in the voice and 24000 in the vocoder",
        "hop_length is 256 in the voice and 300 in the vocoder",
        "padding is 'center_zero' in the voice and 'hifigan' in the vocoder",
    ):
        assert part in str(caught.value)
    assert "n_mels" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="not the voice's"):
        load_vocoder(path, LIBROSA, assume_contract=True)


def test_a_published_hifigan_configuration_is_a_contract(tmp_path: Path) -> None:
    path = write_vocoder(tmp_path, "torchscript")
    (tmp_path / "v.pt.json").write_text(json.dumps(HIFIGAN_CONFIG))
    assert load_vocoder(path, MelContract.preset("hifigan-22k")).contract == MelContract.preset("hifigan-22k")


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocoder_without_a_contract_wants_a_flag(kind: str, tmp_path: Path) -> None:
    path = write_vocoder(tmp_path, kind)
    with pytest.raises(InputError, match=rf"write {path.name}\.json beside it .* or add --assume-contract"):
        load_vocoder(path, LIBROSA)
    mel = np.random.default_rng(1).normal(size=(5, BINS)).astype(np.float32)
    assert load_vocoder(path, LIBROSA, assume_contract=True)(mel).shape == (5 * HOP,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (WEIGHTS[:, :100], "gave 1000 samples for 10 frames, expected about 2560, 256 a frame"),
        (WEIGHTS * np.float32(np.nan), "samples that are not finite floats"),
    ],
)
def test_a_vocoder_that_gives_something_else_is_refused(
    kind: str, weights: np.ndarray, message: str, tmp_path: Path
) -> None:
    path = write_vocoder(tmp_path, kind, '"librosa-22k"', weights)
    with pytest.raises(InputError, match=message):
        load_vocoder(path, LIBROSA)(np.ones((10, BINS), dtype=np.float32))


def test_a_vocoder_that_fails_is_named_with_the_shape(tmp_path: Path) -> None:
    path = write_vocoder(tmp_path, "torchscript", '"librosa-22k"', WEIGHTS[:40])
    with pytest.raises(InputError, match=r"v\.pt: the vocoder fails on mels of shape \(1, 80, 10\)"):
        load_vocoder(path, LIBROSA)(np.ones((10, BINS), dtype=np.float32))


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        ("{", "not JSON"),
        ("3", "must be a preset's name or a mel contract, not int"),
        ('"griffin"', "unknown mel preset 'griffin'"),
        ('{"hop": 3}', "unknown key 'hop'"),
        (json.dumps({**HIFIGAN_CONFIG, "hop_size": "x"}), r"v\.pt\.json"),
    ],
)
def test_a_contract_that_is_none_is_named_with_its_file(contract: str, message: str, tmp_path: Path) -> None:
    path = write_vocoder(tmp_path, "torchscript")
    (tmp_path / "v.pt.json").write_text(contract)
    with pytest.raises(InputError, match=message) as caught:
        load_vocoder(path, LIBROSA, assume_contract=True)
    assert str(tmp_path / "v.pt.json") in str(caught.value)


def test_files_that_are_no_vocoder_are_refused(tmp_path: Path) -> None:
    for name in ("v.pt", "v.onnx"):
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(InputError, match=r"cannot be read as TorchScript|onnxruntime cannot read it"):
            load_vocoder(tmp_path / name, LIBROSA)
        with pytest.raises(InputError, match="cannot be read"):
            load_vocoder(tmp_path / f"no-{name}", LIBROSA)


def test_weights_are_told_from_a_model(tmp_path: Path) -> None:
    for legacy in (False, True):
        torch.save({"generator": {}}, tmp_path / "g.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(
            InputError, match=r"g\.pth: holds weights and no model .* `ttsfast vocoder convert"
        ):
            load_vocoder(tmp_path / "g.pth", LIBROSA)
    with pytest.raises(
        InputError, match=r"a vocoder's file ends in \.onnx.*weights.*`ttsfast vocoder convert"
    ):
        load_vocoder(tmp_path / "g_02500000", LIBROSA)


def test_griffin_lim_is_the_vocoder_that_is_always_there(voice: Voice) -> None:
    speech = voice.speak(["bad"], vocoder=Vocoder("griffin-lim", LIBROSA))[0]
    assert np.array_equal(speech.wave, griffin_lim(speech.log_mel, LIBROSA))
    assert np.array_equal(speech.wave, voice.speak(["bad"])[0].wave)
