"""A look at the model before the first step: some seconds, against hours of training something else."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ttsfast.config import Config
from ttsfast.data.checks.finding import ERROR, WARNING
from ttsfast.data.store.store import Store
from ttsfast.devices import Precision
from ttsfast.errors import InputError
from ttsfast.models.checkpoint import checkpoints
from ttsfast.models.checks.run import BEFORE_TRAINING, ModelChecked, run_model_checks
from ttsfast.models.checks.trial import Trial, batch_of, short_utterances
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.progress import console
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.setup import build_loss

SECONDS = 10.0
"""That it may take; other ranks wait for the first one."""


def preflight(
    config: Config,
    model: nn.Module,
    voice: VoiceInfo,
    store: Store,
    precision: Precision,
    ranks: ProcessGroup,
    *,
    resume: bool,
) -> None:
    """Look at ``model`` on three short utterances, on the first rank, and say what is wrong with it.

    Weights, buffers and random streams are left as they were: a run's bits are the same with and without it.
    A run that goes on from a checkpoint was looked at when it began.

    Raises:
        InputError: something that ruins a voice, in one line.
    """
    refused = None
    if ranks.is_first and config.training.preflight:
        going_on = resume and bool(checkpoints(Path(config.training.run_folder)))
        if not going_on:
            refused = _said(_looked_at(config, model, voice, store, precision))
    refused = ranks.broadcast_object(refused)
    if refused is not None:
        raise InputError(refused)


def _looked_at(
    config: Config, model: nn.Module, voice: VoiceInfo, store: Store, precision: Precision
) -> ModelChecked:
    r = int(getattr(model, "reduction_factor", 1))
    trial = Trial(
        model=model,
        info=voice,
        config=config,
        batch=batch_of(short_utterances(store), voice, config, r).to(precision.device),
        loss=build_loss(config, r).to(precision.device),
        made_up=False,
        half=None if precision.dtype is torch.float32 else precision.dtype,
    )
    return run_model_checks(trial, BEFORE_TRAINING, min(SECONDS, config.training.rank_timeout / 2))


def _said(checked: ModelChecked) -> str | None:
    """Print a line for each warning, and what was not looked at; give the line to refuse the run with, where
    there is an error."""
    for finding in checked.findings:
        if finding.severity == WARNING:
            _say(f"model: warning: {finding.what}: {finding.remedy}")
    if checked.unfinished:
        _say(f"model: not looked at, for which `ttsfast doctor --model` is: {', '.join(checked.unfinished)}")
    errors = [finding for finding in checked.findings if finding.severity == ERROR]
    if not errors:
        return None
    first, more = errors[0], f" ({len(errors) - 1} more errors)" if len(errors) > 1 else ""
    return (
        f"the model cannot become a voice: {first.what}{more}: {first.remedy}; `ttsfast doctor --model` has "
        "all of it, and training.preflight=false trains it all the same"
    )


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
