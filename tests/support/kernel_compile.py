"""Compiles the kernels for GPUs that are not here, through the very launcher that a GPU would be given.

A stand-in driver names the target; ``warmup`` binds and specialises the arguments and compiles. Registers and
stack are what the assembler reports, read with a tool that the Triton wheel carries. Accesses are counted in
PTX: the assembler unrolls what adds up partial sums, five to seven times, so that its machine code says how
far it went and not what a kernel asks for. Accesses of 16 bytes and atomics were the same in both wherever
both were read (sm_90, Triton 3.7 and 3.8).

``python tests/support/kernel_compile.py`` measures every variant and rewrites this Triton's part of
``budgets.json``.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from ttsfast.kernels import launch, layout, settings
from ttsfast.terms.counts import Counts
from ttsfast.terms.spec import LossInputs, LossSpec
from ttsfast.terms.state import StepState

BUDGETS = Path(__file__).parents[1] / "kernels" / "budgets.json"
TRITON = ".".join(triton.__version__.split(".")[:2])
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Usage:
    """What one compiled kernel takes."""

    registers: int
    stack: int
    """Bytes of local memory per thread, spills included; on AMD, accesses to it and spilled registers."""
    shared: int
    """Bytes the kernel asks for, without what the driver reserves."""
    wide_loads: int
    """Load instructions of at least 16 bytes a thread."""
    wide_stores: int
    narrow_loads: int
    """Of less than 16 bytes: lengths, weights, statistics, partial sums, half-precision stop logits."""
    narrow_stores: int
    atomics: tuple[str, ...]
    has_float64: bool


class _Target:
    """The part of a driver that compiling needs."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        # Kernels are cached by device.
        return f"stand-in {self.target}"

    def get_current_stream(self, device: object) -> int:
        return 0


@contextmanager
def compiling_for(target: GPUTarget) -> Iterator[None]:
    config = triton.runtime.driver
    # Its own way back asks for a driver of this machine, which may have none.
    before = config._active, settings.SETTINGS, launch.fused_loss, launch._plans
    config.set_active(_Target(target))
    settings.SETTINGS = settings.AMD if target.backend == "hip" else settings.NVIDIA
    launch.fused_loss, launch._plans = _Warm(launch.fused_loss), {}
    try:
        yield
    finally:
        config._active, settings.SETTINGS, launch.fused_loss, launch._plans = before


@contextmanager
def launching_for(target: GPUTarget) -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """As :func:`compiling_for`, with launches: (name, arguments) of each, noted in place of being made."""
    made: list[tuple[str, tuple[Any, ...]]] = []

    def launcher(source: Any, metadata: Any) -> Callable[..., None]:
        # Before the arguments come grid, stream, function, two sorts of metadata and two hooks.
        return lambda *passed: made.append((metadata.name, passed[9:]))

    class Utilities:
        def get_device_properties(self, device: object) -> dict[str, int]:
            return {"max_shared_mem": 1 << 16}

        def load_binary(self, *binary: object) -> tuple[object, int, int, int, int]:
            return object(), 1, 0, 0, 1024

    with compiling_for(target):
        driver = triton.runtime.driver._active
        driver.launcher_cls, driver.utils = launcher, Utilities()
        # What is kept by device must not be what another test compiled without launching.
        driver.get_current_device = lambda: f"launching {target} {id(made)}"
        launch.fused_loss = launch.fused_loss.kernel
        yield made


