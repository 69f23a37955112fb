"""A run to and from a checkpoint: one loop over named components, each of which owns its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from ttsfast.config import Config, config_from_dict
from ttsfast.data.loading.plan_loader import PlanLoader
from ttsfast.data.store.store import Store
from ttsfast.errors import InputError
from ttsfast.losses.module import TTSLoss
from ttsfast.models.checkpoint import (
    Checkpoint,
    best_checkpoint,
    checkpoint_folder,
    checkpoints,
    find_checkpoint,
    load_checkpoint,
)
from ttsfast.models.voice_info import VoiceInfo
from ttsfast.progress import console
from ttsfast.terms.spec import TERMS
from ttsfast.training.checkpoint import prune, record_best, save_checkpoint
from ttsfast.training.distributed.process_group import ProcessGroup
from ttsfast.training.distributed.sharded_tensors import full_tensors, load_full_state_dict
from ttsfast.training.plateau import EarlyStopping
from ttsfast.training.rest_of_epoch import resumed_place
from ttsfast.training.weight_average import WeightAverage


class Stateful(Protocol):
    """A component of a run. Its state is flat: tensors, and values that JSON can hold, by name."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; every rank calls it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""


class LossState:
    """The loss as a component: what it keeps for every term is kept by the term's name.

    So a term that a checkpoint does not know begins as in a new run, and no order is written down.
    """

    def __init__(self, loss: TTSLoss) -> None:
        self._loss = loss

    def state_dict(self) -> dict[str, Tensor]:
        """Vectors over terms as ``NAME.TERM``, the rest as it is."""
        state: dict[str, Tensor] = {}
        for name, value in self._loss.state_dict().items():
            if value.dim():
                state |= {f"{name}.{term}": value[i] for i, term in enumerate(TERMS)}
            else:
                state[name] = value
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from :meth:`state_dict`."""
        known = {name.rpartition(".")[2] for name in state}.intersection(TERMS)
        for name, value in self._loss.state_dict().items():
            if not value.dim():
                value.copy_(state[name])
                continue
            for i, term in enumerate(TERMS):
                if term in known:
                    value[i] = state[f"{name}.{term}"]


class Checkpointer:
    """Writes and reads the checkpoints of one run.

    Args:
        components: by the names under which a checkpoint holds them.
        model: what is trained.
        average: puts the weights to use in the place of the trained ones.
        store, config: of the run.
        ranks: every one tells what it holds, the first writes.
    """

    def __init__(
        self,
        components: Mapping[str, Stateful],
        model: nn.Module,
        average: WeightAverage,
        store: Store,
        config: Config,
        ranks: ProcessGroup,
    ) -> None:
        self.components, self._model, self._average = components, model, average
        self._store, self._config, self._ranks = store, config, ranks

    def save(self, folder: Path, step: int, voice: VoiceInfo) -> None:
        """Write to ``folder`` all that a run resumed at ``step`` needs."""
        tensors: dict[str, Tensor] = {}
        values: dict[str, dict[str, Any]] = {}
        for name, component in self.components.items():
            values[name] = {}
            for key, value in component.state_dict().items():
                if isinstance(value, Tensor):
                    tensors[f"{name}.{key}"] = value
                else:
                    values[name][key] = value
        with self._average.deployed():
            weights = full_tensors(self._model.state_dict())
        tensors = full_tensors(tensors)
        if not self._ranks.is_first:
            return
        state = {
            "config": self._config.to_dict(),
            "store_fingerprint": self._store.fingerprint,
            "ranks": self._ranks.size,
            "components": values,
        }
        save_checkpoint(folder, step, weights=weights, training=tensors, voice=voice.to_dict(), state=state)
        prune(folder.parent.parent, self._config.training.keep_checkpoints)

    def restore(self, run_folder: Path, voice: VoiceInfo) -> Checkpoint | None:
        """Give model and components what the last checkpoint of ``run_folder`` holds, where there is one.

        Raises:
            InputError: it is of another model, store or batch (what differs is said), or it is damaged.
        """
        # Folders on a network may look different from different machines.
        found = self._ranks.broadcast_object(checkpoints(run_folder)[-1:])
        if not found:
            return None
        checkpoint = load_checkpoint(found[0])
        try:
            _check_same_run(checkpoint, self._model, voice, self._store, self._config)
            _check_same_batches(checkpoint, self._config, self._ranks.size)
            states = dict(checkpoint.state["components"])
            loader, r = self.components["loader"], int(getattr(self._model, "reduction_factor", 1))
            assert isinstance(loader, PlanLoader)
            utterances = self._utterances_at(checkpoint)
            states["loader"] = resumed_place(checkpoint, self._store, utterances, loader.plan, r)
            _say_what_changed(checkpoint, self._config)
            anew = self._say_what_grew(checkpoint)
            load_full_state_dict(self._model, checkpoint.weights)
            for name, component in self.components.items():
                if name in anew:
                    continue
                prefix = f"{name}."
                tensors = {
                    key.removeprefix(prefix): value
                    for key, value in checkpoint.training.items()
                    if key.startswith(prefix)
                }
                component.load_state_dict({**states[name], **tensors})
        except InputError as error:
            raise InputError(f"{checkpoint.path}: {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            # Sealed, so written like this: by another program, or by hand.
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(
                f"{checkpoint.path}: its state is not one of this format ({reason}); "
                f"move {checkpoint.path.name} away to use the checkpoint before it"
            ) from error
        return checkpoint

    def _utterances_at(self, checkpoint: Checkpoint) -> int:
        """How many utterances the store had, the first ones, when the checkpoint was written."""
        return self._store.manifest.utterances_at(checkpoint.state["store_fingerprint"]) or 0

    def _say_what_grew(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Say what was appended to the store, and tell the components that begin anew with it."""
        grown = self._store.entries.split[self._utterances_at(checkpoint) :]
        if not grown:
            return ()
        held_out = grown.count("validation")
        again = f"; best value and patience start anew with the {held_out} to validate on" if held_out else ""
        console.print(
            f"{self._store.path}: {len(grown)} utterances were appended since step {checkpoint.step}, "
            f"{grown.count('train')} of them to train on{again}",
            markup=False,
        )
        return ("early_stopping", "plateau") if held_out else ()


