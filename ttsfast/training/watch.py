"""What is watched at every step: that all is finite, how steep and how large it is, and where it is going."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from ttsfast.config import TrainingConfig
from ttsfast.data.loading.batch import Batch
from ttsfast.errors import TrainingError
from ttsfast.models.checkpoint import checkpoints
from ttsfast.terms.spec import TERMS
from ttsfast.training.diagnosis import NOWHERE, StepInputs, first_non_finite
from ttsfast.training.monitor import ConvergenceWindow, SpikeGuard, StepRecords

if TYPE_CHECKING:
    from ttsfast.training.passes import PassFigures
    from ttsfast.training.trainer import Trainer
    from ttsfast.training.update import Judged


class Watch:
    """Keeps what steps record as device tensors, and judges them when :meth:`read` brings them to the host.

    A step that is not finite sets :attr:`frozen` on the device: from it on no update is applied, so when the
    host learns of it at the next log point, the weights are those the bad step had, and it can be taken again
    to find the culprit.
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.device = device
        self.threshold = config.gradient_norm_threshold
        self.guard = SpikeGuard(config.loss_smoothing_factor, config.max_loss_spike_threshold, device)
        self.window = ConvergenceWindow(config.convergence_window, config.convergence_threshold)
        self.records = StepRecords()
        self.steep_steps = 0
        self.frozen = torch.zeros((), device=device)
        """() float32: 1 from the first step on that was not finite."""
        self._inputs: list[StepInputs] = []

    def remember(self, step: int, batches: Sequence[Batch]) -> None:
        """Keep what it takes to take this step again."""
        self._inputs.append(StepInputs.of(step, batches, self.device))

    def freeze_if(self, bad: Tensor) -> Tensor:
        """Take in whether a step is not finite; return whether to skip it, as a () float32 tensor."""
        return self.frozen.masked_fill_(bad, 1.0)

    def record(self, judged: Judged, last: PassFigures) -> None:
        """Keep a step's figures, and the weights that its last micro-batch was under."""
        values = torch.cat((judged.figures, judged.norm[None], last.weights)).float()
        self.records.add(_columns(last.present), values)

    def read(self, trainer: Trainer) -> None:
        """The one synchronisation of many steps: see that they were finite, and judge them.

        Raises:
            TrainingError: one was not; neither it nor what followed has been applied.
        """
        rows = self.records.read()
        inputs, self._inputs = self._inputs, []
        for row, step_inputs in zip(rows, inputs, strict=False):
            watched = (*TERMS, "total", "gradient_norm")
            bad = [name for name in watched if not math.isfinite(row.get(name, 0.0))]
            if bad:
                _give_up(trainer, step_inputs, ", ".join(bad))
        self.window.losses.extend(row["mel"] for row in rows)
        steep = [row["gradient_norm"] for row in rows if row["gradient_norm"] > self.threshold]
        if steep and not self.steep_steps:
            trainer.telemetry.say(
                f"step {trainer.step}: a gradient norm of {max(steep):.1f} was above "
                f"training.gradient_norm_threshold={self.threshold:g}; it was clipped; others are counted"
            )
        self.steep_steps += len(steep)

    def overflowed(self, trainer: Trainer, total: Tensor) -> None:
        """fp16 only: a finite loss whose scaled gradients are not is an overflow, and lowers the scale.

        Raises:
            TrainingError: the loss itself is not finite, or the scale cannot fall any further.
        """
        inputs, scale = self._inputs.pop(), trainer.scaler.scale
        if not total.isfinite() or not trainer.scaler.back_off():
            self.read(trainer)
            _give_up(trainer, inputs, "gradient_norm" if total.isfinite() else "total")
        trainer.telemetry.say(
            f"step {inputs.step}: a gradient overflowed float16 at a loss scale of {scale:g}; its batch is "
            f"left out, the scale is {trainer.scaler.scale:g} now"
        )


@cache
def _columns(present: tuple[bool, ...]) -> tuple[str | None, ...]:
    """What a log line calls a step's total, values, floors, gradient norm and weights."""
    terms = [name if there else None for name, there in zip(TERMS, present, strict=True)]
    weights = [None if name is None else f"weight_{name}" for name in terms]
    return "total", *terms, *(None for _ in TERMS), "gradient_norm", *weights


def _give_up(trainer: Trainer, inputs: StepInputs, bad: str) -> NoReturn:
    """A NaN is never trained on in silence."""
    # On all ranks, since what is judged is summed over them; the cause may lie in one rank's batch.
    with trainer.parallel.full_weights(everywhere=True):
        looked = first_non_finite(trainer, inputs), inputs.names()
    found = trainer.ranks.all_gather_object(looked)
    place, names = next((one for one in found if not one[0].startswith(NOWHERE)), found[0])
    kept = checkpoints(trainer.run_folder)
    where = f"resume from {kept[-1]}" if kept else "start again"
    raise TrainingError(
        f"step {inputs.step}: {bad} is not finite, first in {place}; the batch is {names}; check it "
        f"with `ttsfast verify`, then {where} with a lower training.learning_rate or "
        "data.mixed_precision=false"
    )
