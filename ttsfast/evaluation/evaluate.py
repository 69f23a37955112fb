"""Evaluation of a voice on held-out utterances: figures, baselines beside them, and samples to hear."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ttsfast.data.corpus.audio import read_audio
from ttsfast.data.corpus.split import TEST, VALIDATION
from ttsfast.data.features.contract import MelContract
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.data.loading.batch import Batch, collate
from ttsfast.errors import InputError
from ttsfast.evaluation import baselines
from ttsfast.evaluation.samples import ValidationSample
from ttsfast.evaluation.targets import DEFINITIONS, Verdict, judge, table
from ttsfast.evaluation.validate import free_running, teacher_forced
from ttsfast.files import atomic_write, inside
from ttsfast.progress import track

if TYPE_CHECKING:
    from rich.table import Table

    from ttsfast.data.store.store import Store
    from ttsfast.data.store.utterance_table import Entry
    from ttsfast.models.voice import Voice

T = TypeVar("T")

FROM_FREE_RUNNING = ("coverage", "duration_error", "stop_rate", "mcd_dtw")


@dataclass
class SpokenSample:
    """One utterance to look at and listen to. Mels are (T, C) in the contract's log units."""

    id: str
    text: str
    speaker: str
    symbols: list[str]
    target: np.ndarray
    teacher_forced: np.ndarray
    free_running: np.ndarray
    attention_teacher_forced: np.ndarray | None
    """(S, N)"""
    attention_free_running: np.ndarray | None
    """(S', N)"""
    stopped: bool
    figures: dict[str, float]
    """Of this utterance alone, under the names of :data:`DEFINITIONS`."""
    synthesised: np.ndarray
    """(samples,) the free-running mel through Griffin-Lim"""
    copy_synthesis: np.ndarray
    """(samples,) the recording's mel through Griffin-Lim"""
    original: np.ndarray | None
    """(samples,) the recording; None when the corpus is not at hand"""


