"""What a call launches, and with what, counted without a GPU: kernels are compiled, and a stand-in for the
driver notes each launch in place of making it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from kernel_files import INTERPRETED

if INTERPRETED:
    pytest.skip("the interpreter launches nothing", allow_module_level=True)

import triton
from kernel_compile import BF16, SPEC, TARGETS, launching_for, tensors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from ttsfast.kernels import counter as counters
from ttsfast.kernels import launch, layout
from ttsfast.kernels.starter import Slot, binder

from ttsfast.losses import triton_call
from ttsfast.losses.spec import LossInputs

WEIGHTS = torch.ones(4)
STEP = torch.zeros((), dtype=torch.int64)


class Operations(TorchDispatchMode):
    """What torch is asked to do: on a GPU, each but an allocation or a view is a launch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


FREE = {"empty", "empty_like", "empty_strided", "new_empty", "detach", "unbind", "select", "view"}


def leaves(inputs: LossInputs) -> list[Tensor]:
    return [t.requires_grad_() for t in layout.differentiable(inputs) if t is not None]


def step(inputs: LossInputs, scale: Any, one: Tensor, kept: bool = False) -> None:
    wanted = leaves(inputs)
    total = triton_call.run(SPEC, inputs, WEIGHTS, None, scale, STEP)[0].total
    torch.autograd.grad(total, wanted, one, retain_graph=kept)


@pytest.mark.parametrize("kept", [False, True])
def test_two_launches_and_nothing_of_torch(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    word = torch.zeros((), dtype=torch.int32)
    monkeypatch.setattr(launch, "counter", lambda device: word)
    inputs = tensors(BF16, terms="mel", predictions=2)
    one, scale = torch.ones(()), torch.ones(())
    with launching_for(TARGETS["sm_90"]) as launched:
        # At first through the compiler, then from the table.
        for _ in range(3):
            before = len(launched)
            with Operations() as operations:
                step(inputs, scale, one, kept)
            assert [name for name, _ in launched[before:]] == ["loss_forward", "loss_backward"]
            assert operations.seen <= FREE


def flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in flat(part)]
    return [value.data_ptr() if isinstance(value, Tensor) else value]


def test_the_table_hands_over_what_the_compiler_was_given() -> None:
    inputs = tensors(terms="mel stop attention", heads=(2, 0), statistics=True)
    leaves(inputs)
    wanted = layout.differentiable(inputs)
    gradients = layout.arrange([None if t is None else torch.empty_like(t) for t in wanted])
    with launching_for(TARGETS["sm_90"]) as launched:
        calls = [launch.forward(SPEC, inputs, gradients, WEIGHTS, 3.0, None, STEP) for _ in range(2)]
        for each in calls:
            launch.backward(each.call, gradients, torch.ones(()))
    assert len(launched) == 4
    results = [{t.data_ptr() for t in (each.total, each.report, each.integers)} for each in calls]
    for first, second in ((0, 1), (2, 3)):
        (name, slow), (again, fast) = launched[first], launched[second]
        assert name == again
        assert any(isinstance(leaf, Tensor) for group in slow for leaf in _leaves(group))
        assert not any(isinstance(leaf, Tensor) for group in fast for leaf in _leaves(group))
        a, b = flat(slow), flat(fast)
        assert len(a) == len(b)
        differing = {(x, y) for x, y in zip(a, b, strict=True) if x != y}
        # Fresh memory alone: total, report, integers; partial sums and counter, or the incoming gradient.
        assert len(differing) <= 5
        assert all(isinstance(x, int) and isinstance(y, int) for x, y in differing)
        assert len({y for _, y in differing} & results[1]) >= 2


def _leaves(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _leaves(part)] if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize("change", ["address", "stride", "dtype", "scale", "bins"])
def test_another_layout_is_compiled_anew(change: str) -> None:
    inputs = tensors(terms="mel")
    other: dict[str, Any] = {"terms": "mel"} | ({"bins": 84} if change == "bins" else {})
    changed = tensors(BF16 if change == "dtype" else torch.float32, **other)
    if change == "address":
        changed = changed._replace(target=torch.zeros(2 * 32 * 80 + 1)[1:].view(2, 32, 80))
    if change == "stride":
        changed = changed._replace(target=torch.zeros(2, 32, 81)[:, :, :80])
    with launching_for(TARGETS["sm_90"]):
        for each, scale in ((inputs, None), (changed, torch.ones(()) if change == "scale" else None)):
            none = layout.arrange([None] * len(layout.differentiable(each)))
            launch.forward(SPEC, each, none, WEIGHTS, None, scale, STEP)
        assert len(launch._plans) == 2


