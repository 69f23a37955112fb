"""A voice: its speakers, what it needs of its model, and the values that it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from model_checks import small_parallel
from torch import Tensor, nn
from voices import BINS, parallel_voice, small_voice

from ttsfast.errors import InputError
from ttsfast.models.interface import Delivery
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


def test_a_delivery_that_the_voice_has_not_learnt_is_one_line(voice: Voice) -> None:
    parallel = parallel_voice()
    with pytest.raises(
        InputError, match=r"^speed 2: this voice's model cannot change its speed; leave speed out"
    ):
        voice.speak(["a"], delivery=Delivery(speed=2.0))
    with pytest.raises(InputError, match=r"^speed 3: use 0.5 to 2$"):
        parallel.speak(["a"], delivery=Delivery(speed=3.0))
    flat = replace(parallel, model=small_parallel(pitch=False))
    with pytest.raises(
        InputError, match=r"cannot change its pitch; .* model.architecture=paralleltts model.pitch"
    ):
        flat.check_delivery(Delivery(pitch=-1.0))
    parallel.check_delivery(Delivery(speed=0.5, pitch=12.0))


def test_a_delivery_is_heard() -> None:
    voice = parallel_voice()
    usual, fast, high = (
        voice.speak(["dad fad cab gag"], delivery=delivery, vocoder=lambda mel: mel)[0]
        for delivery in (Delivery(), Delivery(speed=2.0), Delivery(pitch=5.0))
    )
    r = voice.model.reduction_factor
    assert abs(len(fast.log_mel) - len(usual.log_mel) / 2) <= r
    assert usual.read == fast.read == 1.0
    assert usual.stopped
    assert usual.log_mel.shape == high.log_mel.shape
    assert abs(usual.log_mel - high.log_mel).max() > 1e-2


@pytest.mark.parametrize(
    "bad",
    [
        {"max_frames": -1},
        {"max_frames": 1e999},
        {"stop_threshold": float("nan")},
        {"speakers": "ab"},
        {"tracks": {"pitch": 3}},
    ],
)
def test_a_voice_of_impossible_values_is_refused(bad: dict[str, Any], voice: Voice) -> None:
    values = voice.to_dict()
    VoiceInfo.from_dict(values, "here")
    with pytest.raises(InputError, match="here: "):
        VoiceInfo.from_dict({**values, **bad}, "here")
