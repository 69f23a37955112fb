"""``ttsfast export --output voice.safetensors``: a run as one file, for PyTorch and for ``ttsfast``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save

from ttsfast import __version__
from ttsfast.config import config_from_dict
from ttsfast.files import atomic_write, check_output_file
from ttsfast.models.checkpoint import find_checkpoint, load_checkpoint
from ttsfast.models.single_file import ENTRIES, FORMAT, SEAL, seal_of
from ttsfast.models.voice_info import VoiceInfo


@dataclass(frozen=True)
class SingleFileReport:
    """What was written."""

    path: Path
    bytes: int
    parameters: int
    step: int
    licence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "path": str(self.path)}


def export_single_file(source: Path, path: Path) -> SingleFileReport:
    """Write the best checkpoint of a run, or a checkpoint, to ``path`` without what only training needs.

    Any model can be written: what it is built by, a configuration, is in the file, and nothing of it is run.

    Raises:
        InputError: there is no checkpoint, or it is damaged; or the file cannot be written.
    """
    check_output_file(path)
    checkpoint = load_checkpoint(find_checkpoint(source, prefer_best=True))
    info = VoiceInfo.from_dict(checkpoint.voice, str(checkpoint.path / "voice.json"))
    model = config_from_dict(checkpoint.state.get("config") or {}).model
    entries = {"format": FORMAT, "ttsfast": __version__, "step": checkpoint.step}
    entries |= {"model": asdict(model), "voice": info.to_dict()}
    metadata = {ENTRIES: json.dumps(entries, ensure_ascii=False), "format": "pt"}
    if info.licence:
        # Beside the rest, where who knows nothing of ttsfast sees it.
        metadata["licence"] = info.licence
    weights = {name: value.contiguous() for name, value in checkpoint.weights.items()}
    metadata[SEAL] = seal_of(save(weights, metadata))
    content = save(weights, metadata)
    with atomic_write(path) as handle:
        handle.write(content)
    parameters = sum(value.numel() for value in weights.values())
    return SingleFileReport(path, len(content), parameters, checkpoint.step, info.licence)