def test_profilers_hear_of_launches_from_the_table() -> None:
    inputs = tensors(terms="mel")
    none = layout.arrange([None] * len(layout.differentiable(inputs)))
    heard: list[str] = []

    def listen(metadata: Any) -> None:
        heard.append(metadata.get()["name"])

    with launching_for(TARGETS["sm_90"]) as launched:
        hook = triton.knobs.runtime.launch_enter_hook
        given: list[Any] = []
        driver = triton.runtime.driver._active
        plain = driver.launcher_cls
        driver.launcher_cls = lambda *source: (
            lambda *passed: (given.append(passed[6:9]), plain(*source)(*passed))
        )
        for listening in (False, False, True, False):
            if listening:
                hook.add(listen)
            try:
                launch.forward(SPEC, inputs, none, WEIGHTS, None, None, STEP)
            finally:
                hook.remove(listen)
    assert len(launched) == 4
    # The third launch alone describes itself; the first one is Triton's own, which always does.
    assert [metadata is not None for metadata, _, _ in given] == [True, False, True, False]
    metadata, enter, _ = given[2]
    hook.add(listen)
    try:
        enter(metadata)
    finally:
        hook.remove(listen)
    assert heard == ["loss_forward"]


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __getitem__(self, grid: Any) -> Any:
            def launching(*arguments: Any, **options: Any) -> None:
                raise PermissionError(13, "Permission denied", "/readonly/.triton")

            return launching

    inputs = tensors(terms="mel")
    none = layout.arrange([None] * len(layout.differentiable(inputs)))
    with launching_for(TARGETS["sm_90"]):
        monkeypatch.setattr(launch, "fused_loss", Refusing())
        with pytest.raises(RuntimeError, match=r"'/readonly/.triton'.*TRITON_CACHE_DIR"):
            launch.forward(SPEC, inputs, none, WEIGHTS, None, None, STEP)


def test_arguments_are_laid_down_once() -> None:
    class Pair(NamedTuple):
        first: Any
        second: Any

    nested = (Pair(Slot(1), (2, "x")), None, 7, (Slot(0), Pair(None, Slot(1))), (3, 4), True)
    bound = binder(nested)
    assert bound([10, 20]) == ((20, (2, "x")), None, 7, (10, (None, 20)), (3, 4), True)
    assert bound([None, 1.5]) == ((1.5, (2, "x")), None, 7, (None, (None, 1.5)), (3, 4), True)
    assert binder(())([]) == ()


class _Device:
    """What the counter asks torch for, as a device with streams answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream, self.capturing, self.fills = 0, False, 0
        self.waited: list[int] = []
        zeros = torch.zeros

        def filled(*shape: Any, dtype: torch.dtype, device: Any) -> Tensor:
            self.fills += 1
            return zeros(*shape, dtype=dtype)

        monkeypatch.setattr(counters.torch, "zeros", filled)
        monkeypatch.setattr(counters.torch.cuda, "is_current_stream_capturing", lambda: self.capturing)
        monkeypatch.setattr(
            counters.torch._C, "_cuda_getCurrentRawStream", lambda i: self.stream, raising=False
        )
        monkeypatch.setattr(counters.torch.cuda, "current_stream", lambda device: self)
        monkeypatch.setattr(counters, "_banks", {})
        self.device = torch.device("cuda", 0)

    def record_event(self) -> str:
        return "zeroed"

    def wait_event(self, event: str) -> None:
        assert event == "zeroed"
        self.waited.append(self.stream)

    def take(self, stream: int = 0, capturing: bool = False) -> Tensor:
        self.stream, self.capturing = stream, capturing
        return counters.counter(self.device)


def test_counters_cost_one_fill_for_all_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = _Device(monkeypatch)
    first = gpu.take()
    words = [gpu.take(), gpu.take(stream=7), *(gpu.take(stream=9, capturing=True) for _ in range(3))]
    assert gpu.fills == 1
    assert words[0].data_ptr() == first.data_ptr()
    # Another stream must not find what was there before the fill.
    assert gpu.waited == [0, 7]
    # A word each for another stream and for every captured launch, none of them in the line of another.
    addresses = sorted(word.data_ptr() for word in words)
    assert all(b - a >= 64 for a, b in pairwise(addresses))
    assert all(word.numel() == 1 and word.item() == 0 for word in words)


def test_counters_run_out_safely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "WORDS", 2)
    gpu = _Device(monkeypatch)
    captured_first = gpu.take(capturing=True)
    assert gpu.fills == 1
    words = [captured_first, *(gpu.take(stream=stream) for stream in range(3)), gpu.take(capturing=True)]
    assert len({word.data_ptr() for word in words}) == 5
    assert gpu.fills == 4
