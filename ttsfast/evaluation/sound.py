"""What is measured on sound and not on mels: the words that are heard in it, and its pitch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ttsfast.data.features import tracks
from ttsfast.data.store.recordings import Recordings
from ttsfast.data.store.texts import reference_texts
from ttsfast.errors import InputError
from ttsfast.evaluation.distortion import warped
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.pitch import pitch_errors
from ttsfast.evaluation.speech_recognition import Heard, Recogniser
from ttsfast.evaluation.words import Words
from ttsfast.progress import console, track

if TYPE_CHECKING:
    from ttsfast.data.store.store import Store
    from ttsfast.models.voice import Voice
    from ttsfast.synthesis.vocoder import Vocoder


@dataclass(frozen=True)
class Sound:
    """What :func:`measure_sound` found."""

    figures: Mapping[str, Figures]
    """Of ``free_running`` speech, of ``copy_synthesis`` and, where recordings are at hand, ``natural``."""
    words: Words | None
    """None without a recogniser."""


def measure_sound(
    voice: Voice,
    store: Store,
    indices: Sequence[int],
    spoken: Mapping[str, np.ndarray],
    vocoder: Vocoder,
    recogniser: Recogniser | None = None,
    corpus: Path | None = None,
) -> Sound:
    """Make sound of free-running mels and of the recordings' own, and measure it.

    Pitch is measured where the store has it. Frames of the speech are paired with the recording's along the
    path of ``mcd_dtw``; a copy has the recording's own frames. Clips marked truncated are passed over: their
    text goes on after their sound.

    Args:
        voice: says what the mels mean.
        store: of the utterances.
        indices: which of them.
        spoken: (T, C) by id, the free-running mels, normalised.
        vocoder: what makes sound of both.
        recogniser: listens to all of it, and to the recordings; None leaves the words out.
        corpus: where the recordings are; where the store says when None.

    Raises:
        InputError: with a recogniser, ``corpus`` is given and not there, a recording cannot be read, no
            whole utterance has a word, or :func:`~ttsfast.data.store.texts.reference_texts` finds none.
    """
    indices = [index for index in indices if not store[index].truncated]
    pitch = {"free_running": Figures(), "copy_synthesis": Figures()}
    listeners = None if recogniser is None else _Listeners(recogniser, store, indices, corpus)
    for index in track(indices, "evaluate: words and pitch", len(indices)):
        utterance, rate = store[index], voice.contract.sample_rate
        predicted, target = spoken[utterance.id], utterance.mel.astype(np.float32)
        waves = {
            kind: vocoder(mel * voice.mel_std + voice.mel_mean)
            for kind, mel in (("free_running", predicted), ("copy_synthesis", target))
        }
        if utterance.pitch is not None:
            pairs = warped(predicted * voice.mel_std, target * voice.mel_std, voice.contract)
            own = np.arange(len(target))
            for kind, speech, recorded in (
                ("free_running", pairs.spoken, pairs.recorded),
                ("copy_synthesis", own, own),
            ):
                found = tracks.pitch(waves[kind], voice.contract)
                # A vocoder may lose a last, partial frame.
                paired = found[np.minimum(speech, len(found) - 1)]
                pitch_errors(paired, utterance.pitch[recorded]).add_to(pitch[kind], utterance.id)
        if listeners is not None:
            for kind, wave in waves.items():
                listeners.listen(kind, utterance.id, wave, rate)
            listeners.listen_to_recording(index, utterance.id, rate)
    if listeners is None:
        return Sound(pitch, None)
    words = listeners.words()
    return Sound(
        {kind: pitch.get(kind, Figures()).joined(words.figures(kind)) for kind in words.heard}, words
    )


class _Listeners:
    """A recogniser, what it is to hear, and what it has heard."""

    def __init__(
        self, recogniser: Recogniser, store: Store, indices: Sequence[int], corpus: Path | None
    ) -> None:
        self._recogniser = recogniser
        folder = corpus or Path(store.manifest.corpus)
        texts = reference_texts(store, indices, folder)
        normalised = {name: recogniser.normalise(text) for name, text in texts.items()}
        self._references = {name: text for name, text in normalised.items() if text}
        if not self._references:
            raise InputError(
                f"{store.path}: no whole utterance has a word to be heard; evaluate without --asr"
            )
        self._recordings: Recordings | None = None
        if corpus is not None or folder.is_dir():
            self._recordings = Recordings(store.path, store.manifest, folder)
        else:
            console.print(
                f"{folder}: the recordings of {store.path} are not there, so words are not heard in natural "
                "speech; name their folder with --corpus",
                markup=False,
            )
        self._heard: dict[str, dict[str, Heard]] = {}

    def listen(self, kind: str, utterance: str, wave: np.ndarray, sample_rate: int) -> None:
        if (reference := self._references.get(utterance)) is not None:
            heard = self._recogniser.compare(wave, sample_rate, reference)
            self._heard.setdefault(kind, {})[utterance] = heard

    def listen_to_recording(self, index: int, utterance: str, sample_rate: int) -> None:
        if self._recordings is not None and utterance in self._references:
            self.listen("natural", utterance, self._recordings.samples(index), sample_rate)

    def words(self) -> Words:
        name, language = self._recogniser.name, self._recogniser.language
        return Words(name, language, self._references, self._heard)
