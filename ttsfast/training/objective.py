"""From a batch to its losses: the model in its precision, the loss in full precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from torch import Tensor, nn

from ttsfast.data.loading.batch import Batch
from ttsfast.devices import Precision
from ttsfast.losses.module import TTSLoss
from ttsfast.losses.output import LossOutput
from ttsfast.models.criterion import loss_arguments, with_auxiliary
from ttsfast.models.interface import AcousticOutput, tracks_for
from ttsfast.terms.counts import Counts, sum_counts
from ttsfast.training import compilation
from ttsfast.training.telemetry.timing import StepClock


class Objective(nn.Module):
    """What a step differentiates. As a module it holds the model alone: what sums gradients over ranks, or
    shards weights among them, is to know of nothing else.

    Args:
        model: with the signature of :mod:`ttsfast.models.interface`.
        loss: the criterion.
        precision: of the model's forward pass.
        reduction_factor: frames per decoder step.
        clock: told where the time goes.
        compiled: whether the model's passes go through ``torch.compile``.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: TTSLoss,
        precision: Precision,
        reduction_factor: int,
        clock: StepClock,
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        # In a tuple, where a module does not look for modules.
        self._aside = (loss, compilation.compile_model(model) if compiled else model)
        self.precision, self.clock = precision, clock
        self.reduction_factor = reduction_factor
        device = next(model.parameters()).device
        self.around_passes: Callable[[], AbstractContextManager[None]] = (
            partial(compilation.passes, device) if compiled else nullcontext
        )
        """A context for both passes: says in the user's words what may fail in them."""
        self.counters = compilation.counters if compiled else dict
        """What a log line tells of how the model is called."""

    def uncompiled(self, model: nn.Module) -> Objective:
        """The same of ``model``, as it is written."""
        loss, _ = self._aside
        return Objective(model, loss, self.precision, self.reduction_factor, self.clock)

    def train(self, mode: bool = True) -> Objective:
        """Dropout and smoothing on; cheap when they are already."""
        loss, _ = self._aside
        if not (self.model.training is loss.training is mode):
            super().train(mode)
            loss.train(mode)
        return self

    def counts(self, batches: Sequence[Batch]) -> Counts:
        """What all of ``batches`` together are divided by."""
        loss, _ = self._aside
        return sum_counts(
            [
                loss.counts(
                    batch.mel_lengths,
                    (batch.mel_lengths + self.reduction_factor - 1) // self.reduction_factor,
                    batch.truncated,
                )
                for batch in batches
            ]
        )

    def forward(self, batch: Batch, normalizer: Counts, grad_scale: Tensor | None) -> LossOutput:
        """Losses of one micro-batch as its part of ``normalizer``; arguments as :class:`TTSLoss` takes them.

        Raises:
            TypeError: the model answers in another number of decoder steps than its reduction factor says.
        """
        loss, model = self._aside
        with self.precision.autocast():
            output = AcousticOutput.of(
                model(
                    batch.text,
                    batch.text_lengths,
                    batch.mel,
                    batch.mel_lengths,
                    speaker=batch.speaker,
                    **tracks_for(self.model, batch),
                )
            )
        self.clock.lap("forward")
        self._check_steps(output, batch)
        losses: LossOutput = loss(
            **loss_arguments(output, batch), normalizer=normalizer, grad_scale=grad_scale
        )
        losses = with_auxiliary(losses, output, normalizer)
        self.clock.lap("loss")
        return losses

    def _check_steps(self, output: AcousticOutput, batch: Batch) -> None:
        """A wrong reduction factor would divide terms by a wrong count of steps in silence."""
        expected = -(-batch.mel.shape[1] // self.reduction_factor)
        for name, found in (
            ("stop_logits", output.stop_logits),
            ("attention", output.attention),
            ("alignment_log_probs", output.alignment_log_probs),
        ):
            axis = 1 if name == "stop_logits" else -2
            if found is not None and found.shape[axis] != expected:
                raise TypeError(
                    f"the model's {name} has {found.shape[axis]} decoder steps for {batch.mel.shape[1]} "
                    f"frames, and its reduction_factor says {self.reduction_factor} frames per step: "
                    "give the model an attribute reduction_factor that holds"
                )
