"""Validation, teacher-forced and free-running, and the stop threshold that follows from it.

Everything is weighted by what it counts (frames, decoder steps, symbols, utterances), so the figures do not
depend on how the utterances were batched. A figure that the batches or the model cannot give (no stop
logits, only truncated clips) is absent from the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ttsfast.data.loading.batch import Batch
from ttsfast.errors import InputError
from ttsfast.evaluation import metrics
from ttsfast.evaluation.distortion import warped
from ttsfast.evaluation.figures import Figures
from ttsfast.evaluation.samples import ValidationSample, free_running_samples, teacher_forced_samples

if TYPE_CHECKING:
    from ttsfast.data.features.contract import MelContract

OnSample = Callable[[ValidationSample], None]

PLATEAU_SLACK = 0.005
"""Stop thresholds whose duration error is within this of the least are taken as equally good."""


def teacher_forced(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device | str,
    *,
    mel_std: np.ndarray | None = None,
    stop_threshold: float = 0.5,
    on_sample: OnSample | None = None,
) -> Figures:
    """Measure the model fed with the true frames, in ``eval()`` (so a posterior gives its mean).

    Args:
        model: as :mod:`ttsfast.models.interface` describes.
        batches: each utterance once.
        device: where the model is.
        mel_std: (C,) standard deviations of the features, for ``mel_l1_log``.
        stop_threshold: for ``stop_f1``.
        on_sample: called with each utterance as it is measured.

    Returns:
        ``mel_l1`` and ``mel_l1_log`` (mean over frames), ``diagonal_mass`` (over decoder steps),
        ``coverage`` (over symbols), ``monotonicity`` (over moves), ``stop_f1`` (over utterances). A clip
        marked truncated counts for the mel figures only: its text goes on after its sound.

    Raises:
        InputError: there is no utterance, or an output is not finite.
    """
    measured = _Measured()
    for sample in teacher_forced_samples(model, batches, device):
        frames = len(sample.target)
        measured.of(sample, "mel_l1", metrics.mel_l1(sample.predicted, sample.target), frames)
        if mel_std is not None:
            error = metrics.mel_l1(sample.predicted, sample.target, mel_std)
            measured.of(sample, "mel_l1_log", error, frames)
        if not sample.truncated:
            _add_alignment(measured, sample)
            if sample.stop_logits is not None:
                fire = metrics.first_fire(sample.stop_logits, stop_threshold)
                tolerance = max(1, metrics.STOP_TOLERANCE_FRAMES // sample.frames_per_step)
                measured.of(sample, "stop_f1", *metrics.stop_f1(fire, sample.last_step, tolerance))
        if on_sample is not None:
            on_sample(sample)
    return measured.result()


def free_running(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device | str,
    *,
    stop_threshold: float,
    max_frames: int,
    mel_std: np.ndarray | None = None,
    contract: MelContract | None = None,
    on_sample: OnSample | None = None,
) -> Figures:
    """Measure the model fed with its own frames only, as when it speaks.

    Args:
        model: with ``synthesize``, as :mod:`ttsfast.models.interface` describes.
        batches: each utterance once.
        device: where the model is.
        stop_threshold: probability at which the stop fires.
        max_frames: where an utterance that does not stop is cut.
        mel_std: (C,) standard deviations of the features; with ``contract``, for ``mcd_dtw``, ``mcd_dtw_sl``
            and ``heard``, which take some 30 ms per utterance.
        contract: of the features.
        on_sample: called with each utterance as it is measured.

    Returns:
        ``stop_rate``, ``duration_error``, ``right_length``, ``ran_on``, ``cut_short``, ``mcd_dtw``,
        ``mcd_dtw_sl`` (means over utterances), ``heard`` (over recorded frames), ``diagonal_mass`` (over
        decoder steps), ``coverage`` (over symbols), ``monotonicity`` (over moves). Clips marked truncated
        have no true end and count for neither duration nor sound.

    Raises:
        InputError: there is no utterance, or an output is not finite.
        ValueError: only one of ``mel_std`` and ``contract`` is given.
    """
    if (mel_std is None) != (contract is None):
        raise ValueError("mcd_dtw, mcd_dtw_sl and heard need mel_std and contract, or neither")
    measured = _Measured()
    for sample in free_running_samples(
        model, batches, device, stop_threshold=stop_threshold, max_frames=max_frames
    ):
        measured.of(sample, "stop_rate", float(sample.stopped))
        _add_alignment(measured, sample)
        if not sample.truncated:
            spoken, recorded = len(sample.predicted), len(sample.target)
            measured.of(sample, "duration_error", metrics.duration_error(spoken, recorded))
            on, short = metrics.ran_on(spoken, recorded), metrics.cut_short(spoken, recorded)
            measured.of(sample, "right_length", float(sample.stopped and not on and not short))
            measured.of(sample, "ran_on", float(on))
            measured.of(sample, "cut_short", float(short))
            if mel_std is not None and contract is not None:
                pairs = warped(sample.predicted * mel_std, sample.target * mel_std, contract)
                measured.of(sample, "mcd_dtw", pairs.mcd)
                measured.of(sample, "mcd_dtw_sl", pairs.mcd_sl)
                measured.of(sample, "heard", pairs.heard, recorded)
        if on_sample is not None:
            on_sample(sample)
    return measured.result()


def calibrate_stop(model: nn.Module, batches: Iterable[Batch], device: torch.device | str) -> float:
    """The stop probability at which to end an utterance, from teacher-forced logits on held-out data.

    For each threshold, every utterance's first fire gives a duration error ``|fire - last| / S``; no fire
    at all counts 1. The thresholds whose mean error is within :data:`PLATEAU_SLACK` of the least form
    plateaus; of those that hold a least one the widest, in log-odds, is taken, and its middle returned: as
    far as can be from where the stop starts to fire early, and from where it starts not to fire.

    Args:
        model: as :mod:`ttsfast.models.interface` describes, with stop logits.
        batches: each utterance once; clips marked truncated are passed over.
        device: where the model is.

    Returns:
        A probability in [0.001, 0.999].

    Raises:
        InputError: no utterance has a true end, or an output is not finite.
        ValueError: the model gives no stop logits.
    """
    thresholds = np.linspace(metrics.logit(0.001), metrics.logit(0.999), 1001)
    errors = np.zeros_like(thresholds)
    utterances = 0
    for sample in teacher_forced_samples(model, batches, device):
        if sample.truncated:
            continue
        if sample.stop_logits is None:
            raise ValueError("the model gives no stop logits, so there is no threshold to calibrate")
        # The first step to reach a threshold is the first at which the running maximum does.
        fire = np.searchsorted(np.maximum.accumulate(sample.stop_logits), thresholds)
        off = np.abs(fire - sample.last_step) / (sample.last_step + 1)
        errors += np.where(fire < len(sample.stop_logits), off, 1.0)
        utterances += 1
    if not utterances:
        raise InputError(
            "no held-out utterance with a true end to calibrate the stop on; prepare a corpus with "
            "validation utterances that are not marked truncated"
        )
    errors /= utterances
    first, last = _widest_plateau(errors, PLATEAU_SLACK)
    return float(1.0 / (1.0 + np.exp(-thresholds[(first + last) // 2])))


def _widest_plateau(errors: np.ndarray, slack: float) -> tuple[int, int]:
    """First and last index of the longest run within ``slack`` of the least error that holds a least one."""
    least = errors.min()
    good = np.concatenate(([False], errors <= least + slack, [False]))
    starts = np.flatnonzero(good[1:] & ~good[:-1])
    ends = np.flatnonzero(good[:-1] & ~good[1:]) - 1
    runs = [
        (a, b)
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
        if errors[a : b + 1].min() == least
    ]
    return max(runs, key=lambda run: run[1] - run[0])


class _Measured:
    """Figures of samples, each of which keeps its own."""

    def __init__(self) -> None:
        self._figures = Figures()

    def of(self, sample: ValidationSample, name: str, value: float, weight: int = 1) -> None:
        sample.figures[name] = value
        self._figures.add(name, sample.id, value, weight)

    def result(self) -> Figures:
        if not self._figures:
            raise InputError(
                "there is no utterance to validate on; prepare a corpus with validation utterances"
            )
        return self._figures


def _add_alignment(measured: _Measured, sample: ValidationSample) -> None:
    if sample.attention is None:
        return
    steps, symbols = sample.attention.shape
    measured.of(sample, "diagonal_mass", metrics.diagonal_mass(sample.attention), steps)
    measured.of(sample, "coverage", metrics.coverage(sample.attention), symbols)
    if steps > 1:
        measured.of(sample, "monotonicity", metrics.monotonicity(sample.attention), steps - 1)
