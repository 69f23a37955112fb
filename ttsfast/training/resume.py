"""A run's state, to and from a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ttsfast.config import ModelConfig
from ttsfast.errors import InputError
from ttsfast.models.checkpoint import (
    Checkpoint,
    best_checkpoint,
    checkpoint_folder,
    checkpoints,
    load_checkpoint,
)
from ttsfast.progress import console
from ttsfast.training.checkpoint import prune, record_best, save_checkpoint
from ttsfast.training.distributed.sharded_tensors import full_tensors, load_full_state_dict
from ttsfast.training.randomness import all_streams, seed_rank, set_all_streams
from ttsfast.training.weight_average import deployed_weights, put_back

if TYPE_CHECKING:
    from ttsfast.training.trainer import Trainer

_HOST_PARTS = ("loader", "plateau", "early", "scaler")
_WATCHES = ("plateau", "early")


def save_run(trainer: Trainer, folder: Path) -> None:
    """Write all of ``trainer`` that a resumed run needs to ``folder``: every rank tells, the first writes."""
    streams = trainer.ranks.all_gather_object(all_streams(trainer.device))
    optimizer_tensors, optimizer_rest = trainer.optimizers.pack()
    model = trainer.parallel.trained_model
    with deployed_weights(model, trainer.optimizers, trainer.average) as trained:
        weights = full_tensors(model.state_dict())
    training: dict[str, Tensor] = {
        **optimizer_tensors,
        **{f"trained.{name}": value for name, value in (trained or {}).items()},
    }
    for rank, own in enumerate(streams):
        training |= {f"{_stream_prefix(rank)}{name}": value for name, value in own.items()}
    for part, keeper in _tensor_parts(trainer).items():
        training |= {f"{part}.{name}": value for name, value in keeper.state_dict().items()}
    training = full_tensors(training)
    if not trainer.ranks.is_first:
        return
    state: dict[str, Any] = {
        "config": trainer.config.to_dict(),
        "store_fingerprint": trainer.store.fingerprint,
        "optimizer": optimizer_rest,
        "window": list(trainer.watch.window.losses),
        "unreported": trainer.watch.records.rows,
        "ranks": trainer.ranks.size,
        "steep_steps": trainer.watch.steep_steps,
        **{name: getattr(trainer, name).state_dict() for name in _HOST_PARTS},
    }
    save_checkpoint(
        folder, trainer.step, weights=weights, training=training, voice=trainer.voice.to_dict(), state=state
    )
    prune(trainer.run_folder, trainer.config.training.keep_checkpoints)


def restore_run(trainer: Trainer) -> bool:
    """Continue from the last checkpoint of the run folder; tell whether there was one.

    Raises:
        InputError: the checkpoint is damaged, or belongs to another model or store (what differs is said).
    """
    # Folders on a network may look different from different machines.
    found = trainer.ranks.broadcast_object(checkpoints(trainer.run_folder)[-1:])
    if not found:
        return False
    checkpoint = load_checkpoint(found[0])
    try:
        _restore(trainer, checkpoint)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        # Sealed, so written like this: by another program, or by hand.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{checkpoint.path}: its state is not one of this format ({reason}); "
            f"move {checkpoint.path.name} away to use the checkpoint before it"
        ) from error
    return True


def _restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    state, tensors = checkpoint.state, checkpoint.training
    _same_run(trainer, checkpoint)
    _same_batches(trainer, checkpoint)
    _say_what_changed(trainer, state)
    model = trainer.parallel.trained_model
    load_full_state_dict(model, checkpoint.weights)
    if trained := _part(tensors, "trained."):
        put_back(model, trained)
    trainer.optimizers.unpack(tensors, state["optimizer"])
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
            try:
                getattr(trainer, name).load_state_dict(state[name])
            except InputError as error:  # the loader's
                raise InputError(f"{checkpoint.path}: {error}") from error
    for name, keeper in _tensor_parts(trainer).items():
        keeper.load_state_dict(_part(tensors, f"{name}."))
    trainer.watch.window.losses.extend(state["window"])
    trainer.watch.records.rows = state["unreported"]
    trainer.watch.steep_steps = state["steep_steps"]
    trainer.step = checkpoint.step
    trainer.voice = replace(trainer.voice, stop_threshold=checkpoint.voice["stop_threshold"])
    if same_metric and trainer.ranks.is_first:
        _point_at_best(trainer, watched)
    rank = trainer.ranks.rank
    if own := _part(tensors, _stream_prefix(rank)):
        set_all_streams(own, trainer.device)
    else:
        seed_rank(trainer.config.training.seed, rank, trainer.step)


def _point_at_best(trainer: Trainer, metric: str) -> None:
    """What a kill between a checkpoint and the pointer to it left undone."""
    step = trainer.early.best_step
    folder = checkpoint_folder(trainer.run_folder, max(0, step))
    if folder.is_dir() and best_checkpoint(trainer.run_folder) != folder:
        record_best(trainer.run_folder, step, metric, trainer.early.best)


def _same_run(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Raise InputError when the checkpoint's model or store is another one."""
    ours = asdict(trainer.config.model)
    # A key that is younger than the checkpoint had its default.
    theirs = {**asdict(ModelConfig()), **checkpoint.state["config"]["model"]}
    differing = [
        f"model.{key} {theirs.get(key)!r} there, {ours[key]!r} here"
        for key in ours
        if ours[key] != theirs.get(key)
    ]
    here = {name: tuple(value.shape) for name, value in trainer.model.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in checkpoint.weights.items()}
    unlike = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if unlike and not differing:
        name = unlike[0]
        differing.append(
            f"{len(unlike)} weights of the model, such as {name}: {there.get(name, 'none')} there, "
            f"{here.get(name, 'none')} here"
        )
    if checkpoint.state["store_fingerprint"] != trainer.store.fingerprint:
        differing.append(f"the store {trainer.config.data.store} {_of_store(trainer, checkpoint)}")
    if differing:
        raise InputError(
            f"{checkpoint.path} does not fit this run: {'; '.join(differing)}; "
            "use another training.run_folder"
        )


