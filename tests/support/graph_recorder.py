"""A stand-in for CUDA graphs, where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none"),
]


class FakeRecorder:
    """Records as a CUDA graph does, as far as a CPU can: recording runs nothing, a replay reads and writes
    the tensors of the recording."""

    def __init__(self) -> None:
        self.recorded = 0

    def plainly(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        return work
