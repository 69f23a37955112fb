"""What the compiled kernels take, held to ``budgets.json`` without a GPU; a change shows in review."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from interpreter import INTERPRETED

if INTERPRETED:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import kernel_compile as compiled
from kernel_compile import TARGETS, VARIANTS, Usage

# These take about a minute together; the others run with -m slow.
QUICK = {
    ("mel-f32", "sm_90"),
    ("mel-bf16-100", "sm_90"),
    ("mel-pair-transposed-f32", "sm_90"),
    ("all-f32", "sm_80"),
    ("all-f32", "sm_90"),
    ("all-f32", "sm_100"),
    ("all-f32", "gfx942"),
    ("all-bf16", "sm_90"),
    ("all-options-f32", "sm_90"),
    ("all-options-f16", "sm_90"),
    ("backward-f32", "sm_90"),
    ("backward-bf16", "gfx942"),
}


def _cases() -> list[Any]:
    return [
        pytest.param(name, target, id=f"{name}-{target}", marks=[] if quick else pytest.mark.slow)
        for name in VARIANTS
        for target in TARGETS
        for quick in [(name, target) in QUICK]
    ]


@pytest.mark.parametrize(("name", "target"), _cases())
def test_budget(name: str, target: str) -> None:
    with compiled.compiling_for(TARGETS[target]):
        kernel = VARIANTS[name]()
    check(name, target, compiled.usage(kernel))


def check(name: str, target: str, used: Usage) -> None:
    assert used.stack == 0
    assert not used.has_float64
    # The forward kernel counts its programs in, once; nothing adds numbers atomically.
    expected = 0 if name.startswith("backward") else 1
    assert len(used.atomics) == expected
    assert all("add.u32" in atomic or atomic.endswith("atomic_add") for atomic in used.atomics)
    budget = compiled.budgets()[name][target]
    assert used.registers <= budget["registers"] + compiled.slack()
    assert used.shared <= budget["shared"]
    assert used.wide_loads >= budget["wide_loads"]
    assert used.wide_stores >= budget["wide_stores"]
    assert used.narrow_loads <= budget["narrow_loads"]
    assert used.narrow_stores <= budget["narrow_stores"]
    if name.startswith("backward") and target.startswith("sm") and "f16" not in name:
        # It stores gradients alone, all of them 16 bytes at a time.
        assert used.narrow_stores == 0


def test_the_check_of_budgets_finds_each_excess() -> None:
    """Planted: a spill, a double, a float atomic, too many registers, narrow accesses."""
    target = "sm_90"
    budget = compiled.budgets()["all-f32"][target]
    good = Usage(stack=0, atomics=("atom.global.gpu.acq_rel.add.u32",), has_float64=False, **budget)
    check("all-f32", target, good)
    worse: list[dict[str, Any]] = [
        {"stack": 8},
        {"has_float64": True},
        {"atomics": (*good.atomics, "atom.global.add.f32")},
        {"registers": 99},
        {"wide_loads": good.wide_loads - 1},
        {"wide_stores": good.wide_stores - 1},
        {"narrow_loads": good.narrow_loads + 1},
        {"narrow_stores": good.narrow_stores + 1},
        {"shared": good.shared + 1},
    ]
    for change in worse:
        with pytest.raises(AssertionError):
            check("all-f32", target, Usage(**{**vars(good), **change}))
