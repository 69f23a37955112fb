"""An exported ParallelTTS speaks as the model does, at the speed and pitch that are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from voices import parallel_voice

from ttsfast.errors import ExportError
from ttsfast.export import onnx as export
from ttsfast.export.onnx import ExportReport, export_voice
from ttsfast.export.parallel_check import compare_durations
from ttsfast.models.interface import Delivery
from ttsfast.models.voice import Voice

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra 'onnx')")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra 'onnx')")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra 'onnx')")

TEXTS = ["a", "gab fed abc", "cafe bad", "dad fad cab gag"]


@pytest.fixture(scope="module")
def voice() -> Voice:
    return parallel_voice()


def test_what_was_compared_is_reported(written: tuple[Path, ExportReport]) -> None:
    assert written[1].frames > 100


@pytest.mark.parametrize("delivery", [Delivery(), Delivery(speed=0.7), Delivery(speed=1.6, pitch=-2.0)])
def test_the_file_speaks_as_the_model_does(delivery: Delivery, voice: Voice, exported: Path) -> None:
    theirs = Voice.load(exported)
    assert theirs.to_dict() == voice.to_dict()
    speakers = ["anna", "ben", "ben", "anna"]
    mels = [
        [speech.log_mel for speech in v.speak(TEXTS, speakers, delivery=delivery, vocoder=lambda mel: mel)]
        for v in (voice, theirs)
    ]
    for ours, other in zip(*mels, strict=True):
        assert ours.shape == other.shape
        assert np.abs(ours - other).max() < 3e-4  # of log-mels, whose deviation is up to 2
    assert len({len(mel) for mel in mels[0]}) == 4


def test_what_is_too_long_is_cut_as_the_model_cuts_it(voice: Voice, exported: Path) -> None:
    text, lengths, speaker = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([5]), torch.tensor([1])
    for limit in (1, 4, 200):
        ours, theirs = (
            v.model.synthesize(text, lengths, speaker, max_frames=limit)  # type: ignore[operator]
            for v in (voice, Voice.load(exported))
        )
        assert ours.mel.shape == theirs.mel.shape
        assert ours.mel_lengths.tolist() == theirs.mel_lengths.tolist()
        assert ours.stopped.tolist() == theirs.stopped.tolist()
        assert torch.equal(ours.attention, theirs.attention)


@pytest.mark.parametrize("part", ["speak/model.output.bias", "plan/model.durations.output.bias"])
def test_a_file_that_differs_from_the_model_is_not_written(
    part: str, voice: Voice, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = onnx.load(exported)
    (changed,) = (initializer for initializer in other.graph.initializer if initializer.name == part)
    changed.raw_data = (np.frombuffer(changed.raw_data, np.float32) + 0.05).tobytes()
    del other.metadata_props[:]
    monkeypatch.setattr(export, "parallel_graph", lambda *_: other)
    with pytest.raises(ExportError, match=r"differ from PyTorch's by .* nothing was written"):
        export_voice(voice, tmp_path / "v.onnx")
    assert not list(tmp_path.iterdir())


def test_every_frame_is_compared(voice: Voice, exported: Path) -> None:
    frames, difference = compare_durations(voice, Voice.load(exported), TEXTS)
    usual = sum(
        len(speech.log_mel) for speech in voice.speak(TEXTS, ["anna", "ben"] * 2, vocoder=lambda m: m)
    )
    assert usual < frames < 2 * usual
    assert 0.0 < difference < 1e-4
