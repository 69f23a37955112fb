"""Checkpoints, found and read: folders that hold no pickle, and say when they are damaged.

run/checkpoints/step-00002000/weights.safetensors    the model to use
                              training.safetensors   a run's components, by name: tensors as COMPONENT.KEY
                              voice.json             what turns text into a waveform with the model
                              state.json             step, config, the components' other values; sizes and
                                                     hashes of the other files
run/checkpoints/best.json                            which step was the best, and its metric

``step-00002000-unvalidated`` is what SIGTERM left before the validation of that step was over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ttsfast.errors import InputError
from ttsfast.files import file_sha256

FORMAT = 3
UNVALIDATED = "-unvalidated"
PAYLOAD = ("weights.safetensors", "training.safetensors", "voice.json")


@dataclass
class Checkpoint:
    """What one checkpoint folder holds."""

    path: Path
    weights: dict[str, Tensor]
    training: dict[str, Tensor]
    voice: dict[str, Any]
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return int(self.state["step"])


def checkpoint_folder(run_folder: Path, step: int, *, unvalidated: bool = False) -> Path:
    """Where the checkpoint of ``step`` lives."""
    return run_folder / "checkpoints" / f"step-{step:08d}{UNVALIDATED if unvalidated else ''}"


def read_state(path: Path) -> dict[str, Any]:
    """What ``state.json`` of a checkpoint folder holds, its other files unread.

    Raises:
        InputError: it is missing, damaged or of another format version.
    """
    remedy = _remedy(path)
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        found = state.get("format"), state.pop("seal")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path / 'state.json'}: not readable ({error!r}); {remedy}") from error
    if found[0] != FORMAT:
        raise InputError(
            f"{path}: checkpoint format {found[0]!r}, this version reads {FORMAT}; "
            "use the version of ttsfast that wrote it, or train anew"
        )
    if found[1] != seal_of(state):
        raise InputError(f"{path / 'state.json'}: damaged; {remedy}")
    return state


def _remedy(path: Path) -> str:
    return f"move {path.name} away to use the checkpoint before it"


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        InputError: a file is missing, of another size, of another hash, or of another format version.
    """
    state, remedy = read_state(path), _remedy(path)
    files = state.get("files")
    for name in PAYLOAD:
        sealed = files.get(name) if isinstance(files, dict) else None
        if not (path / name).is_file() or file_fingerprint(path / name) != sealed:
            raise InputError(f"{path / name}: missing or damaged; {remedy}")
    try:
        weights, training = (load_file(path / f"{name}.safetensors") for name in ("weights", "training"))
        voice = json.loads((path / "voice.json").read_text(encoding="utf-8"))
        int(state["step"])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({error!r}); {remedy}") from error
    return Checkpoint(path, weights, training, voice, state)


def checkpoints(run_folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    pattern = "step-" + "[0-9]" * 8
    folders = [
        folder
        for ending in ("", UNVALIDATED)
        for folder in (run_folder / "checkpoints").glob(pattern + ending)
        if folder.is_dir()
    ]
    # The validated one of a step is the later one.
    return sorted(folders, key=lambda folder: (folder.name[:13], not folder.name.endswith(UNVALIDATED)))


def best_checkpoint(run_folder: Path) -> Path | None:
    """The checkpoint with the best watched metric, if one was recorded and is still there."""
    pointer = run_folder / "checkpoints" / "best.json"
    if not pointer.is_file():
        return None
    try:
        path = checkpoint_folder(run_folder, int(json.loads(pointer.read_text(encoding="utf-8"))["step"]))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(
            f"{pointer}: not readable ({error}); delete it to use the last checkpoint"
        ) from error
    return path if path.is_dir() else None


def find_checkpoint(path: Path, *, prefer_best: bool) -> Path:
    """A checkpoint from a run folder or a checkpoint folder.

    Raises:
        InputError: there is none.
    """
    if (path / "state.json").is_file():
        return path
    found = checkpoints(path)
    if not found:
        raise InputError(f"{path}: no checkpoint there; give a run folder or a checkpoint folder")
    best = best_checkpoint(path) if prefer_best else None
    return best or found[-1]


def seal_of(body: Mapping[str, Any]) -> str:
    """A hash of the state's values, however they are spaced in the file."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def file_fingerprint(path: Path) -> dict[str, Any]:
    """A file's size in bytes and the hash of its content, as ``state.json`` holds them."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
