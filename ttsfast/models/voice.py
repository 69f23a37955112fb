"""A voice: a trained model with all that turns text into a waveform, and nothing of the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ttsfast.config import config_from_dict
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.errors import InputError
from ttsfast.models.build import build_model, require_trust
from ttsfast.models.checkpoint import find_checkpoint, load_checkpoint
from ttsfast.models.exported import load_exported
from ttsfast.models.voice_info import VoiceInfo


@dataclass
class Speech:
    """One synthesised utterance."""

    text: str
    log_mel: np.ndarray
    """(T, C) in the contract's log units"""
    wave: np.ndarray
    """(samples,) float32"""
    attention: np.ndarray | None
    """(S, N), the mean over heads; None when the model reports none"""
    stopped: bool
    """Whether the model itself ended the utterance, before the frame limit."""


@dataclass(frozen=True, kw_only=True)
class Voice(VoiceInfo):
    """A model ready to speak."""

    model: nn.Module
    device: torch.device

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | str = "cpu",
        *,
        model: nn.Module | None = None,
        trust_code: bool = False,
    ) -> Voice:
        """Load a run's best checkpoint (the last where none is recorded), a checkpoint, or an exported voice.

        Args:
            path: a run folder, one of its checkpoints, or a file that ``ttsfast export`` wrote.
            device: where to speak.
            model: takes the weights, where the trainer was given a model that no configuration names.
            trust_code: import the module of a model that is not built in.

        Raises:
            InputError: there is no checkpoint, or it is damaged, or it is of another model; or its model is
                not built in, and ``trust_code`` is not set.
        """
        if path.is_file():
            exported, info = load_exported(path, device)
            return cls(model=exported, device=torch.device("cpu"), **vars(info))
        checkpoint = load_checkpoint(find_checkpoint(path, prefer_best=True))
        info = VoiceInfo.from_dict(checkpoint.voice, str(checkpoint.path / "voice.json"))
        if model is None:
            config = config_from_dict(checkpoint.state.get("config") or {}).model
            require_trust(config, checkpoint.path, trust_code=trust_code)
            model = build_model(config, info)
        try:
            model.load_state_dict(checkpoint.weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{checkpoint.path}: the weights do not fit the model ({reason})") from error
        return cls(model=model.to(device).eval(), device=torch.device(device), **vars(info))

    def encode(self, text: str, where: str) -> np.ndarray:
        """Symbol ids (N,) of one text; ``where`` is its place, for the message.

        Raises:
            InputError: an unknown symbol, named with its place, or a text of which nothing is left.
        """
        made = self.frontend(text)
        if not made:
            raise InputError(f"{where}: nothing is left to speak after normalisation; give at least one word")
        return self.symbols.encode(made, where)

    def speak(
        self,
        texts: Sequence[str],
        speakers: Sequence[str] | None = None,
        *,
        batch_size: int = 16,
        vocoder: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> list[Speech]:
        """Synthesise texts, free-running.

        Args:
            texts: to say.
            speakers: one name per text; the voice's first for all when None.
            batch_size: texts at a time.
            vocoder: from log-mels (T, C) to samples, as :func:`ttsfast.synthesis.vocoder.load_vocoder` gives;
                Griffin-Lim when None.

        Raises:
            InputError: an unknown symbol (named with its place) or speaker.
        """
        names = list(speakers) if speakers is not None else [self.speakers[0]] * len(texts)
        if len(names) != len(texts):
            raise InputError(f"{len(texts)} texts but {len(names)} speakers: give one speaker per text")
        encoded = [self.encode(text, f"text {text!r}") for text in texts]
        numbers = [self.speaker_number(name) for name in names]
        speech: list[Speech] = []
        for start in range(0, len(texts), batch_size):
            part = slice(start, start + batch_size)
            speech += self._speak_batch(texts[part], encoded[part], numbers[part], vocoder)
        return speech

    def speaker_number(self, name: str) -> int:
        """A speaker's number; raises InputError, listing the speakers, for an unknown name."""
        if self.speakers == ("",) and name:
            raise InputError(f"no speaker {name!r}: this voice has one, without a name; name none")
        if name not in self.speakers:
            raise InputError(f"no speaker {name!r}: this voice has {', '.join(map(repr, self.speakers))}")
        return self.speakers.index(name)

    def _speak_batch(
        self,
        texts: Sequence[str],
        encoded: Sequence[np.ndarray],
        speakers: Sequence[int],
        vocoder: Callable[[np.ndarray], np.ndarray] | None,
    ) -> list[Speech]:
        lengths = torch.tensor([len(ids) for ids in encoded], device=self.device)
        text = torch.zeros(len(encoded), int(max(len(ids) for ids in encoded)), dtype=torch.int64)
        for row, ids in enumerate(encoded):
            text[row, : len(ids)] = torch.from_numpy(ids)
        with torch.inference_mode():
            out = self.model.synthesize(  # type: ignore[operator]
                text.to(self.device),
                lengths,
                torch.tensor(speakers, device=self.device),
                max_frames=self.max_frames,
                stop_threshold=self.stop_threshold,
            )
        speech = []
        for row, spoken in enumerate(texts):
            frames = int(out.mel_lengths[row])
            mel = out.mel[row, :frames].float().cpu().numpy() * self.mel_std + self.mel_mean
            speech.append(
                Speech(
                    text=spoken,
                    log_mel=mel,
                    wave=griffin_lim(mel, self.contract) if vocoder is None else vocoder(mel),
                    attention=out.attention_of(row, len(encoded[row])),
                    stopped=bool(out.stopped[row]),
                )
            )
        return speech