def refuse_used_run_folder(run_folder: Path, ranks: ProcessGroup) -> None:
    """Raise InputError where there are checkpoints that nobody asked to continue from."""
    if ranks.broadcast_object(bool(checkpoints(run_folder))):
        raise InputError(
            f"{run_folder}: holds a run already; add --resume to continue it, "
            "or set another training.run_folder"
        )


def refuse_overtaken(run_folder: Path, step: int, ranks: ProcessGroup) -> None:
    """Raise InputError where another trainer has taken a run beyond the ``step`` that it is to go on from."""
    found = ranks.broadcast_object(checkpoints(run_folder)[-1:])
    if found and int(found[0].name[5:13]) > step:
        raise InputError(
            f"{run_folder}: another trainer has left {found[0].name} there since this one looked; start "
            "again with --resume, or set another training.run_folder"
        )


def point_at_best(run_folder: Path, early_stopping: EarlyStopping) -> None:
    """Do what a kill between a checkpoint and the pointer to it left undone."""
    folder = checkpoint_folder(run_folder, max(0, early_stopping.best_step))
    if folder.is_dir() and best_checkpoint(run_folder) != folder:
        record_best(run_folder, early_stopping.best_step, early_stopping.metric, early_stopping.best)


def checkpoint_to_use(config: Config, ranks: ProcessGroup) -> Checkpoint:
    """What a finished run leaves: the best checkpoint where it is asked for, else the last."""
    run_folder = Path(config.training.run_folder)
    prefer_best = config.training.early_stopping_restore_best_weights
    # Folders on a network may look different from different machines.
    found = [find_checkpoint(run_folder, prefer_best=prefer_best)] if ranks.is_first else []
    (path,) = ranks.broadcast_object(found)
    return load_checkpoint(path)


