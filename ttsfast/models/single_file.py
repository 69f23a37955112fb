"""A voice as one safetensors file: weights as tensors, all else as metadata; no pickle, every byte checked.

``ttsfast.voice`` holds JSON: ``format``, the ``model`` section that builds the network, and ``voice``, as a
checkpoint's ``voice.json`` has it. ``ttsfast.seal`` is a SHA-256 of everything else in the file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load

from ttsfast.errors import InputError
from ttsfast.models.checkpoint import Checkpoint

SUFFIX = ".safetensors"
FORMAT = 1
ENTRIES, SEAL = "ttsfast.voice", "ttsfast.seal"


def load_single_file(path: Path) -> Checkpoint:
    """Read what ``ttsfast export`` wrote, as the checkpoint that it was made of, without its training.

    Raises:
        InputError: the file cannot be read, is damaged, or is no voice.
    """
    remedy = "export the voice again"
    try:
        content = path.read_bytes()
        header = header_of(content)
        metadata = header.get("__metadata__", {})
        if ENTRIES not in metadata or SEAL not in metadata:
            raise InputError(
                f"{path}: a safetensors file, but not a voice; use one that `ttsfast export` wrote"
            )
        if metadata[SEAL] != seal_of(content):
            raise InputError(f"{path}: damaged, its bytes are not those that were written; {remedy}")
        entries = json.loads(metadata[ENTRIES])
        if entries["format"] != FORMAT:
            raise InputError(
                f"{path}: exported format {entries['format']!r}, this version reads {FORMAT}; {remedy}"
            )
        config = {"model": entries["model"]}
        return Checkpoint(
            path, load(content), {}, entries["voice"], {"step": entries["step"], "config": config}
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (SafetensorError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a readable voice ({error!r:.160}); {remedy}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not a safetensors file ({error}); {remedy}") from error


def header_of(content: bytes) -> dict[str, Any]:
    """The header of a safetensors file's content; raises ValueError for what is none."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")].decode(errors="replace"))


def seal_of(content: bytes) -> str:
    """A hash of a file's header, less the seal in it, and of its tensors."""
    header = header_of(content)
    header["__metadata__"].pop(SEAL, None)
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(memoryview(content)[8 + int.from_bytes(content[:8], "little") :])
    return digest.hexdigest()
