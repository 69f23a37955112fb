"""From a batch to its losses: the model in its precision, the loss in full precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from ttsfast.data.loading.batch import Batch
from ttsfast.devices import Precision
from ttsfast.losses.module import TTSLoss
from ttsfast.losses.output import LossOutput
from ttsfast.models.interface import AcousticOutput
from ttsfast.terms.counts import Counts, sum_counts
from ttsfast.training.telemetry.timing import StepClock


class Objective:
    """What a step differentiates.

    Args:
        model: with the signature of :mod:`ttsfast.models.interface`.
        loss: the criterion.
        precision: of the model's forward pass.
        reduction_factor: frames per decoder step.
        clock: told where the time goes.
    """

    def __init__(
        self, model: nn.Module, loss: TTSLoss, precision: Precision, reduction_factor: int, clock: StepClock
    ) -> None:
        self.model, self.loss, self.precision, self.clock = model, loss, precision, clock
        self.forward: Callable[..., Any] = model
        """The model's call, or its compiled one."""
        self.explained: Callable[[], AbstractContextManager[None]] = nullcontext
        """Around both passes: says in the user's words what may fail in them."""
        self.counters: Callable[[], dict[str, float]] = dict
        """What a log line tells of how it is called."""
        self.reduction_factor = reduction_factor

    def train(self) -> None:
        """Dropout and smoothing on; cheap when they are already."""
        if not (self.model.training and self.loss.training):
            self.model.train()
            self.loss.train()

    def counts(self, batches: Sequence[Batch]) -> Counts:
        """What all of ``batches`` together are divided by."""
        return sum_counts([self._count(batch) for batch in batches])

    def __call__(self, batch: Batch, normalizer: Counts, grad_scale: Tensor | None) -> LossOutput:
        """Losses of one micro-batch as its part of ``normalizer``; arguments as :class:`TTSLoss` takes them.

        Raises:
            TypeError: the model answers in another number of decoder steps than its reduction factor says.
        """
        with self.precision.autocast():
            output = AcousticOutput.of(
                self.forward(
                    batch.text, batch.text_lengths, batch.mel, batch.mel_lengths, speaker=batch.speaker
                )
            )
        self.clock.lap("forward")
        self._check_steps(output, batch)
        losses: LossOutput = self.loss(
            output.mel,
            batch.mel,
            batch.mel_lengths,
            stop_logits=output.stop_logits,
            step_lengths=output.step_lengths,
            posterior=output.posterior,
            attention=output.attention,
            text_lengths=batch.text_lengths,
            truncated=batch.truncated,
            normalizer=normalizer,
            grad_scale=grad_scale,
        )
        if output.auxiliary is not None:
            losses.total = losses.total + output.auxiliary / normalizer.frames
        self.clock.lap("loss")
        return losses

    def _count(self, batch: Batch) -> Counts:
        steps = (batch.mel_lengths + self.reduction_factor - 1) // self.reduction_factor
        return self.loss.counts(batch.mel_lengths, steps, batch.truncated)

    def _check_steps(self, output: AcousticOutput, batch: Batch) -> None:
        """A wrong reduction factor would divide the stop and attention terms by a wrong count in silence."""
        expected = -(-batch.mel.shape[1] // self.reduction_factor)
        for name, found in (("stop_logits", output.stop_logits), ("attention", output.attention)):
            axis = 1 if name == "stop_logits" else -2
            if found is not None and found.shape[axis] != expected:
                raise TypeError(
                    f"the model's {name} has {found.shape[axis]} decoder steps for {batch.mel.shape[1]} "
                    f"frames, and its reduction_factor says {self.reduction_factor} frames per step: "
                    "give the model an attribute reduction_factor that holds"
                )
