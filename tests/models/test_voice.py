"""What to say, from texts, files and pipes, into files and streams, through vocoders."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn
from voices import BINS, small_voice

from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.errors import InputError
from ttsfast.models.voice import Voice
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.synthesis.speech import Line, given_lines, read_file, read_lines, stream_speech, write_speech
from ttsfast.synthesis.vocoder import Vocoder, load_vocoder

LIBROSA = MelContract.preset("librosa-22k")
HOP = LIBROSA.hop_length
# TorchScript is what published vocoders come in, deprecated as torch says it is.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
PLAIN = Vocoder("griffin-lim", LIBROSA)
WEIGHTS = (0.01 * np.random.default_rng(0).normal(size=(BINS, HOP))).astype(np.float32)
# As loud as speech, and for whole batches faster than Griffin-Lim.
LINEAR = Vocoder("linear", LIBROSA, lambda mel: mel[0].T @ WEIGHTS)


@pytest.fixture(scope="module")
def voice() -> Voice:
    return small_voice()


def test_lines_are_named_by_their_id_or_their_number() -> None:
    lines = list(read_lines(io.StringIO("\ufeffone\n\n  x_1.b | two | three \n فارسی|چهار\nfive\n"), "f.txt"))
    assert lines == [
        Line("0001", "one", "f.txt:1"),
        Line("x_1.b", "two | three", "f.txt:3"),
        Line("فارسی", "چهار", "f.txt:4"),
        Line("0005", "five", "f.txt:5"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a|x\nb|y\na|z\n", r"f\.txt:3: the name 'a' is taken by line 1"),
        ("0002|x\ny\n", r"f\.txt:2: the name '0002' is taken by line 1"),
        ("../a|x\n", r"f\.txt:1: '\.\./a' cannot name a file"),
        (".a|x\n", r"f\.txt:1: '\.a' cannot name a file"),
        ("|x\n", r"f\.txt:1: '' cannot name a file"),
        ("a|x\n" + "ص" * 101 + "|y\n", r"f\.txt:2: the name صصص.* has 202 bytes"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused_with_its_place(content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_lines(io.StringIO(content), "f.txt"))


def test_files_that_hold_nothing_to_say_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    with pytest.raises(InputError, match="cannot be read"):
        read_file(path)
    path.write_text("\n \n")
    with pytest.raises(InputError, match="holds no text"):
        read_file(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_file(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            Line("a", "bad cat", "f.txt:7"),
            r"f\.txt:7: unknown symbol 't' \(U\+0074 .*\) at character 7 of 'bad cat'",
        ),
        (Line("a", "\u200b", "f.txt:7"), r"f\.txt:7: nothing is left to speak"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place_and_nothing_is_written(
    line: Line, message: str, voice: Voice, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        write_speech(voice, [*given_lines(["bad"]), line], tmp_path / "out", None, PLAIN)
    assert not (tmp_path / "out").exists()


def test_speakers_are_chosen_by_name(voice: Voice, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no speaker 'carl': this voice has 'anna', 'ben'"):
        write_speech(voice, given_lines(["bad"]), tmp_path / "out", "carl", PLAIN)
    assert not (tmp_path / "out").exists()
    mels = [voice.speak(["bad"], [name])[0].log_mel[:3] for name in ("anna", "ben")]
    assert np.array_equal(voice.speak(["bad"])[0].log_mel[:3], mels[0])
    assert not np.allclose(mels[0], mels[1], atol=1e-3)


def test_the_one_speaker_of_a_corpus_without_names_is_not_listed(voice: Voice) -> None:
    with pytest.raises(
        InputError, match=r"^no speaker 'anna': this voice has one, without a name; name none$"
    ):
        replace(voice, speakers=("",)).speaker_number("anna")
    assert replace(voice, speakers=("",)).speaker_number("") == 0


def test_a_batch_is_written_in_files_and_a_record(voice: Voice, tmp_path: Path) -> None:
    lines = [Line(f"n{number}", text, "f.txt:1") for number, text in enumerate(["a", "bad cab", "gab"] * 6)]
    entries = write_speech(voice, lines, tmp_path / "out", "ben", LINEAR)
    assert sorted(p.name for p in (tmp_path / "out").glob("*.wav")) == sorted(f"{x.name}.wav" for x in lines)
    record = json.loads((tmp_path / "out" / "speech.json").read_text(encoding="utf-8"))
    assert record["utterances"] == entries
    assert (record["vocoder"], record["speaker"]) == ("linear", "ben")
    assert MelContract.from_dict(record["mel_contract"]) == LIBROSA
    wave, rate = soundfile.read(tmp_path / "out" / "n1.wav")
    assert len(wave) / rate == pytest.approx(entries[1]["seconds"])
    # Batches of 16: the second batch starts with the same text as the first.
    again, _ = soundfile.read(tmp_path / "out" / "n16.wav")
    assert np.abs(wave).max() > 0.01
    assert np.abs(wave - again).max() < 1e-3


def test_a_stream_holds_what_the_files_hold(voice: Voice, tmp_path: Path) -> None:
    lines = given_lines(["bad cab", "a", "gab fed"])
    write_speech(voice, lines, tmp_path, None, LINEAR)
    files = [soundfile.read(tmp_path / f"{line.name}.wav", dtype="int16")[0] for line in lines]
    raw, wav = io.BytesIO(), io.BytesIO()
    stream_speech(voice, iter(lines), raw, None, LINEAR, raw=True)
    stream_speech(voice, iter(lines), wav, None, LINEAR, raw=False)
    streamed = np.frombuffer(raw.getvalue(), "<i2")
    # Alone or in a batch: the mels agree to rounding.
    assert np.abs(streamed.astype(int) - np.concatenate(files)).max() <= 2
    assert len(wav.getvalue()) == 44 + len(raw.getvalue())
    heard, rate = soundfile.read(io.BytesIO(wav.getvalue()), dtype="int16")
    assert rate == 22050
    assert np.array_equal(heard, streamed)


def test_a_stream_is_written_before_the_next_line_is_read(voice: Voice) -> None:
    out = io.BytesIO()
    sizes = []

    def lines() -> Any:
        for line in given_lines(["bad", "cab", "bat"]):
            sizes.append(out.tell())
            yield line

    with pytest.raises(InputError, match="unknown symbol 't'"):
        stream_speech(voice, lines(), out, None, LINEAR, raw=True)
    assert 0 == sizes[0] < sizes[1] < sizes[2]


def test_a_model_without_attention_speaks() -> None:
    from ttsfast.models.interface import FreeRunning

    class Mute(nn.Module):
        def synthesize(self, text: Tensor, lengths: Tensor, speaker: Tensor, **_: Any) -> FreeRunning:
            mel = torch.zeros(len(text), 8, BINS)
            return FreeRunning(mel, torch.full_like(lengths, 8), None, lengths > 0)

    from dataclasses import replace

    speech = replace(small_voice(), model=Mute()).speak(["a"])[0]
    assert speech.attention is None
    assert speech.log_mel.shape == (8, BINS)


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
    write_speech(voice, given_lines(["bad cab"]), tmp_path / "out", None, vocoder)
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
    torch.save({"weights": torch.zeros(1)}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="cannot be read as TorchScript"):
        load_vocoder(tmp_path / "state.pt", LIBROSA)
    with pytest.raises(InputError, match=r"a vocoder's file ends in \.onnx"):
        load_vocoder(tmp_path / "v.ckpt", LIBROSA)


def test_griffin_lim_is_the_vocoder_that_is_always_there(voice: Voice) -> None:
    speech = voice.speak(["bad"], vocoder=PLAIN)[0]
    assert np.array_equal(speech.wave, griffin_lim(speech.log_mel, LIBROSA))
    assert np.array_equal(speech.wave, voice.speak(["bad"])[0].wave)


@pytest.mark.parametrize(
    "bad", [{"max_frames": -1}, {"max_frames": 1e999}, {"stop_threshold": float("nan")}, {"speakers": "ab"}]
)
def test_a_voice_of_impossible_values_is_refused(bad: dict[str, Any], voice: Voice) -> None:
    values = voice.to_dict()
    VoiceInfo.from_dict(values, "here")
    with pytest.raises(InputError, match="here: "):
        VoiceInfo.from_dict({**values, **bad}, "here")
