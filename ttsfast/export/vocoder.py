"""``ttsfast vocoder convert``: published weights of HiFi-GAN as an ONNX file that ``--vocoder`` takes.

The checkpoint is read as weights alone, so that no code in it runs; weight norm is folded in float64.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ttsfast.data.features.contract import MelContract
from ttsfast.errors import ExportError, InputError
from ttsfast.export.hifigan import Generator
from ttsfast.export.onnx import import_onnx
from ttsfast.files import atomic_write, check_output_file
from ttsfast.models.exported import open_session, read_file

CONTRACT = "mel_contract"
_FRAMES = 20
_NORM = {
    # What torch.nn.utils.weight_norm leaves in a state dict, and what the newer parametrization does.
    "weight_g": "weight_v",
    "parametrizations.weight.original0": "parametrizations.weight.original1",
}
_OTHERS = {
    "BigVGAN": lambda name: "activation_post" in name or ".activations." in name,
    "Vocos": lambda name: name.startswith(("backbone.", "head.", "feature_extractor.")),
}
"""Vocoders whose weights are asked about most, by the names of their tensors."""


@dataclass(frozen=True)
class VocoderReport:
    """What was written."""

    path: Path
    bytes: int
    parameters: int
    contract: MelContract

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "path": str(self.path), "contract": self.contract.to_dict()}


def convert_vocoder(checkpoint: Path, config: Path, path: Path) -> VocoderReport:
    """Write the generator in ``checkpoint`` to ``path``, with its mel contract inside.

    Args:
        checkpoint: what ``torch.save`` or safetensors wrote: the generator's state dict, or a dict that has
            it as ``generator``; weight norm is in it or folded already.
        config: the ``config.json`` that the published code trained it with.
        path: ends in ``.onnx``; it appears only when onnxruntime makes the right number of samples with it.

    Raises:
        InputError: a file that cannot be read, that holds more than weights, or another network's; or a
            package that is missing.
        ExportError: the file gives samples that are not finite, or not ``hop_size`` a frame.
    """
    if path.suffix != ".onnx":
        raise InputError(f"{path}: name a file that ends in .onnx")
    onnx = import_onnx("vocoder convert")
    check_output_file(path)
    found = _folded(_read_weights(checkpoint))
    try:
        generator = Generator.from_config(json.loads(read_file(config)))
    except (InputError, ValueError) as error:
        reason = error if isinstance(error, InputError) else f"not JSON ({error})"
        raise InputError(f"{config}: {reason}; give the config.json beside the checkpoint") from error
    weights = _fitting(found, generator, checkpoint)
    proto = generator.graph(onnx, weights)
    onnx.helper.set_model_props(proto, {CONTRACT: json.dumps(generator.contract.to_dict())})
    onnx.checker.check_model(proto)
    content = proto.SerializeToString()
    _try_out(content, path, generator.contract)
    with atomic_write(path) as handle:
        handle.write(content)
    parameters = sum(value.size for value in weights.values())
    return VocoderReport(path, len(content), parameters, generator.contract)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds more than weights, or is damaged; nothing in it was run: "
            "save the generator's state dict alone"
        ) from error
    except (SafetensorError, RuntimeError, ValueError, EOFError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: cannot be read as weights ({reason}); give another file") from error
    if isinstance(found, Mapping) and isinstance(found.get("generator"), Mapping):
        found = found["generator"]
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: holds a {type(found).__name__}, expected a generator's weights by name")
    weights = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    for kind, is_its in _OTHERS.items():
        if any(map(is_its, weights)):
            raise InputError(
                f"{path}: holds the weights of {kind}, not of HiFi-GAN; write it as ONNX with its own code, "
                "as docs/export.md shows"
            )
    if "conv_pre.bias" not in weights:
        names = ", ".join(list(map(str, found))[:4]) or "nothing"
        raise InputError(f"{path}: no generator of HiFi-GAN, which has conv_pre.bias; it holds {names:.160}")
    return weights


def _folded(weights: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Each weight float32 by its plain name: ``g * v / |v|``, the norm over all but the first dimension."""
    whole = {name: value.double() for name, value in weights.items()}
    for scale, direction in _NORM.items():
        for name in [name for name in whole if name.endswith(f".{scale}")]:
            stem = name.removesuffix(scale)
            v = whole.get(f"{stem}{direction}")
            if v is None or whole[name].shape != (*v.shape[:1], *[1] * (v.dim() - 1)):
                continue
            norm = torch.linalg.vector_norm(v, dim=tuple(range(1, v.dim())), keepdim=True)
            whole[f"{stem}weight"] = whole.pop(name) * whole.pop(f"{stem}{direction}") / norm
    return {name: value.float().numpy() for name, value in whole.items()}


def _fitting(
    weights: Mapping[str, np.ndarray], generator: Generator, checkpoint: Path
) -> dict[str, np.ndarray]:
    """The weights in the generator's order; raises InputError unless they are all of its, and finite."""
    expected = dict(generator.shapes())
    for name, shape in list(expected.items()):
        # A transposed convolution has its output channels second.
        outputs = shape[1] if name.startswith("ups.") else shape[0]
        expected[f"{name.removesuffix('weight')}bias"] = (outputs,)
    remedy = "give the config.json that it was trained with"
    for name, shape in expected.items():
        if name not in weights:
            raise InputError(f"{checkpoint}: the configuration has {name}, the checkpoint has not; {remedy}")
        if weights[name].shape != shape:
            raise InputError(
                f"{checkpoint}: {name} is {weights[name].shape}, by the configuration {shape}; {remedy}"
            )
        if not np.isfinite(weights[name]).all():
            raise InputError(f"{checkpoint}: {name} holds NaN or Inf; give another checkpoint")
    if more := sorted(weights.keys() - expected.keys()):
        raise InputError(f"{checkpoint}: {more[0]} has no place in the configuration; {remedy}")
    return {name: weights[name] for name in expected}


def _try_out(content: bytes, path: Path, contract: MelContract) -> None:
    session = open_session(content, path, torch.device("cpu"))
    mel = np.random.default_rng(0).normal(-5.0, 2.0, (1, contract.n_mels, _FRAMES)).astype(np.float32)
    (wave,) = session.run(None, {"mel": mel})
    if wave.shape != (1, 1, _FRAMES * contract.hop_length) or not np.isfinite(wave).all():
        raise ExportError(f"{path}: gives {wave.shape} samples for {_FRAMES} frames; nothing was written")
