"""What the compiled kernels take, held to ``budgets.json`` without a GPU; a change shows in review."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from kernel_files import INTERPRETED

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
    offsets_are_wide(kernel.asm["ttir"])


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


_DEFINITION = re.compile(r"^\s*(%\S+)(?::\d+)? = (\S+) (.*)$")
_NARROW_POINTER = re.compile(r"tt\.addptr (%\S+), (%\S+) : (?:tensor<[^>]*>>|!tt\.ptr<\w+>), .*i32")
_DATA = ("mel", "latents", "stop", "attention")


def offsets_are_wide(ttir: str) -> None:
    """A 32-bit offset into a tensor of data may only be a lane of a tile: all else could pass 2^31."""
    defined: dict[str, tuple[str, str]] = {}
    found = 0
    for line in ttir.splitlines():
        match = _DEFINITION.match(line)
        if match is None:
            continue
        result, operation, rest = match.groups()
        defined[result] = (operation, rest)
        if operation != "tt.addptr":
            continue
        narrow = _NARROW_POINTER.search(line)
        if narrow is None:
            found += "i64" in rest
            continue
        root = _root(narrow.group(1), defined)
        if any(word in root for word in _DATA):
            assert _is_lane(narrow.group(2), defined), line
    assert found, "no 64-bit offset at all: the pattern no longer fits the compiler's output"


def _operands(name: str, defined: dict[str, tuple[str, str]]) -> list[str]:
    return re.findall(r"%[\w$.-]+", defined[name][1]) if name in defined else []


def _root(name: str, defined: dict[str, tuple[str, str]]) -> str:
    """The kernel's argument that a pointer is made from."""
    while name in defined and _operands(name, defined):
        name = _operands(name, defined)[0]
    return name


def _is_lane(name: str, defined: dict[str, tuple[str, str]]) -> bool:
    operation = defined.get(name, ("", ""))[0]
    if operation in ("tt.make_range", "arith.constant"):
        return True
    if operation in ("arith.remsi", "arith.remui"):
        # What is left of a division by a constant is smaller than it.
        return _is_lane(_operands(name, defined)[1], defined)
    passes_on = operation in ("tt.expand_dims", "tt.broadcast", "tt.splat", "arith.addi", "arith.muli")
    return passes_on and all(_is_lane(each, defined) for each in _operands(name, defined))


def test_the_check_of_offsets_finds_a_narrow_one() -> None:
    ttir = """
    %0 = tt.get_program_id x : i32
    %1 = arith.extsi %0 : i32 to i64
    %2 = tt.addptr %mel_3, %1 : !tt.ptr<f32>, i64
    %3 = arith.muli %0, %0 : i32
    %4 = tt.addptr %mel_3, %3 : !tt.ptr<f32>, i32
    """
    with pytest.raises(AssertionError, match="%4"):
        offsets_are_wide(ttir)


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
