"""Writing checkpoints: each appears by one rename, or not at all, and those before it are as they were."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ttsfast.config import TrainingConfig
from ttsfast.files import atomic_write, fsync_folder, naming
from ttsfast.models.checkpoint import FORMAT, PAYLOAD, best_checkpoint, checkpoints, file_fingerprint, seal_of

KEPT = "earlier checkpoints are as they were: make room, or let it be written to, and --resume from the last"


def save_checkpoint(
    final: Path,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    training: Mapping[str, Tensor],
    voice: Mapping[str, Any],
    state: Mapping[str, Any],
) -> Path:
    """Write a checkpoint beside the others and publish it at ``final`` by one rename; return that folder.

    Raises:
        OSError: it cannot be written, as on a full disk; the earlier checkpoints are as they were.
    """
    with naming(final, KEPT):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{final.name}.tmp")
        _delete(temporary)
        temporary.mkdir()
        try:
            _fill(temporary, step, {"weights": weights, "training": training}, voice, state)
            temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_folder(final.parent)
    return final


def _fill(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    voice: Mapping[str, Any],
    state: Mapping[str, Any],
) -> None:
    """All files of a checkpoint, on the disk before this returns."""
    for name, part in tensors.items():
        # safetensors refuses shared and strided storage: every entry becomes its own copy.
        own = {key: value.detach().cpu().contiguous().clone() for key, value in part.items()}
        _save_tensors(own, folder / f"{name}.safetensors")
    (folder / "voice.json").write_text(json.dumps(voice, ensure_ascii=False), encoding="utf-8")
    files = {name: file_fingerprint(folder / name) for name in PAYLOAD}
    body = {"format": FORMAT, "step": step, "files": files, **state}
    text = json.dumps({**body, "seal": seal_of(body)}, indent=1, ensure_ascii=False)
    (folder / "state.json").write_text(text, encoding="utf-8")
    for file in folder.iterdir():
        _fsync_file(file)
    fsync_folder(folder)


def bytes_on_disk(model: nn.Module, training: TrainingConfig) -> int:
    """What all checkpoints of a run take together: those kept, the best, and one being written."""
    weights = sum(value.nbytes for value in model.state_dict().values() if isinstance(value, Tensor))
    count = min(training.keep_checkpoints, training.max_steps // training.save_step) + 2
    # The weights to use, two moments of each, and with an average the trained ones beside.
    return weights * (3 + (training.ema_decay > 0)) * count


def record_best(run_folder: Path, step: int, metric: str, value: float) -> None:
    """Point at the best checkpoint."""
    path = run_folder / "checkpoints" / "best.json"
    with naming(path, KEPT), atomic_write(path) as handle:
        handle.write(json.dumps({"step": step, "metric": metric, "value": value}).encode())


def prune(run_folder: Path, keep: int) -> None:
    """Delete all but the last ``keep`` checkpoints and the best one, and what a kill left half-done."""
    best = best_checkpoint(run_folder)
    for path in checkpoints(run_folder)[:-keep]:
        if path != best:
            _retire(path)
    for leftover in (run_folder / "checkpoints").glob(".step-*"):
        _delete(leftover)


def _retire(path: Path) -> None:
    """Delete a checkpoint; a half-deleted folder never looks like one."""
    doomed = path.with_name(f".{path.name}.old")
    _delete(doomed)
    path.rename(doomed)
    _delete(doomed)


def _delete(path: Path) -> None:
    """A folder with what is in it, or a link, whose target is somebody else's."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        # What the library raises for a full disk too.
        raise OSError(f"{path.name}: {error}") from error


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