class _Warm:
    """Stands in for the kernel: compiles where the launcher would launch."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.compiled: list[Any] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        def warm(*arguments: Any, **options: Any) -> None:
            self.compiled.append(self.kernel.warmup(*arguments, grid=grid, **options))

        return warm


SPEC = LossSpec(
    base_weights=(22.0, 1.8, 1.5, 0.3),
    mel_loss="huber",
    huber_delta=0.6,
    mel_smoothing="mean",
    mel_label_smoothing=0.025,
    mel_floor=0.0,
    normalization="frame",
    kl_normalization="elbo",
    kl_free_bits=0.0,
    stop_label_smoothing=0.06,
    stop_pos_weight=4.0,
    stop_tail_frames=8,
    attention_sigma=0.2,
    seed=1,
)


def tensors(
    dtype: torch.dtype = torch.float32,
    *,
    terms: str = "mel kl stop attention",
    predictions: int = 1,
    bins: int = 80,
    heads: tuple[int, ...] = (0,),
    prior: bool = False,
    transposed: bool = False,
    statistics: bool = False,
) -> LossInputs:
    """Inputs of a common shape; their values do not matter, only how they lie in memory."""
    batch, frames, symbols, latents = 2, 32, 24, 64

    def real(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    def mel() -> torch.Tensor:
        return real(batch, bins, frames).transpose(1, 2) if transposed else real(batch, frames, bins)

    lengths = torch.full((batch,), frames)
    pair = (real(batch, frames, latents), real(batch, frames, latents))
    return LossInputs(
        mel=tuple(mel() for _ in range(predictions)),
        target=mel(),
        mel_lengths=lengths,
        step_lengths=lengths,
        text_lengths=lengths,
        truncated=torch.zeros(batch, dtype=torch.bool),
        stop_logits=real(batch, frames) if "stop" in terms else None,
        posterior=pair if "kl" in terms else None,
        prior=pair if prior else None,
        attention=tuple(real(batch, *([h] if h else []), frames, symbols) for h in heads)
        if "attention" in terms
        else (),
        mel_mean=torch.zeros(bins) if statistics else None,
        mel_std=torch.zeros(bins) if statistics else None,
    )


def forward(spec: LossSpec, inputs: LossInputs, *, state: str = "", normalizer: Any = None) -> Any:
    """Compile the forward pass for the current target."""
    _call(spec, inputs, state, normalizer)
    return launch.fused_loss.compiled[-1]


def backward(spec: LossSpec, inputs: LossInputs) -> Any:
    """Compile the backward pass, over the gradients of the forward pass."""
    call = _call(spec, inputs, "", None).call
    launch.backward(call, call.written, torch.ones(()))
    return launch.fused_loss.compiled[-1]


def _call(spec: LossSpec, inputs: LossInputs, state: str, normalizer: Any) -> launch.Launched:
    gradients = [None if t is None else torch.empty_like(t) for t in layout.differentiable(inputs)]
    four, scalar = torch.ones(4), torch.zeros((), dtype=torch.int64)
    weights: Any = four
    if state:
        weights = StepState(state, four, four, four, four, scalar, scalar, four, scalar, True)
    return launch.forward(spec, inputs, gradients, weights, normalizer, torch.ones(()), scalar)


F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
_DEVICE_COUNTS = Counts(*(torch.ones(()) for _ in range(4)))
VARIANTS: dict[str, Callable[[], Any]] = {
    "mel-f32": lambda: forward(SPEC, tensors(terms="mel")),
    "mel-bf16": lambda: forward(SPEC, tensors(BF16, terms="mel")),
    "mel-bf16-100": lambda: forward(SPEC, tensors(BF16, terms="mel", bins=100, statistics=True)),
    "mel-noise-f32": lambda: forward(replace(SPEC, mel_smoothing="noise"), tensors(terms="mel")),
    "mel-pair-transposed-f32": lambda: forward(SPEC, tensors(terms="mel", predictions=2, transposed=True)),
    "mel-transposed-bf16": lambda: forward(SPEC, tensors(BF16, terms="mel", transposed=True)),
    "mel-kl-stop-f32": lambda: forward(SPEC, tensors(terms="mel kl stop")),
    "mel-kl-stop-bf16": lambda: forward(SPEC, tensors(BF16, terms="mel kl stop")),
    "all-f32": lambda: forward(SPEC, tensors(), state="dwa"),
    "all-bf16": lambda: forward(SPEC, tensors(BF16), state="dwa"),
    "all-options-f32": lambda: forward(
        replace(
            SPEC,
            mel_smoothing="noise",
            normalization="utterance",
            kl_normalization="vector",
            kl_free_bits=1.0,
        ),
        tensors(predictions=2, heads=(4, 4), prior=True, statistics=True),
        state="uncertainty",
        normalizer=_DEVICE_COUNTS,
    ),
    "all-options-f16": lambda: forward(
        replace(SPEC, mel_loss="l1", mel_smoothing="noise", kl_free_bits=1.0),
        tensors(F16, predictions=2, heads=(4, 0), prior=True, statistics=True),
        state="dwa",
        normalizer=_DEVICE_COUNTS,
    ),
    "backward-f32": lambda: backward(SPEC, tensors()),
    "backward-bf16": lambda: backward(SPEC, tensors(BF16)),
    "backward-options-f16": lambda: backward(
        replace(SPEC, mel_loss="l1", mel_smoothing="noise", kl_free_bits=1.0),
        tensors(F16, predictions=2, heads=(4, 0), prior=True, statistics=True),
    ),
}


def usage(kernel: Any) -> Usage:
    return _amd(kernel) if "amdgcn" in kernel.asm else _nvidia(kernel)


def _nvidia(kernel: Any) -> Usage:
    ptx = kernel.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        tool = str(_TOOLS / "cuobjdump")
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    resources = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", text.stdout))
    loads, stores = (re.findall(rf"\b{kind}\.global\S*", ptx) for kind in ("ld", "st"))
    return Usage(
        registers=int(resources["REG"]),
        stack=int(resources["STACK"]) + int(resources["LOCAL"]),
        shared=kernel.metadata.shared,
        **_counted(loads, stores, r"\.(?:v4\.[bfu]32|v2\.[bfu]64|v8\.[bfu]32|v4\.[bfu]64)$"),
        atomics=tuple(re.findall(r"\b(?:atom|red)\.\S+", ptx)),
        has_float64=bool(re.search(r"\.f64", ptx)),
    )


def _amd(kernel: Any) -> Usage:
    text = kernel.asm["amdgcn"]

    def field(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        assert found is not None, name
        return int(found.group(1))

    loads, stores = (re.findall(rf"\b(?:global|buffer)_{kind}_\w+", text) for kind in ("load", "store"))
    return Usage(
        registers=field("vgpr_count"),
        # The private segment also counts scalar registers kept in lanes of vector registers, not in memory.
        stack=field("vgpr_spill_count") + len(re.findall(r"\bscratch_(?:load|store)", text)),
        shared=kernel.metadata.shared,
        **_counted(loads, stores, "_dwordx4$"),
        atomics=tuple(re.findall(r"\b(?:global|buffer|flat)_atomic_\w+", text)),
        has_float64=bool(re.search(r"_f64\b", text)),
    )


def _counted(loads: list[str], stores: list[str], wide: str) -> dict[str, int]:
    counts = {}
    for name, found in (("loads", loads), ("stores", stores)):
        counts[f"wide_{name}"] = sum(re.search(wide, instruction) is not None for instruction in found)
        counts[f"narrow_{name}"] = len(found) - counts[f"wide_{name}"]
    return counts


def is_measured() -> bool:
    return TRITON in json.loads(BUDGETS.read_text())


def budgets() -> dict[str, dict[str, dict[str, int]]]:
    """This Triton's, or, for a version that nobody measured, the latest one's."""
    known = json.loads(BUDGETS.read_text())
    return known.get(TRITON) or known[max(known, key=lambda version: [int(n) for n in version.split(".")])]


def slack() -> int:
    """Registers that a Triton nobody measured may take beyond the nearest one's budget."""
    return 0 if is_measured() else 16


def main() -> None:
    known = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
    table: dict[str, dict[str, dict[str, int]]] = {}
    for name, variant in VARIANTS.items():
        table[name] = {}
        for label, target in TARGETS.items():
            with compiling_for(target):
                used = usage(variant())
            table[name][label] = {
                "registers": used.registers,
                "shared": used.shared,
                "wide_loads": used.wide_loads,
                "wide_stores": used.wide_stores,
                "narrow_loads": used.narrow_loads,
                "narrow_stores": used.narrow_stores,
            }
            print(name, label, used)
    known[TRITON] = table
    BUDGETS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
