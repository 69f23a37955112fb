"""A voice: its speakers, what it needs of its model, and the values that it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from voices import BINS, small_voice

from ttsfast.errors import InputError
from ttsfast.models.voice import Voice
from ttsfast.models.voice_info import VoiceInfo


@pytest.fixture(scope="module")
def voice() -> Voice:
    return small_voice()


def test_the_one_speaker_of_a_corpus_without_names_is_not_listed(voice: Voice) -> None:
    with pytest.raises(
        InputError, match=r"^no speaker 'anna': this voice has one, without a name; name none$"
    ):
        replace(voice, speakers=("",)).speaker_number("anna")
    assert replace(voice, speakers=("",)).speaker_number("") == 0


def test_a_model_without_attention_speaks() -> None:
    from ttsfast.models.interface import FreeRunning

    class Mute(nn.Module):
        def synthesize(self, text: Tensor, lengths: Tensor, speaker: Tensor, **_: Any) -> FreeRunning:
            mel = torch.zeros(len(text), 8, BINS)
            return FreeRunning(mel, torch.full_like(lengths, 8), None, lengths > 0)

    speech = replace(small_voice(), model=Mute()).speak(["a"])[0]
    assert speech.attention is None
    assert speech.log_mel.shape == (8, BINS)


@pytest.mark.parametrize(
    "bad", [{"max_frames": -1}, {"max_frames": 1e999}, {"stop_threshold": float("nan")}, {"speakers": "ab"}]
)
def test_a_voice_of_impossible_values_is_refused(bad: dict[str, Any], voice: Voice) -> None:
    values = voice.to_dict()
    VoiceInfo.from_dict(values, "here")
    with pytest.raises(InputError, match="here: "):
        VoiceInfo.from_dict({**values, **bad}, "here")
