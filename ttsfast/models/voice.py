"""A voice: a trained model with all that turns text into a waveform, and nothing of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ttsfast.config import config_from_dict
from ttsfast.data.corpus.spelling import Spelling
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.errors import InputError
from ttsfast.models.build import build_model, require_trust
from ttsfast.models.checkpoint import find_checkpoint, load_checkpoint
from ttsfast.models.exported import load_exported
from ttsfast.models.interface import AS_LEARNT, RANGES, Delivery
from ttsfast.models.reading import end_of_reading, share_read
from ttsfast.models.single_file import SUFFIX, load_single_file
from ttsfast.models.voice_info import VoiceInfo

PLAIN = Spelling()
"""Every symbol must be known, and no reading is the user's own."""

NEVER = 2.0
"""A stop threshold that no probability reaches."""

AFTER_THE_END = 0.2
"""Seconds that a second try goes on after attention has come to the end of the text: as long as trained
voices take from there to the step at which their stop fires."""


@dataclass
class Speech:
    """One synthesised utterance."""

    text: str
    spoken: str
    """What was read for it: the symbols, which are letters or phonemes."""
    log_mel: np.ndarray
    """(T, C) in the contract's log units"""
    wave: np.ndarray
    """(samples,) float32"""
    attention: np.ndarray | None
    """(S, N), the mean over heads; None when the model reports none"""
    read: float | None
    """The share of its symbols that attention passed; None when the model reports none"""
    stopped: bool
    """Whether the model itself ended the utterance, before the frame limit and with all of it read."""
    fault: str
    """Why it is not the whole text, after the second try too; empty when it is."""


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
        if path.is_file() and path.suffix != SUFFIX:
            exported, info = load_exported(path, device)
            return cls(model=exported, device=torch.device("cpu"), **vars(info))
        if path.is_file():
            checkpoint = load_single_file(path)
        else:
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

    def spoken(self, text: str, where: str, spelling: Spelling = PLAIN) -> str:
        """What is read for one text, in symbols of this voice; ``where`` is its place, for the message.

        Raises:
            InputError: as ``spelling`` does.
        """
        return spelling(text, where, self.frontend, self.symbols)

    def encode(self, text: str, where: str) -> np.ndarray:
        """Symbol ids (N,) of :meth:`spoken`, which says what is raised."""
        return self.symbols.encode(self.spoken(text, where), where)

    def speak(
        self,
        texts: Sequence[str],
        speakers: Sequence[str] | None = None,
        *,
        batch_size: int = 16,
        vocoder: Callable[[np.ndarray], np.ndarray] | None = None,
        spelling: Spelling = PLAIN,
        delivery: Delivery = AS_LEARNT,
    ) -> list[Speech]:
        """Synthesise texts, free-running; what was not read whole is tried once more.

        A text is not read whole when attention has not passed all of it, or when the stop does not fire
        before the frame limit. The second try hears the same frames, goes on whatever the stop says, and
        ends :data:`AFTER_THE_END` after attention has come to the end of the text; it is the same every time.
        What is still not whole then says so in its ``fault``.

        Args:
            texts: to say.
            speakers: one name per text; the voice's first for all when None.
            batch_size: texts at a time.
            vocoder: from log-mels (T, C) to samples, as :func:`ttsfast.synthesis.vocoder.load_vocoder` gives;
                Griffin-Lim when None.
            spelling: how texts are read.
            delivery: how they are spoken.

        Raises:
            InputError: an unknown symbol (named with its place) or speaker, or as :meth:`check_delivery`
            does.
        """
        self.check_delivery(delivery)
        names = list(speakers) if speakers is not None else [self.speakers[0]] * len(texts)
        if len(names) != len(texts):
            raise InputError(f"{len(texts)} texts but {len(names)} speakers: give one speaker per text")
        spoken = [self.spoken(text, f"text {text!r}", spelling) for text in texts]
        numbers = [self.speaker_number(name) for name in names]
        speech: list[Speech] = []
        for start in range(0, len(texts), batch_size):
            part = slice(start, start + batch_size)
            for text, symbols, take in zip(
                texts[part], spoken[part], self._takes(spoken[part], numbers[part], delivery), strict=True
            ):
                mel = take.mel * self.mel_std + self.mel_mean
                speech.append(
                    Speech(
                        text=text,
                        spoken=symbols,
                        log_mel=mel,
                        wave=griffin_lim(mel, self.contract) if vocoder is None else vocoder(mel),
                        attention=take.attention,
                        read=take.read,
                        stopped=take.stopped,
                        fault=take.fault,
                    )
                )
        return speech

    def speaker_number(self, name: str) -> int:
        """A speaker's number; raises InputError, listing the speakers, for an unknown name."""
        if self.speakers == ("",) and name:
            raise InputError(f"no speaker {name!r}: this voice has one, without a name; name none")
        if name not in self.speakers:
            raise InputError(f"no speaker {name!r}: this voice has {', '.join(map(repr, self.speakers))}")
        return self.speakers.index(name)

    def check_delivery(self, delivery: Delivery) -> None:
        """Raise InputError for what the model cannot do, or what is out of range."""
        for name, value in delivery.asked().items():
            low, high = RANGES[name]
            if not low <= value <= high:
                raise InputError(f"{name} {value:g}: use {low:g} to {high:g}")
            if name not in getattr(self.model, "controls", ()):
                learnt = "model.architecture=paralleltts" + (" model.pitch=true" if name == "pitch" else "")
                raise InputError(
                    f"{name} {value:g}: this voice's model cannot change its {name}; leave {name} out, or "
                    f"train a voice with {learnt}"
                )

    def _takes(self, spoken: Sequence[str], speakers: Sequence[int], delivery: Delivery) -> list[_Take]:
        encoded = [self.symbols.encode(text, f"text {text!r}") for text in spoken]
        takes = [
            _Take.first(mel, attention, stopped)
            for mel, attention, stopped in self._free_run(encoded, speakers, self.stop_threshold, delivery)
        ]
        # A model without attention would say the same again.
        again = [row for row, take in enumerate(takes) if take.fault and take.attention is not None]
        if again:
            hold = round(AFTER_THE_END * self.contract.sample_rate / self.contract.hop_length)
            tries = self._free_run(
                [encoded[row] for row in again], [speakers[row] for row in again], NEVER, delivery
            )
            for row, (mel, attention, _) in zip(again, tries, strict=True):
                assert attention is not None
                takes[row] = _Take.second(mel, attention, hold)
        return takes

    def _free_run(
        self,
        encoded: Sequence[np.ndarray],
        speakers: Sequence[int],
        stop_threshold: float,
        delivery: Delivery,
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None, bool]]:
        """Mel (T, C) in normalised units, attention (S, N) and whether the stop fired, text by text."""
        lengths = torch.tensor([len(ids) for ids in encoded], device=self.device)
        text = torch.zeros(len(encoded), int(max(len(ids) for ids in encoded)), dtype=torch.int64)
        for row, ids in enumerate(encoded):
            text[row, : len(ids)] = torch.from_numpy(ids)
        with torch.inference_mode():
            out = self.model.synthesize(  # type: ignore[operator]
                text.to(self.device),
                lengths,
                torch.tensor(speakers, device=self.device),
                max_frames=round(self.max_frames / delivery.speed),
                stop_threshold=stop_threshold,
                **delivery.asked(),
            )
        for row, ids in enumerate(encoded):
            mel = out.mel[row, : int(out.mel_lengths[row])].float().cpu().numpy()
            yield mel, out.attention_of(row, len(ids)), bool(out.stopped[row])


