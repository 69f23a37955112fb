"""Validation during training: teacher-forced and free-running, with pictures and sound in TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from ttsfast.config import TrainingConfig
from ttsfast.data.features.filterbank import mel_axes
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.data.loading.batch import Batch, collate
from ttsfast.data.store.store import Store
from ttsfast.evaluation.samples import ValidationSample
from ttsfast.evaluation.targets import FROM_FREE_RUNNING
from ttsfast.evaluation.validate import calibrate_stop, free_running, teacher_forced
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.pages.plots import alignment_figure, mel_figure
from ttsfast.training.setup import Loader
from ttsfast.training.telemetry.log import Telemetry


class _Interrupted(Exception):
    """The caller wants no more of it."""


@dataclass
class Validation:
    """What held-out data says of a model."""

    metrics: dict[str, float]
    """By name, each from the pass that :mod:`ttsfast.evaluation.targets` defines it on."""
    stop_threshold: float
    """Calibrated on the way."""
    sample: ValidationSample
    """One utterance, spoken freely."""


def validate_model(
    model: nn.Module,
    loader: Loader,
    store: Store,
    voice: VoiceInfo,
    config: TrainingConfig,
    *,
    interrupted: Callable[[], bool],
) -> Validation | None:
    """Measure on all held-out utterances teacher-forced, and on ``val_utterances`` of them free-running.

    Args:
        model: with the weights to measure.
        loader: of the held-out utterances.
        store: what it reads.
        voice: statistics, stop threshold and length limit.
        config: how many are spoken freely, and whether there is a stop term, whose threshold is calibrated.
        interrupted: asked before each batch whether to give up.

    Returns:
        None where it said so; nothing of the run has changed then.
    """

    def allowed(batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            if interrupted():
                raise _Interrupted
            yield batch

    # The same batches every time: sums in another order round differently, and a resumed run would see it.
    loader.load_state_dict({"epoch": 0, "position": 0})
    batches = list(loader)
    device, threshold = next(model.parameters()).device, voice.stop_threshold
    spoken: list[ValidationSample] = []
    try:
        if config.stop_loss_weight > 0:
            threshold = calibrate_stop(model, allowed(batches), device)
        forced = teacher_forced(
            model, allowed(batches), device, mel_std=voice.mel_std, stop_threshold=threshold
        )
        running = free_running(
            model,
            allowed([_spoken_batch(store, batches, config.val_utterances)]),
            device,
            stop_threshold=threshold,
            max_frames=voice.max_frames,
            mel_std=voice.mel_std,
            contract=voice.contract,
            on_sample=spoken.append,
        )
    except _Interrupted:
        return None
    if interrupted():
        return None
    metrics = {**forced, **{name: running[name] for name in FROM_FREE_RUNNING if name in running}}
    return Validation(metrics, threshold, spoken[0])


def report_validation(telemetry: Telemetry, step: int, found: Validation, voice: VoiceInfo) -> None:
    """Log, show and say what was found."""
    telemetry.scalars("validation", step, {**found.metrics, "stop_threshold": found.stop_threshold})
    _show(telemetry, step, found.sample, voice)
    summary = ", ".join(
        f"{name} {found.metrics[name]:.3f}"
        for name in ("mel_l1", "diagonal_mass", "mcd_dtw_sl", "coverage", "duration_error", "stop_rate")
        if name in found.metrics
    )
    telemetry.say(f"step {step} validation: {summary}")


def _spoken_batch(store: Store, batches: list[Batch], utterances: int) -> Batch:
    """The first of the held-out utterances in the store's order, whole ones before truncated ones: the same
    every time."""
    within_limits = {name for batch in batches for name in batch.ids}
    known = [i for i in store.indices("validation") if store.entries.id[i] in within_limits]
    known.sort(key=lambda i: store.entries[i].truncated)
    return collate([store[int(i)] for i in known[:utterances]], pad_value=store.silence)


def _show(telemetry: Telemetry, step: int, sample: ValidationSample, voice: VoiceInfo) -> None:
    """One free-running utterance in TensorBoard: alignment, mels and sound."""
    target, spoken = (mel * voice.mel_std + voice.mel_mean for mel in (sample.target, sample.predicted))
    if sample.attention is not None:
        telemetry.figure("alignment", alignment_figure(sample.attention), step)
    mels = mel_figure({"recorded": target, "spoken": spoken}, mel_axes(voice.contract))
    telemetry.figure("mel", mels, step)
    telemetry.audio("spoken", griffin_lim(spoken, voice.contract), voice.contract.sample_rate, step)
