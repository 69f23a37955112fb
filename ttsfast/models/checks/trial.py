"""What a model is tried on: utterances of a store, or made-up ones, and ways to call it."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ttsfast.config import Config
from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.features.contract import DEFAULT_PRESET, MelContract
from ttsfast.data.loading.batch import Batch, collate
from ttsfast.data.store.store import Store
from ttsfast.data.store.utterance import Utterance
from ttsfast.losses.module import TTSLoss
from ttsfast.models.voice_info import VoiceInfo

LONGEST = 160
"""Frames of an utterance that a model is tried on: longer ones are cut, with as much of their text."""
FRAMES_PER_SYMBOL = 6
"""Of made-up speech, as read English at 86 frames a second has."""


@dataclass(frozen=True)
class Trial:
    """A model, and what it is tried on."""

    model: nn.Module
    """Nobody else's: checks copy it, and change none but their copy."""
    info: VoiceInfo
    config: Config
    batch: Batch
    """Three utterances of different lengths, on the model's device."""
    loss: TTSLoss
    """As training has it."""
    made_up: bool
    """The utterances are of no store, nor are the speakers."""
    make: Callable[[], nn.Module] | None = None
    """Makes the model anew, as who loads a checkpoint does."""
    half: torch.dtype | None = None
    """What matrix products are computed in, where that is not single precision."""

    def copied(self) -> nn.Module:
        """A copy of the model; its gradients are none."""
        model = copy.deepcopy(self.model)
        model.zero_grad(set_to_none=True)
        return model

    @property
    def reduction_factor(self) -> int:
        """Frames of a decoder step."""
        return int(getattr(self.model, "reduction_factor", 1))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.batch.mel.device


def made_up_voice(n_mels: int, speakers: int = 2) -> VoiceInfo:
    """A voice of a corpus that there is not, of letters, a space and a full stop."""
    contract = replace(MelContract.preset(DEFAULT_PRESET), n_mels=n_mels)
    return VoiceInfo(
        contract=contract,
        frontend=TextFrontend("en"),
        symbols=Symbols.of(["abcdefghijklmnopqrstuvwxyz ."]),
        speakers=tuple(f"speaker {number}" for number in range(speakers)),
        mel_mean=np.full(n_mels, -5.0, dtype=np.float32),
        mel_std=np.full(n_mels, 2.0, dtype=np.float32),
        silence=np.full(n_mels, -2.0, dtype=np.float32),
        max_frames=8 * LONGEST,
    )


def made_up_utterances(info: VoiceInfo, count: int = 3) -> list[Utterance]:
    """Speech in which every symbol has a sound of its own: mels that follow from their texts, in normalised
    units, of different lengths and speakers."""
    generator = np.random.default_rng(0)
    sounds = generator.normal(size=(len(info.symbols), info.contract.n_mels)).astype(np.float32)
    utterances = []
    for number in range(count):
        symbols = 22 - 5 * (number % 4)
        text = generator.integers(1, len(info.symbols), size=symbols)
        spoken = sounds[np.repeat(text, FRAMES_PER_SYMBOL)]
        smooth = (spoken + np.roll(spoken, 1, axis=0) + np.roll(spoken, 2, axis=0)) / 3**0.5
        mel = smooth + 0.3 * generator.normal(size=spoken.shape).astype(np.float32)
        speaker = number % len(info.speakers)
        utterances.append(Utterance(f"made up {number}", text, mel.astype(np.float32), speaker))
    return utterances


def short_utterances(store: Store, count: int = 3) -> list[Utterance]:
    """Short ones of a store's training split, of different lengths and, where it has several, speakers."""
    training = store.indices("train")
    by_length = training[np.argsort(np.asarray(store.frames)[training], kind="stable")]
    places = np.linspace(0.05, 0.3, count) * (len(by_length) - 1)
    chosen = [int(by_length[int(place)]) for place in places][::-1]
    return [_shortened(store[index]) for index in chosen]


def _shortened(utterance: Utterance) -> Utterance:
    frames = len(utterance.mel)
    if frames <= LONGEST:
        return utterance
    symbols = max(1, len(utterance.text) * LONGEST // frames)
    pitch, energy = (None if t is None else t[:LONGEST] for t in (utterance.pitch, utterance.energy))
    return replace(
        utterance, text=utterance.text[:symbols], mel=utterance.mel[:LONGEST], pitch=pitch, energy=energy
    )


def batch_of(utterances: Sequence[Utterance], info: VoiceInfo, config: Config, r: int) -> Batch:
    """A batch, padded as training pads its own."""
    tail = -(-config.training.stop_tail_frames // r) * r
    return collate(utterances, pad_value=info.silence, tail_frames=tail)


@contextmanager
def random_streams_kept(device: torch.device) -> Iterator[None]:
    """Within the block torch, numpy and Python draw from streams of their own; afterwards they go on as if it
    had not been."""
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)


def seed(value: int) -> None:
    """Begin all random streams that a model may draw from anew."""
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)
