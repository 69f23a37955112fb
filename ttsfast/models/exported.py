"""Voices in ONNX files, spoken with onnxruntime: no pickle, no code from the file, every byte checked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ttsfast.errors import InputError
from ttsfast.models.interface import AS_LEARNT, FreeRunning
from ttsfast.models.voice_info import VoiceInfo

FORMAT = 1
METADATA, SEAL = "ttsfast", "ttsfast.seal"
INPUTS = ("text", "text_lengths", "speaker", "max_frames", "stop_threshold")
"""and after them what of :class:`ttsfast.models.interface.Delivery` the model controls"""
OUTPUTS = ("mel", "log_mel", "mel_lengths", "attention", "stopped")
LARGEST = 1 << 31
"""bytes: protobuf's own limit"""


def load_exported(path: Path, device: torch.device | str = "cpu") -> tuple[ExportedModel, VoiceInfo]:
    """Load what ``ttsfast export`` wrote.

    Raises:
        InputError: onnxruntime is missing, or the file is damaged, is no voice, or contradicts itself.
    """
    return exported_model(read_file(path), path, device)


def exported_model(
    content: bytes, path: Path, device: torch.device | str = "cpu"
) -> tuple[ExportedModel, VoiceInfo]:
    """:func:`load_exported` of a file's content; ``path`` is for the messages."""
    session = open_session(content, path, torch.device(device))
    metadata = session.get_modelmeta().custom_metadata_map
    if METADATA not in metadata or SEAL not in metadata:
        raise InputError(f"{path}: an ONNX file, but not a voice; use one that `ttsfast export` wrote")
    remedy = "export the voice again"
    try:
        seal, entries = json.loads(metadata[SEAL]), json.loads(metadata[METADATA])
        sealed = content[: seal["bytes"]]
        if len(sealed) != seal["bytes"] or hashlib.sha256(sealed).hexdigest() != seal["sha256"]:
            raise InputError(f"{path}: damaged, its bytes are not those that were written; {remedy}")
        if entries["format"] != FORMAT:
            raise InputError(
                f"{path}: exported format {entries['format']!r}, this version reads {FORMAT}; {remedy}"
            )
        info = VoiceInfo.from_dict(entries["voice"], str(path))
        sizes = {name: int(entries[name]) for name in ("n_symbols", "n_speakers", "reduction_factor")}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: its metadata are not a voice's ({error!r}); {remedy}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: its metadata are not JSON ({error}); {remedy}") from error
    outputs = {output.name: output.shape for output in session.get_outputs()}
    inputs = tuple(given.name for given in session.get_inputs())
    controls = tuple(name for name in vars(AS_LEARNT) if name in inputs)
    if inputs != INPUTS + controls or tuple(outputs) != OUTPUTS:
        raise InputError(
            f"{path}: the graph's inputs are {inputs} and its outputs {tuple(outputs)}; {remedy}"
        )
    for name, found, wanted in (
        ("symbols", sizes["n_symbols"], len(info.symbols)),
        ("speakers", sizes["n_speakers"], len(info.speakers)),
        ("mel bins", outputs["mel"][-1], info.contract.n_mels),
    ):
        if found != wanted:
            raise InputError(f"{path}: the graph has {found} {name} and the voice {wanted}; {remedy}")
    return ExportedModel(session, sizes["reduction_factor"], controls), info


def read_file(path: Path) -> bytes:
    """The content of an ONNX file; raises InputError when it cannot be read or cannot be one."""
    try:
        if path.stat().st_size >= LARGEST:
            raise InputError(f"{path}: 2 GiB or more, which no ONNX file can be; use another file")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def open_session(content: bytes, path: Path, device: torch.device) -> Any:
    """An onnxruntime session on a file's content: opened from memory, it cannot name other files to be read.

    Raises:
        InputError: onnxruntime is missing or has no such device, or cannot read the content.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as failures
    except ImportError as error:
        raise InputError(f"{path}: needs onnxruntime: pip install 'ttsfast[onnx]'") from error
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(device.type)
    if provider not in onnxruntime.get_available_providers():
        raise InputError(
            f"{path}: this onnxruntime cannot run on {device.type}; use --device cpu or get onnxruntime-gpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Errors are raised; what it would log besides are warnings about graphs.
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=[provider])
    except (
        failures.Fail,
        failures.InvalidGraph,
        failures.InvalidProtobuf,
        failures.InvalidArgument,
        failures.NotImplemented,
        failures.RuntimeException,
        failures.NoSuchFile,
        failures.ModelLoadCanceled,
    ) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: onnxruntime cannot read it ({reason}); use another file") from error


class ExportedModel(nn.Module):
    """The graph of an exported voice in the place of the model that it was made from; it only speaks."""

    def __init__(self, session: Any, reduction_factor: int, controls: tuple[str, ...]) -> None:
        super().__init__()
        self.session, self.reduction_factor, self.controls = session, reduction_factor, controls

    def synthesize(
        self,
        text: Tensor,
        text_lengths: Tensor,
        speaker: Tensor | None = None,
        *,
        max_frames: int,
        stop_threshold: float = 0.5,
        **asked: float,
    ) -> FreeRunning:
        """As the model that was exported does it; ``asked`` are of its controls."""
        speaker = torch.zeros_like(text_lengths) if speaker is None else speaker
        given = {
            name: x.cpu().numpy() for name, x in zip(INPUTS, (text, text_lengths, speaker), strict=False)
        }
        given["max_frames"] = np.asarray(max_frames, dtype=np.int64)
        given["stop_threshold"] = np.asarray(stop_threshold, dtype=np.float32)
        for name in self.controls:
            given[name] = np.asarray(asked.get(name, getattr(AS_LEARNT, name)), dtype=np.float32)
        found = {
            name: torch.from_numpy(x)
            for name, x in zip(OUTPUTS, self.session.run(OUTPUTS, given), strict=True)
        }
        del found["log_mel"]
        return FreeRunning(**found)
