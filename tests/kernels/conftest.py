"""The real kernels, on a GPU or under Triton's interpreter.

``TRITON_INTERPRET=1`` must be set before Triton is first imported, which another test may have done, so
``test_kernel_interpreter.py`` runs these files in a process of their own. Where there is a CUDA device
they also run for real, as ``gpu`` tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from interpreter import INTERPRETED
from kernel_files import KERNEL_FILES
from poison import poison_memory


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if INTERPRETED:
        return
    skip = pytest.mark.skip(
        reason="no CUDA device; test_kernel_interpreter.py runs it under Triton's interpreter"
    )
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name in KERNEL_FILES:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _poisoned_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uninitialised memory holds NaN, so that an element nobody writes is seen."""
    if request.path.name not in KERNEL_FILES:
        return
    # What tests change of the heuristic must not be found in, or left in, the table of launches.
    from ttsfast.kernels import launch

    monkeypatch.setattr(launch, "_plans", {})
    poison_memory(monkeypatch)
