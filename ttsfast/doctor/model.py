"""Is the model right: all checks of a model, on a made-up batch or on utterances of a store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ttsfast.config import DEFAULTS, Config
from ttsfast.data.store.store import Store
from ttsfast.devices import find_device
from ttsfast.doctor.diagnosis import Diagnosis
from ttsfast.doctor.model_checks import SLOW
from ttsfast.errors import InputError
from ttsfast.models.build import build_model
from ttsfast.models.checks.contract import check_model
from ttsfast.models.checks.limit import TimeUp, time_limit
from ttsfast.models.checks.run import FAST, run_model_checks
from ttsfast.models.checks.trial import (
    Trial,
    batch_of,
    made_up_utterances,
    made_up_voice,
    random_streams_kept,
    seed,
    short_utterances,
)
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.training.configure import configure
from ttsfast.training.setup import build_loss

SECONDS_TO_BUILD = 60.0
"""After which a factory is taken for one that hangs."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a model is tried on."""

    store: Path | None = None
    """Utterances of it; made-up ones when None."""
    settings: Sequence[str] = ()
    """YAML files and ``section.key=value``, as for training."""
    seconds_to_build: float = SECONDS_TO_BUILD


def examine_model(name: str, options: ModelOptions) -> Diagnosis:
    """Look at the model that ``name``, ``convtts`` or ``package.module:factory``, stands for.

    Raises:
        InputError: it cannot be made, does not end in time, or has not the methods and outputs that training
            needs; or a setting or the store cannot be read.
    """
    started = time.monotonic()
    trial = model_trial(name, options)
    size = sum(p.numel() for p in trial.model.parameters())
    source = "made-up utterances" if trial.made_up else f"utterances of {options.store}"
    checked = run_model_checks(trial, (*FAST, *SLOW))
    return Diagnosis(
        subject=name,
        kind="model",
        looked_at=f"{size:,} weights, {len(trial.batch.ids)} {source}",
        findings=checked.findings,
        passed=("contract", *checked.passed),
        not_run=(*checked.not_run, *checked.unfinished),
        seconds=time.monotonic() - started,
    )


def model_trial(name: str, options: ModelOptions) -> Trial:
    """The model, made, and what it is tried on; raises InputError as :func:`examine_model` does."""
    places = [*options.settings, *([] if options.store is None else [str(options.store)])]
    configured = configure(
        [*places, f"model.architecture={name}"], DEFAULTS if options.store is None else None
    )
    config = configured.config
    if options.store is None:
        info = made_up_voice(config.data.n_mels)
        utterances = made_up_utterances(info)
    else:
        store = Store.open(options.store)
        info, utterances = VoiceInfo.of_store(store), short_utterances(store)
    with random_streams_kept(find_device("cpu")):
        seed(config.training.seed)
        model = _built(config, info, options.seconds_to_build)
    r = int(getattr(model, "reduction_factor", 1))
    return Trial(
        model=model,
        info=info,
        config=config,
        batch=batch_of(utterances, info, config, r),
        loss=build_loss(config, r),
        made_up=options.store is None,
        make=lambda: build_model(config.model, info),
        half=torch.bfloat16,
    )


def _built(config: Config, info: VoiceInfo, seconds: float) -> nn.Module:
    """The model, with all that training asks of one."""
    try:
        with time_limit(seconds):
            model = build_model(config.model, info)
            check_model(model, info, config)
    except TimeUp as error:
        raise InputError(
            f"model.architecture={config.model.architecture}: not made, and tried once, within "
            f"{seconds:g} s; look for what it waits for"
        ) from error
    return model
