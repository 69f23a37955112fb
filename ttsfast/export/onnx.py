"""``ttsfast export``: a voice as one ONNX file that speaks without PyTorch.

The file is one graph from symbol ids to a mel. ConvTTS: the text encoder, then a ``Loop`` over decoder steps
with the convolutions' caches, the attention window and the stop decision inside. ParallelTTS: the text
encoder and its durations, then the decoder, without a loop. Its metadata hold all that a voice needs beside
its weights, and a seal over every byte. :mod:`ttsfast.models.exported` reads it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ttsfast import __version__
from ttsfast.errors import ExportError, InputError
from ttsfast.export.check import TOLERANCE, compare_speech, compare_steps
from ttsfast.export.graph import speaking_graph
from ttsfast.export.parallel_check import compare_durations
from ttsfast.export.parallel_graph import parallel_graph
from ttsfast.files import atomic_write, output_folder
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.exported import FORMAT, METADATA, SEAL, exported_model
from ttsfast.models.paralleltts import ParallelTTS
from ttsfast.models.voice import Voice

OLDEST_TORCH = "2.11.0a0"
"""What torch 2.6's exporter makes of the model, onnxruntime cannot run; versions between were not tried."""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it is from PyTorch."""

    path: Path
    bytes: int
    parameters: int
    texts: int
    frames: int
    """compared on the same frames: all, over all texts"""
    max_difference: float
    """of the normalised mels and the attention weights, where every step hears what PyTorch's heard"""
    free_running_frames: int
    """compared free-running: as far as PyTorch's own rounding leaves them certain"""
    free_running_difference: float
    """of the normalised mels there"""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "path": str(self.path)}


def export_voice(voice: Voice, path: Path) -> ExportReport:
    """Write ``voice`` to ``path`` and check the file against PyTorch with onnxruntime.

    Args:
        voice: with a ConvTTS or ParallelTTS as its model, on the CPU.
        path: ends in ``.onnx``; it appears only when the check has passed.

    Raises:
        InputError: another model, a missing package, or a path that cannot be written.
        ExportError: onnxruntime's mels differ by more than 1e-4 in normalised units, on the same frames or
            free-running (see :mod:`ttsfast.export.check` and :mod:`ttsfast.export.parallel_check`).
    """
    model = voice.model
    if not isinstance(model, (ConvTTS, ParallelTTS)):
        raise InputError(
            f"only ConvTTS and ParallelTTS are exported, and this voice's model is {type(model).__name__}; "
            "export it with torch.onnx"
        )
    if torch.__version__ < OLDEST_TORCH:
        raise InputError(f"export needs torch 2.11 or newer, and this is {torch.__version__}: upgrade torch")
    if path.suffix != ".onnx":
        raise InputError(f"{path}: name a file that ends in .onnx")
    onnx = import_onnx("export")
    output_folder(path.parent)
    texts = _own_texts(voice)
    if isinstance(model, ConvTTS):
        proto = speaking_graph(onnx, model, voice)
    else:
        proto = parallel_graph(onnx, model, voice)
    entries = {"format": FORMAT, "ttsfast": __version__, "n_symbols": model.symbols.num_embeddings}
    entries |= {"n_speakers": model.n_speakers, "reduction_factor": model.reduction_factor}
    entries["voice"] = voice.to_dict()
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(entries, ensure_ascii=False)})
    onnx.checker.check_model(proto)
    body = proto.SerializeToString()
    # Two serialised messages in a row are read as one: the seal needs no place inside what it seals.
    seal = onnx.ModelProto()
    values = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    onnx.helper.set_model_props(seal, {SEAL: json.dumps(values)})
    content = body + seal.SerializeToString()
    graph, info = exported_model(content, path)
    exported = Voice(model=graph, device=torch.device("cpu"), **vars(info))
    if isinstance(model, ConvTTS):
        steps, difference = compare_steps(onnx, content, path, voice, texts)
        frames, left_alone = compare_speech(voice, exported, texts)
    else:
        # No frame hears another: on the same frames and free-running are one.
        steps, difference = frames, left_alone = compare_durations(voice, exported, texts)
    for found, how in ((difference, "on the same frames"), (left_alone, "free-running")):
        if not found <= TOLERANCE:
            raise ExportError(
                f"{path}: onnxruntime's mels differ from PyTorch's by {found:.3g} in normalised units, "
                f"{how}: over {TOLERANCE:g}; nothing was written"
            )
    with atomic_write(path) as handle:
        handle.write(content)
    parameters = sum(p.numel() for p in model.parameters())
    return ExportReport(path, len(content), parameters, len(texts), steps, difference, frames, left_alone)


def import_onnx(command: str) -> ModuleType:
    """The package onnx; raises InputError where it, or what works with it, is missing."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{command} needs the package {error.name}: pip install 'ttsfast[onnx]'") from error
    return onnx


def _own_texts(voice: Voice) -> list[str]:
    """Texts of the voice's own symbols, of unlike lengths: enough to compare two computations."""
    characters = "".join(voice.symbols.characters)
    return [characters, characters[::-1], characters[: max(1, len(characters) // 3)]]
