"""What a run's snapshots say: measured after the training, on the same held-out utterances.

Words are heard of some of them only: a recogniser takes ten times as long as all other figures together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from ttsfast.benchmarks.convergence.boundaries import DEFINITION, BoundaryErrors, Starts, true_starts
from ttsfast.benchmarks.convergence.headlines import first_understood, understood
from ttsfast.benchmarks.convergence.runs import Run
from ttsfast.benchmarks.records import write_record
from ttsfast.config import Config
from ttsfast.data.corpus.split import VALIDATION
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.data.loading.batch import Batch, collate
from ttsfast.data.store.store import Store
from ttsfast.data.store.texts import reference_texts
from ttsfast.errors import InputError
from ttsfast.evaluation.evaluate import reported_split
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.samples import ValidationSample
from ttsfast.evaluation.speech_recognition import Recogniser
from ttsfast.evaluation.validate import calibrate_stop, free_running, teacher_forced
from ttsfast.models.build import build_model
from ttsfast.models.voice_info import VoiceInfo

NAME = "figures.json"
TEACHER_FORCED = ("mel_l1", "diagonal_mass")
FREE_RUNNING = (
    "coverage",
    "duration_error",
    "right_length",
    "ran_on",
    "stop_rate",
    "mcd_dtw",
    "mcd_dtw_sl",
)
WORD_ERRORS = "of an utterance, its own words at most"
"""How they are counted: a recogniser caught in a loop hears one word a hundred times, and one sentence would
decide over the figure of all."""
BATCH = 16
LOUDEST = 10.0
"""Standard deviations from the mean that are made sound of."""


@dataclass(frozen=True)
class HeldOut:
    """What every snapshot is measured on."""

    store: Store
    voice: VoiceInfo
    split: str
    indices: tuple[int, ...]
    """Whole utterances, spread evenly over the lengths."""
    recogniser: Recogniser | None
    references: dict[str, str]
    """By utterance, what is to be heard, normalised; empty without a recogniser."""
    starts: Mapping[str, Starts]
    """By utterance, when its words begin; empty where the corpus does not say."""

    @classmethod
    def of(
        cls, store: Store, utterances: int, recogniser: Recogniser | None = None, split: str | None = None
    ) -> HeldOut:
        """At most so many of ``split``; of :func:`~ttsfast.evaluation.evaluate.reported_split` when None.

        Raises:
            InputError: there is no whole utterance, or the sentences of a store of phonemes are not at hand.
        """
        split = split or reported_split(store)
        whole = [int(i) for i in store.indices(split) if not store.entries[int(i)].truncated]
        if not whole:
            raise InputError(f"{store.path}: its {split} split has no whole utterance to measure on")
        order = sorted(whole, key=lambda i: (int(store.frames[i]), i))
        places = np.unique(np.linspace(0, len(order) - 1, min(utterances, len(order))).round().astype(int))
        indices = tuple(order[place] for place in places)
        references = {}
        if recogniser is not None:
            texts = reference_texts(store, indices, Path(store.manifest.corpus))
            references = {name: recogniser.normalise(text) for name, text in texts.items()}
            references = {name: text for name, text in references.items() if text}
            if not references:
                raise InputError(f"{store.path}: no utterance has a word to be heard; measure without --asr")
        starts = true_starts(store, indices)
        return cls(store, VoiceInfo.of_store(store), split, indices, recogniser, references, starts)

    def describe(self) -> dict[str, Any]:
        """What figures are of; those of something else are measured again."""
        found = {
            "split": self.split,
            "utterances": [self.store.entries[i].id for i in self.indices],
            "asr": None if self.recogniser is None else self.recogniser.name,
        }
        if self.recogniser is not None:
            found["word_errors"] = WORD_ERRORS
        if self.starts:
            known = sorted((name, sorted(starts.seconds.items())) for name, starts in self.starts.items())
            found["words_begin"] = sha256(json.dumps([DEFINITION, known]).encode()).hexdigest()
        return found

    def batches(self) -> Iterator[Batch]:
        """Of these utterances, the short ones first."""
        return _batches(self.store, self.indices)

    def word_error(self, waves: Iterator[tuple[str, np.ndarray]]) -> float:
        """Over the words of all utterances (id, samples) that have any; see :data:`WORD_ERRORS`."""
        assert self.recogniser is not None
        rate, wrong, words = self.voice.contract.sample_rate, 0, 0
        for name, wave in waves:
            if name in self.references:
                heard = self.recogniser.compare(wave, rate, self.references[name])
                wrong, words = wrong + min(heard.word_errors, heard.words), words + heard.words
        return wrong / words

    def wave(self, mel: np.ndarray) -> np.ndarray:
        """(samples,) of a normalised mel (T, C), by Griffin-Lim."""
        # What a run says before it diverges may be finite and beyond any sound.
        mel = mel.clip(-LOUDEST, LOUDEST)
        return griffin_lim(mel * self.voice.mel_std + self.voice.mel_mean, self.voice.contract)

    def copies(self) -> float | None:
        """Word error of the recordings' own mels; None where nobody listens."""
        if self.recogniser is None:
            return None
        utterances = (self.store[i] for i in self.indices)
        return self.word_error((u.id, self.wave(u.mel.astype(np.float32))) for u in utterances)


