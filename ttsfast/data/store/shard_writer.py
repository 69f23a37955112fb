"""Writing a shard's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ttsfast.data.store.shard import TYPES, Shard, ShardArrays, describe
from ttsfast.data.store.shard_header import sealed
from ttsfast.files import atomic_write


def write_shard(path: Path, arrays: ShardArrays, about: Mapping[str, Any]) -> Shard:
    """Write a shard atomically; ``about`` is its metadata, plain values, sealed against change."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(array, TYPES[name]) for name, array in arrays.named().items()}
    # One metadata key: the library keeps several in no fixed order, and the bytes must not vary.
    content = save(tensors, metadata={"ttsfast": sealed(about, tensors)})
    with atomic_write(path) as handle:
        handle.write(content)
    return describe(path.name, content, len(arrays.crc32c), len(tensors["mel"]), len(tensors["text"]))
