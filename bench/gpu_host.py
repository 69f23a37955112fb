"""What a call of the Triton loss costs on the host, without a GPU: kernels are compiled, launches not made.

Prints microseconds of the forward pass, of both passes, and of an autograd function
that only allocates the same gradients, which no backend can be cheaper than. What a driver takes to launch
comes on top, a few microseconds for each of the two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget

from ttsfast.benchmarks import machine
from ttsfast.kernels import launch
from ttsfast.losses import triton as backend
from ttsfast.losses.module import TTSLoss
from ttsfast.terms.autograd import why_not_plain


class StandIn:
    """As much of a driver as launching asks for; its launches are counted."""

    def __init__(self) -> None:
        self.launches = 0
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 1 << 16}

    def load_binary(self, *binary: Any) -> tuple[object, int, int, int, int]:
        return object(), 1, 0, 0, 1024

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        return self.launch

    def launch(self, *arguments: Any) -> None:
        self.launches += 1


class Bare(torch.autograd.Function):
    """Allocates a total and gradients."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.gradients = tuple(torch.empty_like(tensor) for tensor in tensors)
        return torch.empty(())

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, ...]:
        return ctx.gradients


def microseconds(call: Callable[[], Any], rounds: int) -> float:
    turns = []
    for turn in range(-50, rounds):
        began = time.perf_counter()
        call()
        if turn >= 0:
            turns.append(time.perf_counter() - began)
    return round(1e6 * median(turns), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3000)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    driver = StandIn()
    triton.runtime.driver.set_active(driver)
    # The tensors are on the CPU, where nothing else would launch; all that is not about the device is asked.
    backend.TritonBackend.missing = lambda self: None  # type: ignore[method-assign]
    backend.TritonBackend.declines = lambda self, spec, inputs: why_not_plain(inputs.memory())  # type: ignore[method-assign]

    batch, frames, bins, latents = 4, 32, 80, 64
    shapes = [(batch, frames, bins), (batch, frames), *[(batch, frames, latents)] * 2]
    leaves = [torch.randn(shape).requires_grad_() for shape in shapes]
    mel, stop, mu, logvar = leaves
    target, lengths, one = torch.randn(shapes[0]), torch.full((batch,), frames), torch.ones(())
    word = torch.zeros((), dtype=torch.int32)
    # On a GPU it is found, on the CPU made anew each time.
    launch.counter = lambda device, compiled: word
    loss = TTSLoss(attention_weight=0.0, backend="triton")

    def forward() -> Tensor:
        return loss(mel, target, lengths, stop_logits=stop, posterior=(mu, logvar)).total

    def both() -> None:
        torch.autograd.grad(forward(), leaves, one)

    both()
    before = driver.launches
    both()
    found = {
        "launches": driver.launches - before,
        "forward_us": microseconds(forward, rounds),
        "both_us": microseconds(both, rounds),
        "bare_us": microseconds(lambda: torch.autograd.grad(Bare.apply(*leaves), leaves, one), rounds),
    }
    print(json.dumps({"machine": machine.describe(torch.device("cpu")), **found}, indent=1))


if __name__ == "__main__":
    main()
