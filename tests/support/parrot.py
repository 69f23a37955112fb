"""A corpus drawn from sine waves, and a model that knows it by heart, with faults that can be switched on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from ttsfast.data.corpus.audio import write_wav
from ttsfast.data.corpus.text import Symbols, TextFrontend
from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.mel import log_mel
from ttsfast.data.store.utterance import Utterance
from ttsfast.models.interface import AcousticOutput, FreeRunning
from ttsfast.models.voice import Voice

CONTRACT = MelContract.preset("librosa-22k")
REDUCTION = 4


class Parrot(nn.Module):
    """Answers with the recording's own mel, found by the text, plus whatever faults it was given."""

    def __init__(self, utterances: list[Utterance]) -> None:
        super().__init__()
        self.known = {tuple(u.text.tolist()): torch.from_numpy(u.mel.astype(np.float32)) for u in utterances}
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()
        self.offset = 0.0
        """Added to every predicted value."""
        self.late_frames = 0
        """Spoken beyond the recording's end; negative: cut short."""
        self.says: Callable[[Tensor], Tensor] = lambda mel: mel
        """What is spoken, free-running, for a recording's mel (T, C)."""
        self.stops = True
        self.stop_shift = 0
        """Steps from the true end to where the stop fires, teacher-forced."""
        self.poison = ""
        """Put a NaN into this output: mel, stop or attention."""
        self.heads = 0
        self.seen: list[dict[str, object]] = []

    def truth(self, text: Tensor, lengths: Tensor) -> list[Tensor]:
        return [self.known[tuple(row[:n].tolist())] for row, n in zip(text, lengths.tolist(), strict=True)]

    def forward(
        self, text: Tensor, text_lengths: Tensor, mel: Tensor, mel_lengths: Tensor, speaker: Tensor
    ) -> AcousticOutput:
        self.note(speaker)
        steps = mel.shape[1] // REDUCTION
        valid = -(-mel_lengths // REDUCTION)
        predicted = mel + self.offset
        stop = torch.full((len(text), steps), -5.0)
        for row, count in enumerate(valid.tolist()):
            stop[row, count - 1 + self.stop_shift :] = 5.0
        attention = self.attention(valid, text_lengths, steps, text.shape[1])
        # What lies in the padding means nothing, whatever it is.
        for row, frames in enumerate(mel_lengths.tolist()):
            predicted[row, frames:] = torch.nan
            attention[row, valid[row] :] = torch.nan
        self.spoil(predicted, stop, attention)
        if self.heads:
            attention = attention[:, None].repeat(1, self.heads, 1, 1)
        return AcousticOutput(predicted, stop, valid, attention)

    def synthesize(
        self,
        text: Tensor,
        text_lengths: Tensor,
        speaker: Tensor | None = None,
        *,
        max_frames: int,
        stop_threshold: float = 0.5,
    ) -> FreeRunning:
        self.note(speaker)
        truth = [self.says(mel) for mel in self.truth(text, text_lengths)]
        lengths = [min(max_frames, len(t) + self.late_frames) if self.stops else max_frames for t in truth]
        mel = torch.full((len(truth), max(lengths), truth[0].shape[1]), torch.nan)
        for row, (known, frames) in enumerate(zip(truth, lengths, strict=True)):
            mel[row, :frames] = known[-1]
            common = min(frames, len(known))
            mel[row, :common] = known[:common] + self.offset
        counts = -(-torch.tensor(lengths) // REDUCTION)
        attention = self.attention(counts, text_lengths, int(counts.max()), text.shape[1])
        self.spoil(mel, torch.zeros(1, 1), attention)
        stopped = torch.full((len(truth),), self.stops)
        return FreeRunning(mel, torch.tensor(lengths), attention, stopped)

    def attention(self, steps: Tensor, symbols: Tensor, s_max: int, n_max: int) -> Tensor:
        weights = torch.zeros(len(steps), s_max, n_max)
        for row, (s, n) in enumerate(zip(steps.tolist(), symbols.tolist(), strict=True)):
            weights[row, torch.arange(s), torch.arange(s) * n // s] = 1.0
        return weights

    def spoil(self, mel: Tensor, stop: Tensor, attention: Tensor) -> None:
        if self.poison:
            {"mel": mel, "stop": stop, "attention": attention}[self.poison][0, 0, ...] = torch.nan

    def note(self, speaker: Tensor | None) -> None:
        self.seen.append(
            {
                "training": [m.training for m in self.modules()],
                "inference": torch.is_inference_mode_enabled(),
                "noise": torch.rand(()).item(),
                "speaker": speaker,
            }
        )


@dataclass
class Corpus:
    """Stands in for a store."""

    utterances: list[Utterance]
    waves: list[np.ndarray]
    texts: list[str]
    symbols: Symbols
    mel_mean: np.ndarray
    mel_std: np.ndarray
    splits: list[str]
    contract: MelContract = CONTRACT
    frontend: TextFrontend = field(default_factory=lambda: TextFrontend("en"))
    speakers: tuple[str, ...] = ("anna",)
    path: Path = Path("store")
    tracks: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.silence = ((np.log(1e-5) - self.mel_mean) / self.mel_std).astype(np.float32)
        self.frames = np.array([len(u.mel) for u in self.utterances])
        self.text_lengths = np.array([len(u.text) for u in self.utterances])
        self.entries = [
            SimpleNamespace(id=u.id, text=t, speaker=0, audio=f"wavs/{u.id}.wav")
            for u, t in zip(self.utterances, self.texts, strict=True)
        ]

    def __getitem__(self, index: int) -> Utterance:
        return self.utterances[index]

    @property
    def manifest(self) -> SimpleNamespace:
        """As far as recordings are read by it: they were written below ``path``."""
        return SimpleNamespace(
            corpus=str(self.path), options={}, contract=self.contract, entries=self.entries
        )

    def indices(self, split: str) -> np.ndarray:
        return np.flatnonzero(np.array(self.splits) == split)

    def write_wavs(self, folder: Path) -> None:
        (folder / "wavs").mkdir(parents=True)
        for utterance, wave in zip(self.utterances, self.waves, strict=True):
            write_wav(folder / "wavs" / f"{utterance.id}.wav", wave, self.contract.sample_rate)


def make_corpus(texts: list[str], seed: int = 0) -> Corpus:
    """Each letter a short tone of its own pitch and length; every third text is held out."""
    rng = np.random.default_rng(seed)
    symbols = Symbols.of(texts)
    waves, mels = [], []
    for text in texts:
        tones = []
        for number in symbols.encode(text, "test"):
            time = np.arange(int(rng.integers(900, 1700))) / CONTRACT.sample_rate
            tones.append(0.3 * np.sin(2 * np.pi * 110 * 1.09**number * time) * np.hanning(len(time)))
        wave = np.concatenate(tones)
        waves.append((wave + 0.01 * rng.normal(size=len(wave))).astype(np.float32))
        mels.append(log_mel(waves[-1], CONTRACT))
    frames = np.concatenate(mels)
    mean, std = frames.mean(axis=0), np.maximum(frames.std(axis=0), 0.1)
    return Corpus(
        utterances=[
            Utterance(f"utt{i:03d}", symbols.encode(t, "test"), ((m - mean) / std).astype(np.float16))
            for i, (t, m) in enumerate(zip(texts, mels, strict=True))
        ],
        waves=waves,
        texts=texts,
        symbols=symbols,
        mel_mean=mean,
        mel_std=std,
        splits=["validation" if i % 3 == 0 else "train" for i in range(len(texts))],
    )


def voice_of(corpus: Corpus, model: nn.Module) -> Voice:
    """A voice that was trained on ``corpus``, as far as its statistics and symbols say."""
    return Voice(
        contract=corpus.contract,
        frontend=corpus.frontend,
        symbols=corpus.symbols,
        speakers=corpus.speakers,
        mel_mean=corpus.mel_mean,
        mel_std=corpus.mel_std,
        silence=corpus.silence,
        max_frames=2 * int(corpus.frames.max()),
        stop_threshold=0.5,
        model=model,
        device=torch.device("cpu"),
    )
