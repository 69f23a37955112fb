"""Validation during training: teacher-forced and free-running, with pictures and sound in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ttsfast.data.features.filterbank import mel_axes
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.data.loading.batch import Batch, collate
from ttsfast.evaluation.evaluate import FROM_FREE_RUNNING
from ttsfast.evaluation.samples import ValidationSample
from ttsfast.evaluation.validate import calibrate_stop, free_running, teacher_forced
from ttsfast.pages.plots import alignment_figure, mel_figure

if TYPE_CHECKING:
    from ttsfast.training.trainer import Trainer


class ValidationInterrupted(Exception):
    """SIGTERM came while validating; nothing of the run has changed."""


def validate_run(trainer: Trainer) -> tuple[dict[str, float], float]:
    """Measure the model on all held-out utterances teacher-forced, and on some of them free-running.

    Returns:
        The metrics by name, each from the pass that :mod:`ttsfast.evaluation.targets` defines it on, and
        the stop threshold calibrated on the way.

    Raises:
        ValidationInterrupted: SIGTERM came; the run will validate again when it is resumed.
    """
    # The same batches every time: sums in another order round differently, and a resumed run would see it.
    trainer.validation_loader.load_state_dict({"epoch": 0, "position": 0})
    batches = list(trainer.validation_loader)
    model, device, voice = trainer.model, trainer.device, trainer.voice
    has_stop = trainer.config.training.stop_loss_weight > 0
    threshold = (
        calibrate_stop(model, _while_allowed(trainer, batches), device) if has_stop else voice.stop_threshold
    )
    allowed = _while_allowed(trainer, batches)
    forced = teacher_forced(model, allowed, device, mel_std=voice.mel_std, stop_threshold=threshold)
    spoken: list[ValidationSample] = []
    running = free_running(
        model,
        _while_allowed(trainer, [_spoken_batch(trainer, batches)]),
        device,
        stop_threshold=threshold,
        max_frames=voice.max_frames,
        on_sample=spoken.append,
    )
    metrics = {**forced, **{name: running[name] for name in FROM_FREE_RUNNING if name in running}}
    if trainer.preemption.requested:
        raise ValidationInterrupted
    trainer.telemetry.scalars("validation", trainer.step, {**metrics, "stop_threshold": threshold})
    _show(trainer, spoken[0])
    summary = ", ".join(
        f"{name} {metrics[name]:.3f}"
        for name in ("mel_l1", "diagonal_mass", "coverage", "duration_error", "stop_rate")
        if name in metrics
    )
    trainer.telemetry.say(f"step {trainer.step} validation: {summary}")
    return metrics, threshold


def _while_allowed(trainer: Trainer, batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if trainer.preemption.requested:
            raise ValidationInterrupted
        yield batch


def _spoken_batch(trainer: Trainer, batches: list[Batch]) -> Batch:
    """The first of the held-out utterances in the store's order: the same ones every time."""
    store = trainer.store
    within_limits = {name for batch in batches for name in batch.ids}
    chosen = [i for i in store.indices("validation") if store.entries.id[i] in within_limits]
    chosen = chosen[: trainer.config.training.val_utterances]
    return collate([store[int(i)] for i in chosen], pad_value=store.silence)


def _show(trainer: Trainer, sample: ValidationSample) -> None:
    """One free-running utterance in TensorBoard: alignment, mels and sound."""
    voice, step = trainer.voice, trainer.step
    target, spoken = (mel * voice.mel_std + voice.mel_mean for mel in (sample.target, sample.predicted))
    if sample.attention is not None:
        trainer.telemetry.figure("alignment", alignment_figure(sample.attention), step)
    trainer.telemetry.figure(
        "mel", mel_figure({"recorded": target, "spoken": spoken}, mel_axes(voice.contract)), step
    )
    trainer.telemetry.audio("spoken", griffin_lim(spoken, voice.contract), voice.contract.sample_rate, step)
