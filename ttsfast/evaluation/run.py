"""Evaluating a finished run: its best voice on the store it was trained on, written where people look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ttsfast.config import Config, ModelConfig, config_from_dict
from ttsfast.data.corpus.split import VALIDATION
from ttsfast.data.store.store import Store, not_there
from ttsfast.devices import find_device
from ttsfast.errors import InputError
from ttsfast.evaluation.environment import environment
from ttsfast.evaluation.evaluate import evaluate, reported_split
from ttsfast.evaluation.log import read_log
from ttsfast.evaluation.report import write_report
from ttsfast.evaluation.result import Evaluation
from ttsfast.evaluation.speech_recognition import Recogniser
from ttsfast.files import output_folder
from ttsfast.models.build import build_model, require_trust
from ttsfast.models.checkpoint import find_checkpoint, load_checkpoint
from ttsfast.models.voice import Voice
from ttsfast.progress import console
from ttsfast.synthesis.vocoder import load_vocoder

UNTRAINED_SEED = 0


def evaluate_run(
    run_folder: Path,
    *,
    output: Path | None = None,
    store: Path | str | None = None,
    corpus: Path | None = None,
    split: str | None = None,
    asr: str | None = None,
    vocoder: Path | None = None,
    assume_contract: bool = False,
    device: str = "cpu",
    title: str | None = None,
    trust_code: bool = False,
) -> Evaluation:
    """Evaluate a run's best checkpoint and write ``metrics.json`` and ``report.html``.

    Args:
        run_folder: a run, or one of its checkpoint folders.
        output: where to write; the run folder when None.
        store: features to measure on, in a folder or at an address; the run's own when None.
        corpus: the recordings, to play them in the report, and to hear the words of; for the latter it is
            where the store says when None.
        split: ``"test"``, ``"validation"`` or ``"train"``. When None, the test split; a store that has none
            is measured on validation, and that is said.
        asr: a Whisper model to hear the words with, as ``Recogniser`` takes it.
        vocoder: what makes sound of mels, a file as ``load_vocoder`` takes it; Griffin-Lim when None.
        assume_contract: take a vocoder that names no mel contract as one for the voice's.
        device: where to compute.
        title: of the report.
        trust_code: import the module of a model that is not built in.

    Raises:
        InputError: no checkpoint, no store, or one that does not fit the voice; or a vocoder or a recogniser
            that cannot be had; or a model that is not built in, without ``trust_code``.
    """
    checkpoint = find_checkpoint(run_folder, prefer_best=True)
    state = load_checkpoint(checkpoint).state
    config = config_from_dict(state["config"])
    run_folder = checkpoint.parent.parent
    require_trust(config.model, checkpoint, trust_code=trust_code)
    place = store or _own_store(config, run_folder)
    log = read_log(run_folder)
    output = output_folder(output or run_folder)
    voice = Voice.load(checkpoint, find_device(device), trust_code=trust_code)
    made_by = load_vocoder(vocoder, voice.contract, assume_contract=assume_contract, device=voice.device)
    recogniser = None if asr is None else Recogniser(asr, voice.frontend.language, voice.device)
    opened = Store.open(place)
    if split is None and reported_split(opened) == VALIDATION:
        console.print(
            f"{opened.path}: has no test split (see `ttsfast prepare --help`), so the figures are of the "
            "validation utterances, by which the checkpoint was chosen",
            markup=False,
        )
    evaluation = evaluate(
        voice,
        opened,
        split,
        untrained=_untrained(config.model, voice),
        vocoder=made_by,
        recogniser=recogniser,
        corpus=corpus,
    )
    evaluation.save(output / "metrics.json")
    write_report(
        output,
        evaluation,
        title=title or f"Voice {run_folder.name}, step {state['step']}",
        log=log,
        config=config.to_dict(),
        environment=_flat(environment()),
    )
    return evaluation


def _own_store(config: Config, run_folder: Path) -> str:
    """What the run was trained on; raises InputError, in words for a run that was moved, where it is gone."""
    if (place := not_there(config.data.store)) is not None:
        raise InputError(
            f"{run_folder}: its data.store={place} is not there; if the run or the store was moved, name the "
            "store with --store"
        )
    return config.data.store


def _untrained(config: ModelConfig, voice: Voice) -> nn.Module:
    """The voice's model with fresh weights, the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        return build_model(config, voice)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as one table for the report."""
    rows: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            rows |= _flat(value, f"{prefix}{name} ")
        else:
            rows[f"{prefix}{name}"] = value
    return rows
