"""Evaluation of a voice on held-out utterances: figures, baselines beside them, and samples to hear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from torch import nn

from ttsfast.data.corpus.split import TEST, VALIDATION
from ttsfast.data.loading.batch import Batch, collate
from ttsfast.data.store.texts import written_texts
from ttsfast.errors import InputError
from ttsfast.evaluation import baselines
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.result import Evaluation, Measured
from ttsfast.evaluation.samples import ValidationSample
from ttsfast.evaluation.sound import measure_sound
from ttsfast.evaluation.spoken import Keeper, log_mel, speaker, spoken
from ttsfast.evaluation.targets import DEFINITIONS, FROM_FREE_RUNNING
from ttsfast.evaluation.validate import calibrate_stop, free_running, teacher_forced
from ttsfast.progress import track
from ttsfast.synthesis.vocoder import Vocoder, load_vocoder

if TYPE_CHECKING:
    from ttsfast.data.store.store import Store
    from ttsfast.evaluation.speech_recognition import Recogniser
    from ttsfast.models.voice import Voice

T = TypeVar("T")

UNTRAINED_UTTERANCES = 24
"""A model that never stops speaks for longer than one that does, so it is not made to speak everything."""


def evaluate(
    voice: Voice,
    store: Store,
    split: str | None = None,
    *,
    untrained: nn.Module,
    batch_size: int = 16,
    samples: int = 6,
    worst: int = 10,
    copy_synthesis_utterances: int = 24,
    vocoder: Vocoder | None = None,
    recogniser: Recogniser | None = None,
    corpus: Path | None = None,
) -> Evaluation:
    """Measure ``voice`` on one split of ``store``, free-running and teacher-forced.

    Args:
        voice: the model with its statistics, symbols and calibrated stop threshold.
        store: features of the same contract, statistics and symbols.
        split: ``"test"``, ``"validation"`` or ``"train"``; :func:`reported_split` when None.
        untrained: the same model with fresh weights, on any device, whose figures stand beside: what it
            reaches says nothing of the training. It is measured on :data:`UNTRAINED_UTTERANCES` at most.
        batch_size: utterances at a time.
        samples: utterances to keep with pictures and sound, spread evenly over the lengths.
        worst: how many of the others to keep likewise, by :data:`ttsfast.evaluation.spoken.WORST_BY`.
        copy_synthesis_utterances: at most so many go through the vocoder for that baseline, likewise spread.
        vocoder: what makes sound of mels; Griffin-Lim when None.
        recogniser: hears the words of all utterances, free-running, copied and recorded, where there is one.
        corpus: the folder that the store was prepared from; with it, samples hold the original recordings,
            and a store of phonemes shows sentences if the folder was not found where the store says.

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
    shown = [store.entries[i].id for i in _spread(order, samples)]
    keeper = Keeper(shown, worst)
    lengths: dict[str, tuple[int, bool]] = {}
    shapes: dict[str, tuple[int, int]] = {}
    has_stop = False
    vocoder = vocoder or load_vocoder(None, voice.contract)
    sounds = recogniser is not None or "pitch" in store.tracks
    mels: dict[str, np.ndarray] = {}

    def keep_free(sample: ValidationSample) -> None:
        lengths[sample.id] = len(sample.predicted), sample.stopped
        keeper.free_running(sample)
        if sounds:
            mels[sample.id] = sample.predicted

    def keep_forced(sample: ValidationSample) -> None:
        nonlocal has_stop
        has_stop = has_stop or sample.stop_logits is not None
        if sample.attention is not None and not sample.truncated:
            shapes[sample.id] = sample.attention.shape
        keeper.teacher_forced(sample)

    free = free_running(
        voice.model,
        _batches(store, order, batch_size, "free-running"),
        voice.device,
        stop_threshold=voice.stop_threshold,
        max_frames=voice.max_frames,
        mel_std=voice.mel_std,
        contract=voice.contract,
        on_sample=keep_free,
    )
    forced = teacher_forced(
        voice.model,
        _batches(store, order, batch_size, "teacher-forced"),
        voice.device,
        mel_std=voice.mel_std,
        stop_threshold=voice.stop_threshold,
        on_sample=keep_forced,
    )
    copied = _spread(order, copy_synthesis_utterances)
    beside = {
        "untrained": _untrained(voice, store, untrained, order, batch_size, has_stop=has_stop),
        "predict_mean": _predict_mean(store, order),
    }
    if shapes:
        beside["uniform_attention"] = baselines.uniform_attention(shapes)
    if copied:
        log_mels = (
            (store.entries[i].id, log_mel(voice, store[i].mel)) for i in _tracked(copied, "copy synthesis")
        )
        beside["copy_synthesis"] = baselines.copy_synthesis(log_mels, voice.mel_mean, voice.mel_std, vocoder)
    beside["natural"] = baselines.natural(store.entries[i].id for i in order)
    figures, words = _headline(forced, free, has_stop=has_stop), None
    if sounds:
        sound = measure_sound(voice, store, order.tolist(), mels, vocoder, recogniser, corpus)
        figures, words = figures.joined(sound.figures["free_running"]), sound.words
        for kind in sound.figures.keys() & beside.keys():
            beside[kind] = beside[kind].joined(sound.figures[kind])
    written = written_texts(store, corpus) if voice.frontend.phonemes else {}
    places = {store.entries[i].id: int(i) for i in order}
    views = {
        name: spoken(voice, store, places[name], *keeper.of(name), vocoder, corpus)
        for name in _tracked([*shown, *keeper.worst], "samples")
    }
    return Evaluation(
        split=split,
        figures=figures,
        baselines=beside,
        teacher_forced=forced,
        free_running=free,
        measured=[
            Measured(entry.id, entry.text, speaker(store, entry), int(store.frames[i]), *lengths[entry.id])
            for i, entry in ((i, store.entries[i]) for i in order)
        ],
        words=words,
        vocoder=vocoder.name,
        stop_threshold=voice.stop_threshold,
        contract=voice.contract,
        language=voice.frontend.language,
        phonemes=voice.frontend.phonemes,
        written={name: written[name] for name in places if name in written},
        samples=[views[name] for name in shown],
        worst=[views[name] for name in keeper.worst],
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


def _untrained(
    voice: Voice, store: Store, model: nn.Module, order: np.ndarray, batch_size: int, *, has_stop: bool
) -> Figures:
    """The figures of the untrained model, whose stop threshold is calibrated like the voice's."""
    model = model.to(voice.device)
    threshold = voice.stop_threshold
    known = store.indices(VALIDATION)
    ended = [i for i in _spread(known, UNTRAINED_UTTERANCES) if not store[i].truncated]
    if has_stop and ended:
        calibration = _batches(store, np.array(ended), batch_size, "untrained, stop threshold")
        threshold = calibrate_stop(model, calibration, voice.device)
    some = np.array(_spread(order, UNTRAINED_UTTERANCES))
    free = free_running(
        model,
        _batches(store, some, batch_size, "untrained, free-running"),
        voice.device,
        stop_threshold=threshold,
        max_frames=voice.max_frames,
        mel_std=voice.mel_std,
        contract=voice.contract,
    )
    forced = teacher_forced(
        model,
        _batches(store, some, batch_size, "untrained, teacher-forced"),
        voice.device,
        mel_std=voice.mel_std,
        stop_threshold=threshold,
    )
    return _headline(forced, free, has_stop=has_stop)


def _predict_mean(store: Store, order: np.ndarray) -> Figures:
    train = store.indices("train")
    symbols = int(store.text_lengths[train].sum())
    return baselines.predict_mean(
        (store[int(i)] for i in order),
        store.mel_std,
        store.contract,
        int(store.frames[train].sum()) / symbols if symbols else None,
    )


def _headline(forced: Figures, free: Figures, *, has_stop: bool) -> Figures:
    """Each figure from the pass that its definition names."""
    from_free = [name for name in FROM_FREE_RUNNING if has_stop or name != "stop_rate"]
    return forced.named(DEFINITIONS.keys() - set(FROM_FREE_RUNNING)).joined(free.named(from_free))
