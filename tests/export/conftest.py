from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ttsfast.export.onnx import OLDEST_TORCH, ExportReport, export_voice
from ttsfast.models.voice import Voice


@pytest.fixture(scope="module")
def written(voice: Voice, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportReport]:
    """The module's ``voice`` as an ONNX file, and what was compared before it was written."""
    if torch.__version__ < OLDEST_TORCH:
        pytest.skip(f"export needs torch 2.11, and this is {torch.__version__}")
    path = tmp_path_factory.mktemp("export") / "voice.onnx"
    report = export_voice(voice, path)
    assert report.bytes == path.stat().st_size
    assert 0.0 < report.max_difference < 1e-4
    return path, report


@pytest.fixture(scope="module")
def exported(written: tuple[Path, ExportReport]) -> Path:
    return written[0]
