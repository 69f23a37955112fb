"""Running a model over held-out batches: utterances come out one by one, and no trace is left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ttsfast.data.loading.batch import Batch
from ttsfast.errors import InputError
from ttsfast.evaluation.metrics import STOP_TOLERANCE_FRAMES
from ttsfast.models.eval_mode import eval_mode
from ttsfast.models.interface import AcousticOutput, FreeRunning, tracks_for


@dataclass
class ValidationSample:
    """One utterance of a validation pass, cut to its valid region."""

    id: str
    text: np.ndarray
    """(N,) symbol ids"""
    target: np.ndarray
    """(T, C) float32, normalised"""
    predicted: np.ndarray
    """(T, C) teacher-forced, (T', C) free-running; float32, normalised"""
    attention: np.ndarray | None
    """(S, N) float32, the mean over heads; None when the model reports none"""
    truncated: bool
    """The recording ends before its text does."""
    stop_logits: np.ndarray | None = None
    """Teacher-forced only: (S + tail,), the valid steps and the few after them that a stop may take."""
    last_step: int = 0
    """Teacher-forced only: the last valid step, S - 1."""
    frames_per_step: int = 1
    """Teacher-forced only: the reduction factor, as far as the batch shows it."""
    stopped: bool = False
    """Free-running only: whether the stop fired before the frame limit."""
    figures: dict[str, float] = field(default_factory=dict)
    """What was measured on this utterance alone."""


def teacher_forced_samples(
    model: nn.Module, batches: Iterable[Batch], device: torch.device | str
) -> Iterator[ValidationSample]:
    """Feed the model with the true frames.

    Raises:
        InputError: an output is not finite where it is valid (the utterance is named).
    """
    for batch in batches:
        moved = batch.to(device)
        with eval_mode(model, device):
            output = AcousticOutput.of(
                model(
                    moved.text,
                    moved.text_lengths,
                    moved.mel,
                    moved.mel_lengths,
                    speaker=moved.speaker,
                    **tracks_for(model, moved),
                )
            )
        mel, attention = _host(output.final_mel), _mean_over_heads(output.attention)
        logits = None if output.stop_logits is None else _host(output.stop_logits)
        ratio = 1 if logits is None else _frames_per_step(mel, logits)
        tail = max(1, STOP_TOLERANCE_FRAMES // ratio)
        step_lengths = moved.mel_lengths if output.step_lengths is None else output.step_lengths
        steps = step_lengths.tolist()
        for row, common in enumerate(_common(batch)):
            name, symbols = common["id"], len(common["text"])
            yield ValidationSample(
                **common,
                predicted=_finite(mel[row, : len(common["target"])], name, "mel"),
                attention=_cut(attention, row, steps[row], symbols, name),
                stop_logits=None
                if logits is None
                else _finite(logits[row, : steps[row] + tail], name, "stop"),
                last_step=steps[row] - 1,
                frames_per_step=ratio,
            )


def free_running_samples(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device | str,
    *,
    stop_threshold: float,
    max_frames: int,
) -> Iterator[ValidationSample]:
    """Let the model speak each text, fed with its own frames.

    Raises:
        InputError: an output is not finite where it is valid (the utterance is named).
    """
    for batch in batches:
        moved = batch.to(device)
        with eval_mode(model, device):
            spoken: FreeRunning = model.synthesize(  # type: ignore[operator]
                moved.text,
                moved.text_lengths,
                moved.speaker,
                max_frames=max_frames,
                stop_threshold=stop_threshold,
            )
        mel = _host(spoken.mel)
        lengths, stopped = spoken.mel_lengths.tolist(), spoken.stopped.tolist()
        for row, common in enumerate(_common(batch)):
            name, attention = common["id"], spoken.attention_of(row, len(common["text"]))
            yield ValidationSample(
                **common,
                predicted=_finite(mel[row, : lengths[row]], name, "mel"),
                attention=None if attention is None else _finite(attention, name, "attention"),
                stopped=stopped[row],
            )


def _common(batch: Batch) -> Iterator[dict[str, Any]]:
    """What a sample holds whichever way it was made, row by row."""
    text, mel = batch.text.cpu().numpy(), _host(batch.mel)
    symbols, frames, truncated = (
        x.tolist() for x in (batch.text_lengths, batch.mel_lengths, batch.truncated)
    )
    for row, name in enumerate(batch.ids):
        yield {
            "id": name,
            "text": text[row, : symbols[row]].copy(),
            "target": mel[row, : frames[row]].copy(),
            "truncated": truncated[row],
        }


def _frames_per_step(mel: np.ndarray, per_step: np.ndarray) -> int:
    """The reduction factor r from S = ceil(T / r); exact when there are at least r steps."""
    return -(-mel.shape[1] // per_step.shape[1])


def _host(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _mean_over_heads(attention: Tensor | None) -> np.ndarray | None:
    """(B, S, N) from (B, S, N) or (B, H, S, N)."""
    if attention is None:
        return None
    return _host(attention.float().mean(dim=1) if attention.dim() == 4 else attention)


def _cut(attention: np.ndarray | None, row: int, steps: int, symbols: int, name: str) -> np.ndarray | None:
    return None if attention is None else _finite(attention[row, :steps, :symbols], name, "attention")


def _finite(values: np.ndarray, name: str, what: str) -> np.ndarray:
    if not np.isfinite(values).all():
        raise InputError(
            f"utterance {name!r}: the model's {what} output is not finite: its weights have diverged; "
            "go back to an earlier checkpoint and lower the learning rate"
        )
    # A copy: a view would keep the whole padded batch alive for as long as one sample of it is kept.
    return values.copy()
