"""From log-mels to samples: Griffin-Lim, or somebody's vocoder in an ONNX or TorchScript file.

A vocoder belongs to one mel contract; fed with another it gives noise, and no error. So its contract is read
from beside the file or from inside it, and compared with the voice's before a word is spoken.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ttsfast.data.features.contract import HIFIGAN_KEYS, MelContract, contract_of_hifigan
from ttsfast.data.features.inversion import griffin_lim
from ttsfast.errors import InputError
from ttsfast.models.exported import open_session, read_file

CONTRACT = "mel_contract"
"""The key in an ONNX file's metadata; with ``.json`` behind it, the extra file in a TorchScript archive."""
TORCHSCRIPT = (".pt", ".pth", ".ts", ".jit")
CONVERT = (
    "make ONNX of HiFi-GAN's with `ttsfast vocoder convert CHECKPOINT CONFIG`, of another's as "
    "docs/export.md shows"
)
"""What to do about a file that holds weights alone."""


class Vocoder:
    """Log-mels (T, C) under ``contract`` to samples (samples,) in [-1, 1]."""

    def __init__(
        self, name: str, contract: MelContract, run: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        self.name, self.contract = name, contract
        self._run = run

    def __call__(self, log_mel: np.ndarray) -> np.ndarray:
        """Speak one utterance.

        Raises:
            InputError: the vocoder's output is not finite, or not about ``hop_length`` samples a frame.
        """
        if self._run is None:
            return griffin_lim(log_mel, self.contract)
        given = np.ascontiguousarray(log_mel.T[None], dtype=np.float32)
        wave = np.asarray(self._run(given)).reshape(-1)
        wanted, hop = len(log_mel) * self.contract.hop_length, self.contract.hop_length
        if not np.issubdtype(wave.dtype, np.floating) or not np.isfinite(wave).all():
            raise InputError(f"{self.name}: the vocoder gave {wave.dtype} samples that are not finite floats")
        # Convolutions without padding take a frame or two at the ends.
        if abs(len(wave) - wanted) > 2 * hop:
            raise InputError(
                f"{self.name}: the vocoder gave {len(wave)} samples for {len(log_mel)} frames, expected "
                f"about {wanted}, {hop} a frame; it is for another hop_length"
            )
        return wave.astype(np.float32)


def load_vocoder(
    path: Path | None,
    contract: MelContract,
    *,
    assume_contract: bool = False,
    device: torch.device | str = "cpu",
) -> Vocoder:
    """A vocoder from an ONNX or TorchScript file that maps (1, C, T) log-mels to samples; Griffin-Lim without
    a file.

    Loading TorchScript runs code from the file: only files that are trusted should be loaded. ONNX holds
    no code.

    Args:
        path: ``.onnx``, or one of :data:`TORCHSCRIPT`; None for Griffin-Lim.
        contract: the voice's.
        assume_contract: take a vocoder that names no mel contract as one for ``contract``.
        device: where to run.

    Raises:
        InputError: the file cannot be read, or its contract is absent or differs (each difference is listed);
            or ``assume_contract`` is given without a file.
    """
    if path is None:
        if assume_contract:
            raise InputError("--assume-contract is for a vocoder: add --vocoder FILE")
        return Vocoder("griffin-lim", contract)
    device = torch.device(device)
    if path.suffix == ".onnx":
        run, embedded = _open_onnx(path, device)
    elif path.suffix in TORCHSCRIPT:
        run, embedded = _open_torchscript(path, device)
    else:
        raise InputError(
            f"{path}: a vocoder's file ends in .onnx, or {', '.join(TORCHSCRIPT)} for TorchScript; if it "
            f"holds weights, {CONVERT}"
        )
    beside = path.with_name(f"{path.name}.json")
    found = None
    if beside.is_file():
        found = _parse(beside.read_bytes(), str(beside))
    elif embedded:
        found = _parse(embedded, f"{path}: {CONTRACT}")
    if found is None and not assume_contract:
        raise InputError(
            f"{path}: it names no mel contract; write {beside.name} beside it (a preset's name, or a "
            "contract), or add --assume-contract if you are sure that it is the voice's"
        )
    differing = [
        f"{name} is {ours!r} in the voice and {theirs!r} in the vocoder"
        for (name, ours), theirs in zip(
            asdict(contract).items(), asdict(found or contract).values(), strict=True
        )
        if ours != theirs
    ]
    if differing:
        raise InputError(f"{path}: its mel contract is not the voice's: {'; '.join(differing)}")
    return Vocoder(path.name, contract, run)


def _parse(text: bytes | str, where: str) -> MelContract:
    """A preset's name, a contract, ``{"mel_contract": ...}``, or a HiFi-GAN configuration."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error})") from error
    if isinstance(values, Mapping) and CONTRACT in values:
        values = values[CONTRACT]
    try:
        if isinstance(values, str):
            return MelContract.preset(values)
        if not isinstance(values, Mapping):
            raise InputError(f"must be a preset's name or a mel contract, not {type(values).__name__}")
        if HIFIGAN_KEYS.keys() <= values.keys():
            return contract_of_hifigan(values)
        return MelContract.from_dict(values)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error


def _open_onnx(path: Path, device: torch.device) -> tuple[Callable[[np.ndarray], np.ndarray], str | None]:
    session = open_session(read_file(path), path, device)
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 3:
        found = ", ".join(f"{given.name} {given.type} {given.shape}" for given in inputs)
        raise InputError(f"{path}: a vocoder has one input, log-mels (1, C, T) in float32; it has {found}")
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    def run(mel: np.ndarray) -> np.ndarray:
        try:
            return session.run(None, {inputs[0].name: mel})[0]
        except (failures.Fail, failures.InvalidArgument, failures.RuntimeException) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{path}: the vocoder fails on mels of shape {mel.shape} ({reason})") from error

    return run, session.get_modelmeta().custom_metadata_map.get(CONTRACT)


def _open_torchscript(
    path: Path, device: torch.device
) -> tuple[Callable[[np.ndarray], np.ndarray], str | None]:
    inside = {f"{CONTRACT}.json": ""}
    try:
        module = torch.jit.load(str(path), map_location=device, _extra_files=inside).eval()
    except (RuntimeError, ValueError, OSError) as error:
        if _holds_weights(path):
            raise InputError(f"{path}: holds weights and no model to run them; {CONVERT}") from error
        reason = (" ".join(str(error).split()) or type(error).__name__)[:160]
        raise InputError(f"{path}: cannot be read as TorchScript ({reason})") from error

    def run(mel: np.ndarray) -> np.ndarray:
        try:
            with torch.inference_mode():
                return module(torch.from_numpy(mel).to(device)).cpu().numpy()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-160:]
            raise InputError(f"{path}: the vocoder fails on mels of shape {mel.shape} ({reason})") from error

    return run, inside[f"{CONTRACT}.json"] or None


def _holds_weights(path: Path) -> bool:
    """Whether ``torch.save`` wrote it: an archive without TorchScript's code, or, as once, a pickle."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            return any(name.endswith("/data.pkl") for name in names) and not any("/code/" in n for n in names)
        with path.open("rb") as handle:
            return handle.read(1) == pickle.PROTO
    except (OSError, zipfile.BadZipFile):
        return False
