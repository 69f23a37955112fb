"""An exported voice says what the model says, and a file that is not one is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import assert_same
from torch import nn
from typer.testing import CliRunner
from voices import BINS, small_voice

from ttsfast.cli import app
from ttsfast.errors import ExportError, InputError
from ttsfast.export.onnx import OLDEST_TORCH, ExportReport, export_voice
from ttsfast.models.voice import Voice

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra 'onnx')")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra 'onnx')")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra 'onnx')")

TEXTS = ["a", "gab fed abc", "cafe bad", "dad fad cab gag"]


@pytest.fixture(scope="module")
def voice() -> Voice:
    return small_voice()


def spoken(voice: Voice, **limits: Any) -> Any:
    ids = [torch.from_numpy(voice.encode(text, "a text")) for text in TEXTS]
    text = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    lengths = torch.tensor([len(row) for row in ids])
    return voice.model.synthesize(text, lengths, torch.tensor([0, 1, 1, 0]), **limits)  # type: ignore[operator]


def test_what_was_compared_is_reported(written: tuple[Path, ExportReport]) -> None:
    _, report = written
    assert report.frames == 3 * 33
    assert report.free_running_frames > 100
    assert 0.0 < report.free_running_difference < 1e-4


@pytest.mark.parametrize("max_frames", [1, 3, 31, 90])
def test_the_file_gives_the_same_mels_attention_and_ends(
    max_frames: int, voice: Voice, exported: Path
) -> None:
    ends = set()
    for threshold in (0.0, 0.4, 0.42, 0.5, 1.0):
        ours, theirs = (
            spoken(v, max_frames=max_frames, stop_threshold=threshold) for v in (voice, Voice.load(exported))
        )
        assert ours.mel_lengths.tolist() == theirs.mel_lengths.tolist()
        assert ours.stopped.tolist() == theirs.stopped.tolist()
        assert_same(theirs.mel, ours.mel, 1e-4)
        assert_same(theirs.attention, ours.attention, 1e-4)
        ends.update(ours.mel_lengths.tolist())
    if max_frames == 90:
        assert len(ends) > 2


def test_one_text_and_one_speaker_are_as_good_as_many(voice: Voice, exported: Path) -> None:
    theirs = Voice.load(exported)
    for text, speaker in (("a", "anna"), ("bad cab", "ben")):
        ours, others = (v.speak([text], [speaker])[0] for v in (voice, theirs))
        assert ours.log_mel.shape == others.log_mel.shape
        assert np.abs(ours.log_mel - others.log_mel).max() < 1e-4


def test_what_a_voice_needs_beside_its_weights_comes_back(voice: Voice, exported: Path) -> None:
    assert Voice.load(exported).to_dict() == voice.to_dict()


def test_any_runtime_can_speak_it(voice: Voice, exported: Path) -> None:
    """With nothing of ttsfast: ids in, log-mels out, as docs/export.md shows."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    known = json.loads(session.get_modelmeta().custom_metadata_map["ttsfast"])["voice"]
    ids = [known["symbols"].index(character) for character in "bad cab"]
    log_mel, lengths = session.run(
        ["log_mel", "mel_lengths"],
        {
            "text": np.array([ids]),
            "text_lengths": np.array([len(ids)]),
            "speaker": np.array([known["speakers"].index("ben")]),
            "max_frames": np.array(known["max_frames"]),
            "stop_threshold": np.array(known["stop_threshold"], dtype=np.float32),
        },
    )
    ours = voice.model.synthesize(
        torch.tensor([ids]),
        torch.tensor([len(ids)]),
        torch.tensor([1]),
        max_frames=voice.max_frames,
        stop_threshold=voice.stop_threshold,
    )
    assert lengths.tolist() == ours.mel_lengths.tolist()
    expected = ours.mel[0].numpy() * voice.mel_std + voice.mel_mean
    assert np.abs(log_mel[0] - expected).max() < 1e-4


def changed(exported: Path, path: Path, edit: Any) -> Path:
    """A copy whose metadata were edited, sealed anew."""
    proto = onnx.load(exported)
    entries = json.loads(next(p.value for p in proto.metadata_props if p.key == "ttsfast"))
    edit(entries)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {"ttsfast": json.dumps(entries)})
    body = proto.SerializeToString()
    seal = onnx.ModelProto()
    values = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    onnx.helper.set_model_props(seal, {"ttsfast.seal": json.dumps(values)})
    path.write_bytes(body + seal.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda e: e.update(format=9), "exported format 9, this version reads 1"),
        (lambda e: e.update(n_symbols=5), "the graph has 5 symbols and the voice 9"),
        (lambda e: e.update(n_speakers=1), "the graph has 1 speakers and the voice 2"),
        (lambda e: e["voice"].update(silence=[0.0]), "statistics are not 80 finite numbers"),
        (lambda e: e["voice"].update(mel_std=[float("nan")] * BINS), "statistics are not 80 finite"),
        (lambda e: e["voice"].update(symbols=["a", "b"]), "not a voice"),
        (lambda e: e["voice"].pop("frontend"), "not a voice"),
        (lambda e: e.pop("voice"), "its metadata are not a voice's"),
    ],
)
def test_metadata_that_contradict_the_graph_are_refused(
    edit: Any, message: str, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        Voice.load(changed(exported, tmp_path / "v.onnx", edit))
    Voice.load(changed(exported, tmp_path / "v.onnx", lambda entries: None))


def test_a_damaged_file_is_refused(exported: Path, tmp_path: Path) -> None:
    content = exported.read_bytes()
    path = tmp_path / "v.onnx"
    generator = np.random.default_rng(0)
    for place in [*generator.integers(0, len(content) - 200, 40).tolist()]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"v\.onnx"):
            Voice.load(path)
    for size in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"v\.onnx"):
            Voice.load(path)


