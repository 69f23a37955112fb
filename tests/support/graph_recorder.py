"""A stand-in for CUDA graphs, where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch

from ttsfast.config import Config
from ttsfast.training import cuda_graphs
from ttsfast.training import trainer as trainers

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


def replayed_trainer(config: Config, **rest: Any) -> trainers.Trainer:
    """A trainer with ``training.cuda_graphs`` whose recordings are :class:`FakeRecorder`'s."""
    with (
        mock.patch.object(cuda_graphs, "CudaRecorder", return_value=FakeRecorder()),
        mock.patch.object(trainers, "refuse_cuda_graphs"),
    ):
        return trainers.Trainer(replace(config, training=replace(config.training, cuda_graphs=True)), **rest)
