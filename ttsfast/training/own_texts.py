"""Sentences of the user's own, spoken at each validation, to be heard in TensorBoard as the voice learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ttsfast.models.eval_mode import eval_mode
from ttsfast.models.voice import Voice
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.synthesis.lines import Line, read_file
from ttsfast.training.telemetry.log import Telemetry

NONE = "none"


class OwnTexts:
    """The lines of a file, ``text`` or ``id|text``; none where ``path`` is :data:`NONE`.

    Raises InputError where the file cannot be read, or the voice cannot read one of its lines.
    """

    def __init__(self, path: str, model: nn.Module, device: torch.device, info: VoiceInfo) -> None:
        self._lines: list[Line] = [] if path == NONE else read_file(Path(path))
        self._voice = Voice(model=model, device=device, **vars(info))
        for line in self._lines:
            self._voice.spoken(line.text, line.where)

    def speak(self, stop_threshold: float, telemetry: Telemetry, step: int) -> None:
        """Speak them with the weights that the model has now, as ``own/ID`` in TensorBoard."""
        voice = replace(self._voice, stop_threshold=stop_threshold)
        with eval_mode(voice.model, voice.device):
            spoken = voice.speak([line.text for line in self._lines])
        for line, speech in zip(self._lines, spoken, strict=True):
            telemetry.audio(f"own/{line.name}", speech.wave, voice.contract.sample_rate, step)
