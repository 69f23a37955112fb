"""Where programs count themselves in, to find the last one: words that a launch finds and leaves at 0."""

from __future__ import annotations

import torch
from torch import Tensor

from ttsfast.kernels.prepared import stream_of

WORDS = 4096
SPACING = 16
"""In words of 32 bits: each lies in a cache line of its own."""


class _Bank:
    """The words of one device, set to 0 once, at its first launch."""

    def __init__(self, device: torch.device) -> None:
        self.words = torch.zeros((WORDS, SPACING), dtype=torch.int32, device=device)
        self.zeroed = torch.cuda.current_stream(device).record_event()
        # Two threads that ask at once are given two words: an iterator is moved on by one at a time.
        self._places = iter(range(WORDS))
        self.by_stream: dict[int, Tensor] = {}

    def take(self) -> Tensor | None:
        """None where all are taken."""
        place = next(self._places, None)
        return None if place is None else self.words[place, 0]


_banks: dict[int, _Bank] = {}


def counter(device: torch.device, compiled: bool = False) -> Tensor:
    """() int32 zero for one launch on the current stream of ``device``, the current one, which must leave it
    at 0.

    Launches of one stream follow each other and share a word. A captured launch gets one for good: its graph
    may replay beside other work of the stream. Neither costs a fill, unless the very first launch on a device
    is captured, or thousands have been.

    Args:
        compiled: inside a graph of ``torch.compile``, which may allocate from memory that all must be given
            back to ("reduce-overhead"): the words of a device are not made there, and cost a fill until a
            call outside has made them.
    """
    if device.type != "cuda":
        return torch.zeros((), dtype=torch.int32, device=device)
    capturing = torch.cuda.is_current_stream_capturing()
    bank = _banks.get(device.index)
    if bank is None and not capturing and not compiled:
        bank = _banks[device.index] = _Bank(device)
    stream = stream_of(device)
    if bank is not None and not capturing and stream in bank.by_stream:
        return bank.by_stream[stream]
    word = None if bank is None else bank.take()
    if bank is None or word is None:
        return torch.zeros((), dtype=torch.int32, device=device)
    if not capturing:
        # A capture must not wait for what it does not hold, and begins with a synchronisation.
        torch.cuda.current_stream(device).wait_event(bank.zeroed)
        bank.by_stream[stream] = word
    return word