def test_another_onnx_file_is_no_voice(tmp_path: Path) -> None:
    path = tmp_path / "v.onnx"
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path
    )
    with pytest.raises(InputError, match="an ONNX file, but not a voice"):
        Voice.load(path)


def test_a_file_that_differs_from_the_model_is_not_written(
    voice: Voice, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ttsfast.export import onnx as export

    other = onnx.load(exported)
    for initializer in other.graph.initializer:
        if initializer.name == "step/model.output.bias":
            initializer.raw_data = (np.frombuffer(initializer.raw_data, np.float32) + 0.01).tobytes()
            break
    else:
        raise AssertionError([i.name for i in other.graph.initializer])
    del other.metadata_props[:]
    monkeypatch.setattr(export, "speaking_graph", lambda *_: other)
    with pytest.raises(ExportError, match=r"differ from PyTorch's by .* nothing was written"):
        export.export_voice(voice, tmp_path / "v.onnx")
    assert not list(tmp_path.iterdir())


def test_every_frame_is_compared_and_a_fault_of_a_single_step_is_seen(voice: Voice, exported: Path) -> None:
    from ttsfast.export.check import compare_steps

    content = exported.read_bytes()
    frames, difference = compare_steps(onnx, content, exported, voice, TEXTS)
    assert frames == 4 * 33
    assert 0.0 < difference < 1e-4
    for name, change in (("first_cache", "Exp"), ("next_cache", "Neg"), ("keys", "Neg")):
        other = onnx.load_from_string(content)
        (loop,) = (node for node in other.graph.node if node.op_type == "Loop")
        (body,) = (attribute.g for attribute in loop.attribute if attribute.name == "body")
        graph = body if name.startswith("next") else other.graph
        (maker,) = (node for node in graph.node if name in node.output)
        maker.output[list(maker.output).index(name)] = "before"
        fault = onnx.helper.make_node(change, ["before"], [name], name="start/fault")
        graph.node.insert(list(graph.node).index(maker) + 1, fault)
        _, difference = compare_steps(onnx, other.SerializeToString(), exported, voice, TEXTS)
        assert difference > 1e-3


def test_what_cannot_be_exported_is_said(
    voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as old:
        old.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.6.0"))
        with pytest.raises(InputError, match=r"needs torch 2\.11 or newer, and this is 2\.6\.0: upgrade"):
            export_voice(voice, tmp_path / "v.onnx")
    if torch.__version__ < OLDEST_TORCH:
        return
    with pytest.raises(
        InputError, match="only ConvTTS and ParallelTTS are exported, and this voice's model is Linear"
    ):
        export_voice(replace(voice, model=nn.Linear(1, 1)), tmp_path / "v.onnx")
    with pytest.raises(InputError, match=r"name a file that ends in \.onnx"):
        export_voice(voice, tmp_path / "v.pt")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"needs the package onnxscript: pip install 'ttsfast\[onnx\]'"):
        export_voice(voice, tmp_path / "v.onnx")


def test_without_onnxruntime_one_line_says_what_to_install(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs onnxruntime: pip install 'ttsfast\[onnx\]'"):
        Voice.load(exported)


def test_a_device_that_onnxruntime_lacks_is_said(exported: Path) -> None:
    with pytest.raises(InputError, match="this onnxruntime cannot run on mps"):
        Voice.load(exported, "mps")


def test_the_command_speaks_the_file(exported: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    # Of random weights, only texts of one symbol are sure to be read whole.
    lines.write_text("a\n\nfarewell|b\n", encoding="utf-8")
    arguments = [
        "synth",
        exported,
        "--input",
        lines,
        "--output",
        tmp_path / "out",
        "--speaker",
        "ben",
        "--json",
    ]
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0
    assert [Path(e["file"]).name for e in json.loads(result.stdout)] == ["0001.wav", "farewell.wav"]
    assert json.loads((tmp_path / "out" / "speech.json").read_text(encoding="utf-8"))["speaker"] == "ben"


@pytest.fixture
def speaking(exported: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``ttsfast synth`` from a pipe into a pipe."""
    code = "from ttsfast.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "synth", str(exported), "--input", "-", "--output", "-", "--raw"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    yield process
    process.kill()
    process.wait()


def test_a_stream_is_heard_line_by_line_and_its_reader_may_leave(speaking: subprocess.Popen[bytes]) -> None:
    assert speaking.stdin is not None
    assert speaking.stdout is not None
    assert speaking.stderr is not None
    speaking.stdin.write(b"a\n")
    speaking.stdin.flush()
    # The first line is spoken while the second has not been written yet.
    assert len(speaking.stdout.read(512)) == 512
    speaking.stdout.close()
    try:
        speaking.stdin.write(b"b\n" * 100)
        speaking.stdin.close()
    except BrokenPipeError:
        pass
    assert speaking.wait(250) == 141
    said = speaking.stderr.read().decode()
    assert "Traceback" not in said
    assert "Broken pipe" not in said