@dataclass
class Evaluation:
    """What :func:`evaluate` found."""

    split: str
    figures: dict[str, float]
    """By the names of :data:`DEFINITIONS`; what could not be measured is absent."""
    baselines: dict[str, dict[str, float]]
    teacher_forced: dict[str, float]
    """All that the teacher-forced pass measured."""
    free_running: dict[str, float]
    """All that the free-running pass measured."""
    utterances: int
    frames: int
    copy_synthesis_utterances: int
    stop_threshold: float
    contract: MelContract
    language: str
    """Of the samples' texts, as in BCP 47."""
    samples: list[SpokenSample] = field(default_factory=list)

    @property
    def verdicts(self) -> list[Verdict]:
        """Every figure against its target and baselines."""
        return judge(self.figures, self.baselines)

    @property
    def passed(self) -> bool:
        """Whether every target is met."""
        return all(verdict.passed is not False for verdict in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``metrics.json``; a figure that could not be measured is null."""
        return {
            **{name: self.figures.get(name) for name in DEFINITIONS},
            "passed": self.passed,
            "baselines": self.baselines,
            "teacher_forced": self.teacher_forced,
            "free_running": self.free_running,
            "targets": {v.name: v.wanted for v in self.verdicts if v.passed is not None},
            "split": self.split,
            "utterances": self.utterances,
            "frames": self.frames,
            "copy_synthesis_utterances": self.copy_synthesis_utterances,
            "stop_threshold": self.stop_threshold,
            "mel_contract": self.contract.to_dict(),
            "definitions": DEFINITIONS,
        }

    def save(self, path: Path) -> None:
        """Write :meth:`to_dict` as JSON, atomically."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        with atomic_write(path) as handle:
            handle.write((text + "\n").encode())

    def table(self) -> Table:
        """For a terminal: each figure, its target, and the baselines beside it."""
        return table(self.verdicts, f"{self.utterances} utterances of the split {self.split!r}")


def evaluate(
    voice: Voice,
    store: Store,
    split: str | None = None,
    *,
    batch_size: int = 16,
    samples: int = 6,
    copy_synthesis_utterances: int = 24,
    corpus: Path | None = None,
) -> Evaluation:
    """Measure ``voice`` on one split of ``store``, teacher-forced and free-running.

    Args:
        voice: the model with its statistics, symbols and calibrated stop threshold.
        store: features of the same contract, statistics and symbols.
        split: ``"test"``, ``"validation"`` or ``"train"``; :func:`reported_split` when None.
        batch_size: utterances at a time.
        samples: utterances to keep with pictures and sound, spread evenly over the lengths.
        copy_synthesis_utterances: at most so many go through Griffin-Lim for that baseline, likewise spread.
        corpus: the folder that the store was prepared from; with it, samples hold the original recordings.

    Raises:
        InputError: the split is empty, the store does not fit the voice, a recording is missing from
            ``corpus``, or the model's output is not finite.
    """
    _check_same_features(voice, store)
    split = split or reported_split(store)
    indices = store.indices(split)
    if len(indices) == 0:
        raise InputError(
            f"{store.path}: the split {split!r} holds no utterance; take another with --split, or prepare a "
            "larger corpus"
        )
    order = indices[np.argsort(store.frames[indices], kind="stable")]
    shown = _spread(order, samples)
    kept: dict[str, list[ValidationSample]] = {store.entries[i].id: [] for i in shown}
    shapes: list[tuple[int, int]] = []

    def keep(sample: ValidationSample) -> None:
        if sample.id in kept:
            kept[sample.id].append(sample)

    def keep_and_measure(sample: ValidationSample) -> None:
        if sample.attention is not None and not sample.truncated:
            steps, symbols = sample.attention.shape
            shapes.append((steps, symbols))
        keep(sample)

    forced = teacher_forced(
        voice.model,
        _batches(store, order, batch_size, "teacher-forced"),
        voice.device,
        mel_std=voice.mel_std,
        stop_threshold=voice.stop_threshold,
        on_sample=keep_and_measure,
    )
    free = free_running(
        voice.model,
        _batches(store, order, batch_size, "free-running"),
        voice.device,
        stop_threshold=voice.stop_threshold,
        max_frames=voice.max_frames,
        mel_std=voice.mel_std,
        contract=voice.contract,
        on_sample=keep,
    )
    copied = _spread(order, copy_synthesis_utterances)
    beside = {"predict_mean": _predict_mean(store, order)}
    if shapes:
        beside["uniform_attention"] = baselines.uniform_attention(shapes)
    if copied:
        log_mels = (_log_mel(voice, store[i].mel) for i in _tracked(copied, "copy synthesis"))
        beside["copy_synthesis"] = baselines.copy_synthesis(log_mels, voice.mel_std, voice.contract)
    return Evaluation(
        split=split,
        figures=_headline(forced, free),
        baselines=beside,
        teacher_forced=forced,
        free_running=free,
        utterances=len(order),
        frames=int(store.frames[order].sum()),
        copy_synthesis_utterances=len(copied),
        stop_threshold=voice.stop_threshold,
        contract=voice.contract,
        language=voice.frontend.language + ("-fonipa" if voice.frontend.phonemes else ""),
        samples=[
            _spoken(voice, store, index, kept[store.entries[index].id], corpus)
            for index in _tracked(shown, "samples")
        ],
    )


def reported_split(store: Store) -> str:
    """The test split, which nothing that chooses has seen; the validation split where the store has none."""
    return TEST if len(store.indices(TEST)) else VALIDATION


def _check_same_features(voice: Voice, store: Store) -> None:
    """Raise InputError where the store's numbers do not mean what the voice takes them to mean."""
    ours, theirs = voice.contract.to_dict(), store.contract.to_dict()
    for key, value in ours.items():
        if theirs[key] != value:
            raise InputError(
                f"{store.path}: prepared with {key} {theirs[key]!r}, but the checkpoint's mel contract has "
                f"{value!r}; evaluate on the store it was trained from"
            )
    same = {
        "symbols": voice.symbols.to_list() == store.symbols.to_list(),
        "speakers": list(voice.speakers) == list(store.speakers),
        "text front end": voice.frontend.to_dict() == store.frontend.to_dict(),
        "statistics (mean)": np.array_equal(voice.mel_mean, store.mel_mean),
        "statistics (standard deviation)": np.array_equal(voice.mel_std, store.mel_std),
    }
    for what, equal in same.items():
        if not equal:
            raise InputError(
                f"{store.path}: its {what} differ from the checkpoint's; evaluate on the store that it was "
                "trained from"
            )


def _spread(order: np.ndarray, count: int) -> list[int]:
    """At most ``count`` of ``order``'s entries, evenly spaced, the first and the last among them."""
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [int(order[place]) for place in places]


def _batches(store: Store, order: np.ndarray, batch_size: int, title: str) -> Iterator[Batch]:
    starts = range(0, len(order), batch_size)
    for start in _tracked(starts, title):
        utterances = [store[int(i)] for i in order[start : start + batch_size]]
        yield collate(utterances, pad_value=store.silence)


def _tracked(items: Sequence[T], title: str) -> Iterator[T]:
    return track(items, f"evaluate: {title}", len(items))


def _predict_mean(store: Store, order: np.ndarray) -> dict[str, float]:
    train = store.indices("train")
    symbols = int(store.text_lengths[train].sum())
    return baselines.predict_mean(
        (store[int(i)] for i in order),
        store.mel_std,
        store.contract,
        int(store.frames[train].sum()) / symbols if symbols else None,
    )


def _headline(forced: dict[str, float], free: dict[str, float]) -> dict[str, float]:
    """Each figure from the pass that its definition names."""
    return {
        name: source[name]
        for name in DEFINITIONS
        for source in (free if name in FROM_FREE_RUNNING else forced,)
        if name in source
    }


def _log_mel(voice: Voice, normalised: np.ndarray) -> np.ndarray:
    return normalised.astype(np.float32) * voice.mel_std + voice.mel_mean


def _spoken(
    voice: Voice,
    store: Store,
    index: int,
    passes: Sequence[ValidationSample],
    corpus: Path | None,
) -> SpokenSample:
    entry = store.entries[index]
    forced, free = passes
    spoken, target = _log_mel(voice, free.predicted), _log_mel(voice, forced.target)
    return SpokenSample(
        id=entry.id,
        text=entry.text,
        speaker=store.speakers[entry.speaker] if len(store.speakers) > 1 else "",
        symbols=[voice.symbols.decode(np.array([symbol])) for symbol in forced.text],
        target=target,
        teacher_forced=_log_mel(voice, forced.predicted),
        free_running=spoken,
        attention_teacher_forced=forced.attention,
        attention_free_running=free.attention,
        stopped=free.stopped,
        figures=_headline(forced.figures, free.figures),
        synthesised=griffin_lim(spoken, voice.contract),
        copy_synthesis=griffin_lim(target, voice.contract),
        original=_original(corpus, entry, voice.contract),
    )


def _original(corpus: Path | None, entry: Entry, contract: MelContract) -> np.ndarray | None:
    if corpus is None:
        return None
    path = inside(corpus, entry.audio, f"utterance {entry.id!r}")
    return read_audio(path, contract.sample_rate, resample=True, mixdown=True)