@dataclass(frozen=True)
class _Take:
    """One try at an utterance."""

    mel: np.ndarray
    """(T, C) in normalised units"""
    attention: np.ndarray | None
    stopped: bool
    fault: str

    @property
    def read(self) -> float | None:
        return None if self.attention is None else share_read(self.attention)

    @classmethod
    def first(cls, mel: np.ndarray, attention: np.ndarray | None, stopped: bool) -> _Take:
        fault = _unread(attention)
        if not stopped:
            fault = f"its end did not come within {len(mel)} frames"
        return cls(mel, attention, stopped and not fault, fault)

    @classmethod
    def second(cls, mel: np.ndarray, attention: np.ndarray, hold: int) -> _Take:
        """Cut ``hold`` frames after attention came to the end of the text."""
        end = end_of_reading(attention)
        if end is None:
            return cls(mel, attention, False, f"{_unread(attention)} within {len(mel)} frames")
        per_step = -(-len(mel) // len(attention))
        frames = min((end + 1) * per_step + hold, len(mel))
        attention = attention[: -(-frames // per_step)]
        return cls(mel[:frames], attention, False, _unread(attention))


def _unread(attention: np.ndarray | None) -> str:
    share = 1.0 if attention is None else share_read(attention)
    return "" if share == 1.0 else f"{share:.0%} of the text was read"
