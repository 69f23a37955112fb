"""A run's state, to and from a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ttsfast.config import ModelConfig
from ttsfast.errors import InputError
from ttsfast.progress import console
from ttsfast.training.checkpoint import (
    checkpoints,
    load_checkpoint,
    pack_optimizer,
    prune,
    save_checkpoint,
    unpack_optimizer,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ttsfast.training.trainer import Trainer

_HOST_PARTS = ("loader", "plateau", "early")
_WATCHES = ("plateau", "early")


def save_run(trainer: Trainer) -> Path:
    """Write all of ``trainer`` that a resumed run needs; return the checkpoint's folder."""
    optimizer_tensors, optimizer_rest = pack_optimizer(trainer.optimizer)
    training: dict[str, Tensor] = {
        **optimizer_tensors,
        **{f"loss.{name}": value for name, value in trainer.loss.state_dict().items()},
        **{f"guard.{name}": value for name, value in trainer.guard.state_dict().items()},
        "random.cpu": torch.get_rng_state(),
    }
    if trainer.precision.device.type == "cuda":
        training["random.cuda"] = torch.cuda.get_rng_state(trainer.precision.device)
    state: dict[str, Any] = {
        "config": trainer.config.to_dict(),
        "store_fingerprint": trainer.store.fingerprint,
        "optimizer": optimizer_rest,
        "scaler": trainer.scaler.state_dict(),
        "window": list(trainer.window.losses),
        "steep_steps": trainer.steep_steps,
        **{name: getattr(trainer, name).state_dict() for name in _HOST_PARTS},
    }
    folder = save_checkpoint(
        trainer.run_folder,
        trainer.step,
        weights=trainer.model.state_dict(),
        training=training,
        voice=trainer.voice.to_dict(),
        state=state,
    )
    prune(trainer.run_folder, trainer.config.training.keep_checkpoints)
    return folder


def restore_run(trainer: Trainer) -> bool:
    """Continue from the last checkpoint of the run folder; tell whether there was one.

    Raises:
        InputError: the checkpoint is damaged, or belongs to another model or store (what differs is said).
    """
    found = checkpoints(trainer.run_folder)
    if not found:
        return False
    checkpoint = load_checkpoint(found[-1])
    state, tensors = checkpoint.state, checkpoint.training
    _same_model(trainer, state, str(checkpoint.path))
    trainer.model.load_state_dict(checkpoint.weights)
    unpack_optimizer(trainer.optimizer, tensors, state["optimizer"])
    if state["scaler"] and trainer.scaler.is_enabled():
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.loss.load_state_dict(_part(tensors, "loss."))
    trainer.guard.load_state_dict(_part(tensors, "guard."))
    watched = state["config"]["training"]["monitor"]
    same_metric = watched == trainer.config.training.monitor
    if not same_metric:
        console.print(
            f"training.monitor was {watched} and is {trainer.config.training.monitor}: "
            "best value and patience start anew",
            markup=False,
        )
    for name in _HOST_PARTS:
        if same_metric or name not in _WATCHES:
            getattr(trainer, name).load_state_dict(state[name])
    trainer.window.losses.extend(state["window"])
    trainer.steep_steps = state["steep_steps"]
    trainer.step = checkpoint.step
    trainer.voice = replace(trainer.voice, stop_threshold=checkpoint.voice["stop_threshold"])
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and trainer.precision.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], trainer.precision.device)
    return True


def _same_model(trainer: Trainer, state: dict[str, Any], where: str) -> None:
    """Raise InputError when the checkpoint's model or store is another one."""
    ours = asdict(trainer.config.model)
    # A key that is younger than the checkpoint had its default.
    theirs = {**asdict(ModelConfig()), **state["config"]["model"]}
    differing = [
        f"model.{key} {theirs.get(key)!r} there, {ours[key]!r} here"
        for key in ours
        if ours[key] != theirs.get(key)
    ]
    if state["store_fingerprint"] != trainer.store.fingerprint:
        differing.append(f"the store {trainer.config.data.store} holds other features")
    if differing:
        raise InputError(
            f"{where} does not fit this run: {'; '.join(differing)}; use another training.run_folder"
        )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
