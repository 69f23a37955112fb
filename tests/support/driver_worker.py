"""Launches through Triton's own launcher in C, over a driver that only notes what it is handed.

``test_kernel_driver.py`` runs it in a process of its own, where ``libcuda.so.1`` is the stand-in of
``fake_libcuda.c``. Prints one line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from typing import Any

import torch
import triton
from kernel_compile import SPEC, TARGETS, tensors
from triton.backends.nvidia.driver import CudaDriver

from ttsfast.kernels import gather, launch, layout
from ttsfast.terms.state import StepState

SIZES = {"64": 8, "32": 4, "16": 2, "8": 1}
fake = ctypes.CDLL("libcuda.so.1")


class Driver(CudaDriver):
    """Triton's own, but for what it would ask torch about a device."""

    def __init__(self) -> None:
        super().__init__()
        self.get_current_device = lambda: 0
        self.get_current_stream = lambda device: 0
        self.get_current_target = lambda: TARGETS["sm_90"]


def variable(name: str, kind: Any) -> Any:
    return kind.in_dll(fake, name)


def parameters(kernel: Any) -> list[int]:
    """Bytes of each parameter of a compiled kernel."""
    entry = re.search(r"\.entry[^(]*\((.*?)\)", kernel.asm["ptx"], re.DOTALL)
    assert entry is not None
    return [SIZES[bits] for bits in re.findall(r"\.param \.[a-z](\d+)", entry.group(1))]


def noted(sizes: list[int]) -> dict[str, Any]:
    """The last launch."""
    grid = list(variable("fake_grid", ctypes.c_uint * 3))
    values = variable("fake_values", ctypes.c_ulonglong * 512)
    return {
        "grid": grid,
        "block": variable("fake_block", ctypes.c_uint).value,
        "stream": variable("fake_stream", ctypes.c_ulonglong).value,
        "values": [values[i] % (1 << 8 * size) for i, size in enumerate(sizes)],
    }


def compared(plan: Any, kind: Any, again: Any) -> dict[str, Any]:
    """One launch through Triton's compiler and one from the table, both noted.

    ``again`` launches and tells what memory it took.
    """
    prepared = plan.prepared[kind]
    sizes = parameters(prepared._kernel)
    variable("fake_params", ctypes.c_int).value = len(sizes)
    del plan.prepared[kind]
    found, taken = [], []
    for _ in range(2):
        before = variable("fake_launches", ctypes.c_int).value
        taken.append(again())
        assert variable("fake_launches", ctypes.c_int).value == before + 1
        found.append(noted(sizes))
    slow, fast = found
    pairs = zip(slow["values"], fast["values"], strict=True)
    return {
        "parameters": len(sizes),
        "differing": [pair for pair in pairs if pair[0] != pair[1]],
        "taken": list(zip(*taken, strict=True)),
        "grids": [slow["grid"], fast["grid"]],
        "blocks": [slow["block"], fast["block"]],
        "streams": [slow["stream"], fast["stream"]],
    }


def losses() -> dict[str, Any]:
    word = torch.zeros((), dtype=torch.int32)
    launch.counter = lambda device, compiled: word
    inputs = tensors(terms="mel kl stop attention", heads=(2, 0), statistics=True, prior=True)
    gradients = [None if t is None else torch.empty_like(t) for t in layout.differentiable(inputs)]
    four, scalar, one = torch.ones(4), torch.zeros((), dtype=torch.int64), torch.ones(())
    state = StepState("dwa", four, four, four, four, scalar, scalar, four, scalar, True)
    # So that no two calls are given the same memory.
    kept = []

    def forward() -> tuple[int, ...]:
        kept.append(launch.forward(SPEC, inputs, gradients, state, 3.0, one, scalar))
        total, table, integers, _ = kept[-1]
        at = integers.data_ptr()
        return total.data_ptr(), table.data_ptr(), at, at + integers[: launch.INTEGERS].nbytes

    def backward() -> tuple[int, ...]:
        launch.backward(kept[0].call, kept[0].call.written, one)
        return ()

    forward()
    backward()
    plan = kept[0].call.plan
    return {
        "forward": compared(plan, "forward", forward),
        "backward": compared(plan, (True, True), backward),
    }


def gathers() -> int:
    """Launches of the kernel that gathers, for one batch and for an empty one, which launches nothing."""
    variable("fake_params", ctypes.c_int).value = 0
    before = variable("fake_launches", ctypes.c_int).value
    starts = torch.tensor([0, 5])
    corpus = gather.Corpus(
        torch.zeros(5, 80, dtype=torch.float16),
        starts,
        torch.zeros(5, dtype=torch.int32),
        starts,
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.bool),
        torch.zeros(80),
    )
    for batch in (1, 0):
        flags = torch.zeros(batch, dtype=torch.bool)
        ids = torch.zeros(batch, dtype=torch.int64)
        out = gather.Gathered(torch.zeros(batch, 8, 80), ids.view(batch, 1), ids, ids, ids, flags, None, None)
        gather.gather(corpus, torch.zeros(1, dtype=torch.int64), 0, out)
    return variable("fake_launches", ctypes.c_int).value - before


def main() -> None:
    triton.runtime.driver.set_active(Driver())
    json.dump({**losses(), "gathers": gathers()}, sys.stdout)


if __name__ == "__main__":
    main()
