"""``ttsfast export``: a ConvTTS voice as one ONNX file that speaks without PyTorch.

The file is one graph from symbol ids to a mel: the text encoder, then a ``Loop`` over decoder steps with the
convolutions' caches, the attention window and the stop decision inside. Its metadata hold all that a voice
needs beside its weights, and a seal over every byte. :mod:`ttsfast.models.exported` reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ttsfast import __version__
from ttsfast.errors import ExportError, InputError
from ttsfast.export_graph import speaking_graph
from ttsfast.files import atomic_write, output_folder
from ttsfast.models.convtts import ConvTTS
from ttsfast.models.exported import FORMAT, METADATA, SEAL, exported_voice
from ttsfast.models.interface import FreeRunning

if TYPE_CHECKING:
    from ttsfast.models.voice import Voice

TOLERANCE = 1e-4


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it is from PyTorch."""

    path: Path
    bytes: int
    parameters: int
    texts: int
    frames: int
    """compared, over all texts"""
    max_difference: float
    """of the normalised mels, free-running, where PyTorch's own rounding leaves them certain"""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "path": str(self.path)}


def export_voice(voice: Voice, path: Path) -> ExportReport:
    """Write ``voice`` to ``path`` and check the file against PyTorch with onnxruntime.

    Args:
        voice: with a ConvTTS as its model, on the CPU.
        path: ends in ``.onnx``; it appears only when the check has passed.

    Raises:
        InputError: another model, a missing package, or a path that cannot be written.
        ExportError: onnxruntime's mels differ by more than :data:`TOLERANCE` in normalised units.
    """
    if not isinstance(voice.model, ConvTTS):
        raise InputError(
            f"only ConvTTS is exported, and this voice's model is {type(voice.model).__name__}; "
            "export it with torch.onnx"
        )
    if path.suffix != ".onnx":
        raise InputError(f"{path}: name a file that ends in .onnx")
    onnx = _import_onnx()
    output_folder(path.parent)
    texts = _own_texts(voice)
    proto = speaking_graph(onnx, voice.model, voice)
    entries = {"format": FORMAT, "ttsfast": __version__, "n_symbols": voice.model.symbols.num_embeddings}
    entries |= {"n_speakers": voice.model.n_speakers, "reduction_factor": voice.model.reduction_factor}
    entries["voice"] = voice.to_dict()
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(entries, ensure_ascii=False)})
    onnx.checker.check_model(proto)
    body = proto.SerializeToString()
    # Two serialised messages in a row are read as one: the seal needs no place inside what it seals.
    seal = onnx.ModelProto()
    values = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    onnx.helper.set_model_props(seal, {SEAL: json.dumps(values)})
    content = body + seal.SerializeToString()
    frames, difference = _compare(voice, exported_voice(content, path), texts)
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{path}: onnxruntime's mels differ from PyTorch's by {difference:.3g} in normalised units, "
            f"more than {TOLERANCE:g}; nothing was written"
        )
    with atomic_write(path) as handle:
        handle.write(content)
    parameters = sum(p.numel() for p in voice.model.parameters())
    return ExportReport(path, len(content), parameters, len(texts), frames, difference)


def _import_onnx() -> ModuleType:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"export needs the package {error.name}: pip install 'ttsfast[onnx]'") from error
    return onnx


def _own_texts(voice: Voice) -> list[str]:
    """Texts of the voice's own symbols, of unlike lengths: enough to compare two computations."""
    characters = "".join(voice.symbols.characters)
    return [characters, characters[::-1], characters[: max(1, len(characters) // 3)]]


def _compare(voice: Voice, exported: Voice, texts: Sequence[str]) -> tuple[int, float]:
    """Frames compared, and the largest difference of two voices' mels; infinity where the ends differ.

    Speech fed with itself can be chaotic, on texts that say nothing above all: any rounding is then magnified
    from step to step. So an utterance is compared as far as PyTorch in float32 agrees with itself in float64.
    """
    frames, worst = 0, 0.0
    exact = replace(voice, model=deepcopy(voice.model).double())
    ids = [voice.symbols.encode(text, f"text {text!r}") for text in texts]
    lengths = torch.tensor([len(row) for row in ids])
    text = nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in ids], batch_first=True)
    speaker = torch.arange(len(ids)) % len(voice.speakers)
    # Ends are compared where the stop decides them, and the mels also where it would have cut them.
    for threshold in (voice.stop_threshold, 1.0):
        limits = {"max_frames": min(voice.max_frames, 400), "stop_threshold": threshold}
        ours, theirs, truth = (_speak(v, text, lengths, speaker, limits) for v in (voice, exported, exact))
        for row in range(len(ids)):
            end = min(int(spoken.mel_lengths[row]) for spoken in (ours, truth))
            rounding = (ours.mel[row, :end] - truth.mel[row, :end]).abs().amax(dim=-1)
            unsure = (rounding > TOLERANCE / 20).nonzero()
            known = int(unsure[0]) if len(unsure) else end
            agreed = ours.mel_lengths[row] == truth.mel_lengths[row] == theirs.mel_lengths[row]
            if int(theirs.mel_lengths[row]) < known or (known == end and not agreed):
                return frames, float("inf")
            frames += known
            if known:
                worst = max(worst, float((ours.mel[row, :known] - theirs.mel[row, :known]).abs().max()))
    return frames, worst if frames else float("inf")


def _speak(
    voice: Voice, text: Tensor, lengths: Tensor, speaker: Tensor, limits: dict[str, Any]
) -> FreeRunning:
    spoken = voice.model.synthesize(text, lengths, speaker, **limits)  # type: ignore[operator]
    assert isinstance(spoken, FreeRunning)
    return spoken
