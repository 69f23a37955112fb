"""Batches on their way to a CUDA device: copies on a stream of their own, and whose memory is used when."""

from __future__ import annotations

import pytest
import torch

from ttsfast.data.loading.batch import Batch
from ttsfast.data.loading.loader import _Staged

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CYCLES = 20_000_000
"""About ten milliseconds in which a stream is busy."""
SHAPE = (48, 800, 80)


def batch(value: float) -> Batch:
    """Page-locked, every element ``value``; what goes first is the large one."""
    rows = torch.full((SHAPE[0],), int(value))
    made = Batch(
        ids=("x",) * SHAPE[0],
        text=torch.full((SHAPE[0], 64), int(value)),
        text_lengths=rows,
        mel=torch.full(SHAPE, value),
        mel_lengths=rows,
        speaker=rows,
        truncated=torch.zeros(SHAPE[0], dtype=torch.bool),
        frames=1,
    )
    return made.pin_memory()


def test_a_batch_is_not_read_before_it_has_arrived() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(CYCLES)
    received = _Staged(batch(3.0), stream).receive()
    assert float(received.mel.mean()) == 3.0
    assert int(received.text.min()) == 3


def test_memory_is_not_given_out_again_before_its_last_use() -> None:
    """The consumer is slow and has dropped the batch already while the next ones are copied."""
    stream = torch.cuda.Stream()
    sums = []
    for value in range(1, 9):
        received = _Staged(batch(float(value)), stream).receive()
        torch.cuda._sleep(CYCLES // 4)
        sums.append(received.mel.double().mean())
        del received
    assert [float(total) for total in sums] == [float(value) for value in range(1, 9)]


def test_page_locked_memory_waits_for_its_copy() -> None:
    """The host's tensors go as soon as their copy has been asked for; others are made in their memory."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(CYCLES)
    staged = [_Staged(batch(float(value)), stream) for value in range(1, 5)]
    means = [float(each.receive().mel.double().mean()) for each in staged]
    assert means == [1.0, 2.0, 3.0, 4.0]


def test_nothing_waits_for_the_host() -> None:
    stream = torch.cuda.Stream()
    host = batch(2.0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        received = _Staged(host, stream).receive()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert float(received.mel.mean()) == 2.0