def _of_store(trainer: Trainer, checkpoint: Checkpoint) -> str:
    """In what the store differs from the checkpoint's, as far as a voice tells."""
    ours = trainer.voice.to_dict()
    unlike = []
    for key, theirs in checkpoint.voice.items():
        if key in ("stop_threshold", "max_frames") or theirs == ours.get(key):
            continue
        values = ours.get(key)
        if isinstance(theirs, dict) and isinstance(values, dict):
            names = sorted(theirs.keys() | values.keys())
            unlike += [
                f"{key}.{name} {theirs.get(name)!r} there, {values.get(name)!r} here"
                for name in names
                if theirs.get(name) != values.get(name)
            ]
        elif key in ("symbols", "speakers"):
            unlike.append(f"{key} ({len(theirs)} there, {len(ours[key])} here)")
        else:
            unlike.append(key)
    return f"differs in {', '.join(unlike)}" if unlike else "holds other utterances or features"


def _same_batches(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Raise InputError when another number of ranks would take other batches than the run so far."""
    # Checkpoints from before there were ranks are of one.
    there, here = checkpoint.state.get("ranks", 1), trainer.ranks.size
    if there == here:
        return
    differing = []
    for key in ("batch_size", "frame_budget"):
        theirs, ours = (
            checkpoint.state["config"]["data"].get(key, 0) * there,
            getattr(trainer.config.data, key),
        )
        if theirs != ours * here:
            fitting = f"set data.{key}={theirs // here}" if theirs % here == 0 else "no whole number fits"
            differing.append(f"data.{key} times ranks was {theirs} and would be {ours * here} ({fitting})")
    if differing:
        raise InputError(
            f"{checkpoint.path} is of {there} ranks, this run has {here}, which must take the same batches: "
            f"{'; '.join(differing)}; or use {there} ranks"
        )


def _stream_prefix(rank: int) -> str:
    return f"rank{rank}.random." if rank else "random."


def _say_what_changed(trainer: Trainer, state: dict[str, Any]) -> None:
    """Other settings may change on the way, but not in silence."""
    ours, theirs = trainer.config.to_dict(), state["config"]
    changed = [
        f"{section}.{key} was {theirs[section][key]}, is {value}"
        for section in ("training", "data")
        for key, value in ours[section].items()
        if key in theirs[section] and theirs[section][key] != value
    ]
    if changed:
        console.print(f"resuming with other settings: {'; '.join(changed)}", markup=False)


def _tensor_parts(trainer: Trainer) -> dict[str, Any]:
    return {"loss": trainer.loss, "guard": trainer.watch.guard, "average": trainer.average}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
