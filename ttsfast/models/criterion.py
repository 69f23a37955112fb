"""What a loss is given of a model's outputs, by name, and the model's own loss beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ttsfast.data.loading.batch import Batch
from ttsfast.losses.output import LossOutput
from ttsfast.models.interface import AcousticOutput
from ttsfast.terms.counts import Counts


def loss_arguments(output: AcousticOutput, batch: Batch) -> dict[str, Any]:
    """What :meth:`ttsfast.losses.module.TTSLoss.forward` takes of the outputs of ``batch``."""
    return {
        "mel_pred": output.mel,
        "mel_target": batch.mel,
        "mel_lengths": batch.mel_lengths,
        "stop_logits": output.stop_logits,
        "step_lengths": output.step_lengths,
        "posterior": output.posterior,
        "attention": output.attention,
        "alignment_log_probs": output.alignment_log_probs,
        "alignment_prior": output.alignment_prior,
        "alignment_path": output.alignment_path,
        "text_lengths": batch.text_lengths,
        "truncated": batch.truncated,
    }


def with_auxiliary(losses: LossOutput, output: AcousticOutput, normalizer: Counts) -> LossOutput:
    """The losses with the model's own in the total, a frame's share of it."""
    if output.auxiliary is None:
        return losses
    return replace(losses, total=losses.total + output.auxiliary / normalizer.frames)