class Measured:
    """The figures of a run's snapshots, by step; what was measured before is read, and what is new is kept.

    Args:
        run: trained, as far as it is.
        config: with which.
        held_out: what on.
        progress: told a line for each measurement.
    """

    def __init__(self, run: Run, config: Config, held_out: HeldOut, progress: Callable[[str], None]) -> None:
        self._run, self._config, self._held_out, self._progress = run, config, held_out, progress
        self._path, self._of = run.folder / NAME, held_out.describe()
        self._rows = _known(self._path, self._of)
        self._model: nn.Module | None = None

    def rows(self) -> dict[int, dict[str, float]]:
        """Of all snapshots; ``word_error`` is in those that :meth:`word_error` was asked for."""
        for snapshot in self._run.snapshots:
            if (step := int(snapshot["step"])) not in self._rows:
                self._measure(step, heard=False)
        return {int(snapshot["step"]): self._rows[int(snapshot["step"])] for snapshot in self._run.snapshots}

    def word_error(self, step: int) -> float:
        """Of one snapshot."""
        if "word_error" not in self._rows.get(step, {}):
            self._measure(step, heard=True)
        return self._rows[step]["word_error"]

    def _measure(self, step: int, *, heard: bool) -> None:
        self._progress(f"{'heard' if heard else 'measured'} at step {step}")
        self._model = self._model or build_model(self._config.model, self._held_out.voice)
        self._model.load_state_dict(load_file(self._run.weights_at(step)))
        self._rows[step] = measure(self._model.eval(), self._config, self._held_out, heard=heard)
        content = {"of": self._of, "rows": {str(number): row for number, row in sorted(self._rows.items())}}
        write_record(self._path, content)


def measure_run(
    run: Run, config: Config, held_out: HeldOut, goals: Sequence[float], progress: Callable[[str], None]
) -> dict[int, dict[str, float]]:
    """The figures of all of a run's snapshots by step, with the words of those around each of the ``goals``.

    Args:
        run, config, held_out, progress: as :class:`Measured` has them.
        goals: word errors whose first snapshot is looked for; none where nobody listens.
    """
    measured = Measured(run, config, held_out, progress)
    measured.rows()
    steps = [int(snapshot["step"]) for snapshot in run.snapshots]
    for goal in sorted(goals, reverse=True):

        def met(number: int, goal: float = goal) -> bool:
            return understood({"word_error": measured.word_error(steps[number])}, goal)

        first_understood(met, len(steps))
    return measured.rows()


@torch.no_grad()
def measure(model: nn.Module, config: Config, held_out: HeldOut, *, heard: bool) -> dict[str, float]:
    """Of one set of weights, those figures of :data:`TEACHER_FORCED` and :data:`FREE_RUNNING` that the model
    can give, those of :class:`BoundaryErrors` where words' beginnings are known, and ``word_error`` where it
    is to be ``heard``.

    The stop threshold is that of :func:`stop_threshold`.
    """
    voice = held_out.voice
    threshold = stop_threshold(model, config, held_out)
    boundaries = BoundaryErrors(held_out.starts, voice.contract)
    forced = teacher_forced(
        model, held_out.batches(), "cpu", stop_threshold=threshold, on_sample=boundaries.add
    )
    spoken: list[ValidationSample] = []
    free: Figures = free_running(
        model,
        held_out.batches(),
        "cpu",
        stop_threshold=threshold,
        max_frames=voice.max_frames,
        mel_std=voice.mel_std,
        contract=voice.contract,
        on_sample=spoken.append,
    )
    figures = dict(forced.named(TEACHER_FORCED).joined(free.named(FREE_RUNNING))) | boundaries.figures()
    if heard:
        figures["word_error"] = held_out.word_error((s.id, held_out.wave(s.predicted)) for s in spoken)
    return figures


def stop_threshold(model: nn.Module, config: Config, held_out: HeldOut) -> float:
    """Calibrated on the validation split, as in training; the usual one for a model that learns no stop."""
    if config.training.stop_loss_weight == 0:
        return held_out.voice.stop_threshold
    store = held_out.store
    known = [int(i) for i in store.indices(VALIDATION)]
    return calibrate_stop(model, _batches(store, known), "cpu")


def _batches(store: Store, indices: Sequence[int]) -> Iterator[Batch]:
    batch = partial(collate, pad_value=store.silence)
    for start in range(0, len(indices), BATCH):
        yield batch([store[i] for i in indices[start : start + BATCH]])


def _known(path: Path, described: dict[str, Any]) -> dict[int, dict[str, float]]:
    """What was measured before of the same."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["of"] != described:
            return {}
        return {int(step): row for step, row in content["rows"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not readable ({error!r}); delete it to measure again") from error
