"""That all ranks are about to train the same model, on the same data, into the same folder."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ttsfast.config import Config
from ttsfast.errors import InputError
from ttsfast.files import output_folder
from ttsfast.training.distributed.process_group import ProcessGroup

MAY_DIFFER = {
    "training.run_folder",
    "training.start_from",
    "data.store",
    "data.num_workers",
    "data.pin_memory",
    "data.prefetch_to_gpu",
    "data.enable_memory_mapping",
    "data.cache_verification",
    "data.corpus_on_device",
}
"""Settings that say where things are and how they are read, not what is trained."""
SECONDS_FOR_A_FILE = 30.0
"""How long a file system over a network may take to show what another machine has written."""


def check_consistency(
    ranks: ProcessGroup, config: Config, store_fingerprint: str, weights: Mapping[str, Tensor]
) -> None:
    """Raise InputError, the same on all ranks, where what they are to train differs: it is said in what.

    Args:
        ranks: the processes to compare.
        config: this rank's.
        store_fingerprint: of the store that it reads.
        weights: the model's ``state_dict``, of which names, shapes and types are compared.
    """
    if ranks.size == 1:
        return
    described = ranks.all_gather_object(_describe(config, store_fingerprint, weights))
    for rank, theirs in enumerate(described):
        differing = [
            f"{key} is {theirs.get(key)!r} there and {described[0].get(key)!r} on rank 0"
            for key in {**described[0], **theirs}
            if theirs.get(key) != described[0].get(key)
        ]
        if differing:
            raise InputError(
                f"rank {rank} was started to train something else: {'; '.join(differing)}; "
                "give every rank the same configuration, store, model and versions"
            )


def check_run_folder(run_folder: Path, ranks: ProcessGroup) -> None:
    """Raise InputError where a rank does not see the files that the first one writes; it makes the folder."""
    if ranks.size == 1:
        return
    if ranks.is_first:
        output_folder(run_folder)
    probe = run_folder / ranks.broadcast_object(f".seen-by-all-{uuid.uuid4().hex}")
    try:
        if ranks.is_first:
            probe.touch()
        ranks.barrier()
        unseeing = [str(rank) for rank, sees in enumerate(ranks.all_gather_object(_sees(probe))) if not sees]
    finally:
        if ranks.is_first:
            probe.unlink(missing_ok=True)
    if unseeing:
        raise InputError(
            f"{run_folder}: rank {', '.join(unseeing)} does not see what rank 0 writes there: set "
            "training.run_folder to a folder that all machines share"
        )


def _sees(path: Path) -> bool:
    until = time.monotonic() + SECONDS_FOR_A_FILE
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _describe(config: Config, store_fingerprint: str, weights: Mapping[str, Tensor]) -> dict[str, object]:
    settings = {
        f"{section}.{key}": value
        for section, values in config.to_dict().items()
        for key, value in values.items()
    }
    shapes = [(name, tuple(value.shape), str(value.dtype)) for name, value in weights.items()]
    return {
        **{key: value for key, value in settings.items() if key not in MAY_DIFFER},
        "the store's fingerprint": store_fingerprint,
        "the model": f"{len(shapes)} tensors, {hashlib.sha256(repr(shapes).encode()).hexdigest()[:8]}",
        "torch": torch.__version__,
    }
