"""How long calls take on a CUDA device, what they launch and what memory they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from ttsfast.benchmarks import machine

Call = Callable[[], Any]


def eager_us(calls: Sequence[Call], device: torch.device) -> float:
    """Microseconds a call in eager dispatch, device and host overlapping as in training."""
    machine.synchronize(device)
    began = time.perf_counter()
    for call in calls:
        call()
    machine.synchronize(device)
    return 1e6 * (time.perf_counter() - began) / len(calls)


def host_us(calls: Sequence[Call], device: torch.device) -> float:
    """Median microseconds until a call returns, the device left behind."""
    turns = []
    for call in calls:
        machine.synchronize(device)
        began = time.perf_counter()
        call()
        turns.append(time.perf_counter() - began)
    machine.synchronize(device)
    return 1e6 * median(turns)


def captured(calls: Sequence[Call]) -> torch.cuda.CUDAGraph:
    """One graph of all calls."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph


def replay_us(graph: torch.cuda.CUDAGraph, calls: int) -> float:
    """Microseconds of device time a call."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    graph.replay()
    ended.record()
    ended.synchronize()
    return 1e3 * began.elapsed_time(ended) / calls


def launches(call: Call) -> list[str]:
    """Names of the kernels, copies and fills of one call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    return sorted(event.name for event in profile.events() if event.device_type.name == "CUDA")


def memory(call: Call) -> dict[str, int]:
    """Peak memory beyond the inputs, and how many allocations one call makes."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()
    kept = call()
    torch.cuda.synchronize()
    after = torch.cuda.memory_stats()
    del kept
    return {
        "peak_bytes": after["allocated_bytes.all.peak"] - before["allocated_bytes.all.current"],
        "allocations": after["allocation.all.allocated"] - before["allocation.all.allocated"],
    }


@contextmanager
def no_synchronisation() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