def _check_same_run(
    checkpoint: Checkpoint, model: nn.Module, voice: VoiceInfo, store: Store, config: Config
) -> None:
    """Raise InputError when the checkpoint's model or store is another one."""
    grown = store.manifest.utterances_at(checkpoint.state["store_fingerprint"])
    added = [name for name in voice.speakers if name not in checkpoint.voice["speakers"]]
    if grown is not None and added:
        raise InputError(
            f"the store {config.data.store} has gained the speakers {', '.join(added[:5])}, for whom this "
            "model has no place; begin a new run in another training.run_folder, with --from and this one"
        )
    # A key that is newer than the checkpoint had its default there.
    ours, theirs = asdict(config.model), asdict(config_from_dict(checkpoint.state["config"]).model)
    differing = [
        f"model.{key} {theirs[key]!r} there, {ours[key]!r} here" for key in ours if ours[key] != theirs[key]
    ]
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in checkpoint.weights.items()}
    unlike = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if unlike and not differing:
        name = unlike[0]
        differing.append(
            f"{len(unlike)} weights of the model, such as {name}: {there.get(name, 'none')} there, "
            f"{here.get(name, 'none')} here"
        )
    if grown is None:
        differing.append(f"the store {config.data.store} {_difference_of_stores(checkpoint.voice, voice)}")
    if differing:
        raise InputError(f"does not fit this run: {'; '.join(differing)}; use another training.run_folder")


def _difference_of_stores(theirs: Mapping[str, Any], voice: VoiceInfo) -> str:
    """In what the store differs from the checkpoint's, as far as a voice tells."""
    ours = voice.to_dict()
    unlike = []
    for key, value in theirs.items():
        if key in ("stop_threshold", "max_frames") or value == ours.get(key):
            continue
        own = ours.get(key)
        if isinstance(value, dict) and isinstance(own, dict):
            unlike += [
                f"{key}.{name} {value.get(name)!r} there, {own.get(name)!r} here"
                for name in sorted(value.keys() | own.keys())
                if value.get(name) != own.get(name)
            ]
        elif key in ("symbols", "speakers"):
            unlike.append(f"{key} ({len(value)} there, {len(ours[key])} here)")
        else:
            unlike.append(key)
    return f"differs in {', '.join(unlike)}" if unlike else "holds other utterances or features"


def _check_same_batches(checkpoint: Checkpoint, config: Config, ranks: int) -> None:
    """Raise InputError when another number of ranks would take other batches than the run so far."""
    before = checkpoint.state["ranks"]
    if before == ranks:
        return
    differing = []
    for key in ("batch_size", "frame_budget"):
        theirs, ours = checkpoint.state["config"]["data"][key] * before, getattr(config.data, key)
        if theirs != ours * ranks:
            fitting = f"set data.{key}={theirs // ranks}" if theirs % ranks == 0 else "no whole number fits"
            differing.append(f"data.{key} times ranks was {theirs} and would be {ours * ranks} ({fitting})")
    if differing:
        raise InputError(
            f"is of {before} ranks, this run has {ranks}, which must take the same batches: "
            f"{'; '.join(differing)}; or use {before} ranks"
        )


def _say_what_changed(checkpoint: Checkpoint, config: Config) -> None:
    """Other settings may change on the way, but not in silence."""
    ours, theirs = config.to_dict(), checkpoint.state["config"]
    changed = [
        f"{section}.{key} was {theirs[section][key]}, is {value}"
        for section in ("training", "data")
        for key, value in ours[section].items()
        if key in theirs[section] and theirs[section][key] != value
    ]
    if changed:
        console.print(f"resuming with other settings: {'; '.join(changed)}", markup=False)
    if theirs["training"]["monitor"] != ours["training"]["monitor"]:
        console.print("training.monitor is another: best value and patience start anew", markup=False)
