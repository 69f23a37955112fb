"""How far from the truth the words begin where a model's alignment has them.

The truth is the corpus's own ``words.json``, which synthetic speech has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ttsfast.data.corpus.word_times import read_word_times
from ttsfast.data.features.contract import MelContract
from ttsfast.data.store.store import Store
from ttsfast.evaluation.samples import ValidationSample
from ttsfast.functional import monotonic_alignment

FIGURE = "boundary_error"
DEFINITION = (
    "teacher-forced: how far, in ms, the beginnings of words lie from those that the corpus knows, along the "
    "best monotonic path through attention, summed over each word's symbols; mean over words, without the "
    "first of an utterance; a space belongs to the next word"
)
BIAS = "boundary_bias"
"""Their mean with its sign, late above 0. A space has no sound of its own; it takes what a model gives it:
in the English demo the beginning of the next word, in the Persian one of both sides alike."""
_LEAST = 1e-8


@dataclass(frozen=True)
class Starts:
    """Of the words of an utterance."""

    symbols: Sequence[int]
    """The first one of each word: the space before it, which has no sound of its own and else would take the
    first of the word's."""
    seconds: Mapping[int, float]
    """By a word's number; of the first, and of those that the corpus says nothing of, there is none."""


def true_starts(store: Store, indices: Sequence[int]) -> dict[str, Starts]:
    """Of these utterances, as far as the corpus says it; empty where it does not.

    Of a store whose recordings were trimmed nothing is known, nor of one of phonemes, which fall into other
    words than the text: "in the" is one of them, a number is several.

    Raises:
        InputError: ``words.json`` holds something else.
    """
    if store.manifest.options.get("trim") or store.frontend.phonemes:
        return {}
    times = read_word_times(Path(store.manifest.corpus)) or {}
    found = {}
    for index in indices:
        utterance = store[index]
        symbols = store.symbols.decode(utterance.text)
        firsts = [match.start() for match in re.finditer("[^ ]+", symbols)]
        seconds = {word: at for word, at in times.get(utterance.id, ()) if 0 < word < len(firsts)}
        # A word too many is of another text.
        if seconds and len(seconds) == sum(word > 0 for word, _ in times[utterance.id]):
            found[utterance.id] = Starts([max(0, symbol - 1) for symbol in firsts], seconds)
    return found


def of_a_diagonal(store: Store, indices: Sequence[int], starts: Mapping[str, Starts]) -> float | None:
    """The error, in ms, of reading every utterance at an even pace: what has learnt nothing may have."""
    errors = BoundaryErrors(starts, store.contract)
    for index in indices:
        utterance = store[index]
        frames, symbols = len(utterance.mel), len(utterance.text)
        even = np.eye(symbols, dtype=np.float32)[np.arange(frames) * symbols // frames]
        mel = utterance.mel.astype(np.float32)
        errors.add(ValidationSample(utterance.id, utterance.text, mel, mel, even, utterance.truncated))
    return errors.figures().get(FIGURE)


class BoundaryErrors:
    """Of teacher-forced utterances, one after the other."""

    def __init__(self, starts: Mapping[str, Starts], contract: MelContract) -> None:
        """Of :func:`true_starts`, in mels of that contract."""
        self._starts = starts
        self._frame = contract.hop_length / contract.sample_rate
        # A frame stands for a hop's length about its middle.
        middle = contract.n_fft / 2 - contract.pad
        self._first = (middle - contract.hop_length / 2) / contract.sample_rate
        """seconds at which the first one begins: half a hop before the recording where frames are centred"""
        self._errors: list[float] = []

    def add(self, sample: ValidationSample) -> None:
        """Nothing where the model has no attention, or where the utterance's words are not known."""
        starts = self._starts.get(sample.id)
        if starts is None or sample.attention is None:
            return
        steps, words = len(sample.attention), len(starts.symbols)
        # What stands before the first word belongs to it.
        of_words = np.add.reduceat(sample.attention, [0, *starts.symbols[1:]], axis=1)
        scores = torch.from_numpy(np.log(of_words + _LEAST))[None]
        durations = monotonic_alignment(scores, torch.tensor([words]), torch.tensor([steps]))[0].numpy()
        # Steps are ceil(frames / r), so this is r where there are at least r of them.
        frames_per_step = -(-len(sample.target) // steps)
        begins = self._first + (np.cumsum(durations) - durations) * frames_per_step * self._frame
        self._errors += [float(begins[word]) - at for word, at in starts.seconds.items()]

    def figures(self) -> dict[str, float]:
        """:data:`FIGURE` and :data:`BIAS` in ms; empty of nothing."""
        if not self._errors:
            return {}
        errors = 1000 * np.array(self._errors)
        return {FIGURE: float(np.abs(errors).mean()), BIAS: float(errors.mean())}
