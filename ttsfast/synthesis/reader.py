"""A voice at work: text of any length, a sentence at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ttsfast.data.corpus.sentences import split_long, split_sentences
from ttsfast.data.corpus.spelling import Spelling
from ttsfast.models.interface import AS_LEARNT, Delivery
from ttsfast.models.voice import PLAIN, Speech, Voice
from ttsfast.synthesis.lines import Line
from ttsfast.synthesis.vocoder import Vocoder

BATCH = 16
PAUSE = 0.3
"""Seconds between two sentences."""
FAST = 18.0
"""Symbols in a second of fast speech."""
SHORT = 60
"""Symbols that every voice may be given at a time, whatever it was trained on."""


@dataclass(frozen=True)
class Utterance:
    """One line, spoken."""

    line: Line
    sentences: tuple[Speech, ...]
    silence: np.ndarray
    """(samples,) float32, what lies between two sentences"""

    @property
    def wave(self) -> np.ndarray:
        """(samples,) float32, the sentences with pauses between."""
        pieces = [piece for speech in self.sentences for piece in (self.silence, speech.wave)]
        return np.concatenate(pieces[1:])

    @property
    def starts(self) -> list[int]:
        """The sample at which each sentence begins."""
        lengths = [len(speech.wave) + len(self.silence) for speech in self.sentences]
        return [sum(lengths[:place]) for place in range(len(lengths))]

    @property
    def read(self) -> float | None:
        """The share of its symbols that attention passed; None for a model without attention."""
        shares = [(speech.read, len(speech.spoken)) for speech in self.sentences]
        read = [share * symbols for share, symbols in shares if share is not None]
        return sum(read) / sum(symbols for _, symbols in shares) if len(read) == len(shares) else None

    @property
    def fault(self) -> str:
        """Which sentence is not whole, and why; empty when all are."""
        faults = [f"{speech.fault} ({speech.text!r})" for speech in self.sentences if speech.fault]
        return faults[0] if faults else ""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A voice, and all that decides how it reads."""

    voice: Voice
    vocoder: Vocoder
    speaker: str | None = None
    """By name; the voice's first when None."""
    split: bool = True
    """Speak a sentence at a time; else each text in one go."""
    spelling: Spelling = PLAIN
    """How texts are read: unknown symbols, and pronunciations of the user's own."""
    delivery: Delivery = AS_LEARNT
    """How they are spoken."""

    @property
    def sample_rate(self) -> int:
        """In Hz, of all that is spoken."""
        return self.voice.contract.sample_rate

    @property
    def silence(self) -> np.ndarray:
        """(samples,) float32, a pause."""
        return np.zeros(round(PAUSE * self.sample_rate), dtype=np.float32)

    def check(self, lines: Sequence[Line]) -> None:
        """Raise InputError where a text cannot be read (with its place), the speaker is unknown, or the voice
        cannot speak so."""
        self.voice.check_delivery(self.delivery)
        if self.speaker is not None:
            self.voice.speaker_number(self.speaker)
        for line in lines:
            for sentence in self.sentences(line):
                self.voice.spoken(sentence, line.where, self.spelling)

    def skipped(self, line: Line) -> list[str]:
        """The symbols of a line that are left out as unknown, each once."""
        voice = self.voice
        return self.spelling.skipped(line.text, line.where, voice.frontend, voice.symbols)

    def sentences(self, line: Line) -> list[str]:
        """The text in sentences, and these in pieces no longer than what the voice was trained on.

        Its longest recording, which a voice remembers as half of its frame limit, bounds what was said in it.
        What says nothing, "...", is a pause.
        """
        if not self.split:
            return [line.text]
        contract = self.voice.contract
        seconds = self.voice.max_frames / 2 * contract.hop_length / contract.sample_rate
        longest = max(SHORT, round(FAST * seconds))
        pieces = [
            piece
            for sentence in split_sentences(line.text, self.voice.frontend.language)
            for piece in split_long(sentence, longest)
            if self.spelling.says(piece, line.where, self.voice.frontend, self.voice.symbols)
        ]
        return pieces or [line.text]

    def speak(self, lines: Sequence[Line]) -> Iterator[Utterance]:
        """Speak lines, in batches of :data:`BATCH` sentences.

        Raises:
            InputError: as :meth:`check`.
        """
        sentences = [self.sentences(line) for line in lines]
        spoken = self._speak([sentence for of_line in sentences for sentence in of_line])
        for line, of_line in zip(lines, sentences, strict=True):
            yield Utterance(line, tuple(islice(spoken, len(of_line))), self.silence)

    def stream(self, line: Line) -> Iterator[Speech]:
        """Speak one line, each sentence as soon as it can be; :attr:`silence` belongs between two.

        Raises:
            InputError: as :meth:`check`.
        """
        for sentence in self.sentences(line):
            yield from self._speak([sentence])

    def _speak(self, texts: Sequence[str]) -> Iterator[Speech]:
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            speakers = None if self.speaker is None else [self.speaker] * len(batch)
            yield from self.voice.speak(
                batch,
                speakers,
                batch_size=BATCH,
                vocoder=self.vocoder,
                spelling=self.spelling,
                delivery=self.delivery,
            )
