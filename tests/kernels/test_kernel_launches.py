"""What a call launches, and with what, counted without a GPU: kernels are compiled, and a stand-in for the
driver notes each launch in place of making it."""

from __future__ import annotations

import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from interpreter import INTERPRETED

if INTERPRETED:
    pytest.skip("the interpreter launches nothing", allow_module_level=True)

import triton
from kernel_compile import BF16, SPEC, TARGETS, launching_for, tensors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ttsfast.kernels import adaptive, launch, layout, prepared
from ttsfast.kernels import counter as counters
from ttsfast.kernels.prepared import Placeholder, binder
from ttsfast.losses.triton import TritonBackend
from ttsfast.terms.spec import LossInputs
from ttsfast.terms.state import FixedWeights, StepState

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


FREE = {"empty", "empty_like", "empty_strided", "new_empty", "detach", "unbind", "select", "slice", "view"}


def leaves(inputs: LossInputs) -> list[Tensor]:
    return [t.requires_grad_() for t in layout.differentiable(inputs) if t is not None]


def step(inputs: LossInputs, scale: Any, one: Tensor, kept: bool = False) -> None:
    wanted = leaves(inputs)
    total = TritonBackend().call(SPEC, inputs, FixedWeights(WEIGHTS, STEP), None, scale).total
    torch.autograd.grad(total, wanted, one, retain_graph=kept)


@pytest.mark.parametrize("kept", [False, True])
def test_two_launches_and_nothing_of_torch(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    word = torch.zeros((), dtype=torch.int32)
    monkeypatch.setattr(launch, "counter", lambda device, compiled: word)
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


@pytest.mark.parametrize("method", ["dwa", "uncertainty"])
def test_an_update_of_the_weights_is_one_launch(method: str) -> None:
    figures = torch.ones(9)
    with launching_for(TARGETS["sm_90"]) as launched:
        for _ in range(2):
            with Operations() as operations:
                values, floors = figures[1:5], figures[5:9]
                adaptive.update_weights(STATE._replace(method=method), (True,) * 4, values, floors)
            assert operations.seen <= FREE
    assert [name for name, _ in launched] == ["update_adaptive_weights"] * 2


def flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in flat(part)]
    return [value.data_ptr() if isinstance(value, Tensor) else value]


def test_the_table_hands_over_what_the_compiler_was_given() -> None:
    inputs = tensors(terms="mel stop attention", heads=(2, 0), statistics=True)
    leaves(inputs)
    wanted = layout.differentiable(inputs)
    gradients = [None if t is None else torch.empty_like(t) for t in wanted]
    with launching_for(TARGETS["sm_90"]) as launched:
        calls = [launch.forward(SPEC, inputs, gradients, WEIGHTS, 3.0, None, STEP) for _ in range(2)]
        for each in calls:
            launch.backward(each.call, each.call.written, torch.ones(()))
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


def first_frames(inputs: LossInputs, frames: int) -> LossInputs:
    """Slices with the strides of the whole."""
    return inputs._replace(mel=(inputs.mel[0][:, :frames],), target=inputs.target[:, :frames])


MEL = tensors(terms="mel")
FOUR, COUNT = torch.ones(4), torch.zeros((), dtype=torch.int64)
STATE = StepState("dwa", FOUR, FOUR, FOUR, FOUR, COUNT, COUNT, FOUR, COUNT, True)
STATISTIC, PLACES = torch.zeros(80), torch.zeros(8, dtype=torch.int64)
ALL = tensors(terms="mel kl stop")
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "address": ({}, {"inputs": MEL._replace(target=torch.zeros(2 * 32 * 80 + 1)[1:].view(2, 32, 80))}),
    "stride": ({}, {"inputs": MEL._replace(target=torch.zeros(2, 32, 81)[:, :, :80])}),
    "bins": ({}, {"inputs": tensors(terms="mel", bins=84)}),
    "shape": ({"inputs": first_frames(MEL, 31)}, {"inputs": first_frames(MEL, 30)}),
    "dtype": ({}, {"inputs": tensors(BF16, terms="mel")}),
    "dtype of lengths": ({}, {"inputs": MEL._replace(mel_lengths=MEL.mel_lengths.int())}),
    "which statistic": (
        {"inputs": MEL._replace(mel_mean=STATISTIC)},
        {"inputs": MEL._replace(mel_std=STATISTIC)},
    ),
    "which gradient": ({"inputs": ALL, "wanted": 2}, {"inputs": ALL, "wanted": 3}),
    "no gradient": ({"wanted": 0}, {}),
    "scale on the device": ({}, {"scale": torch.ones(())}),
    "dtype of the scale": ({"scale": torch.ones(())}, {"scale": torch.ones((), dtype=torch.float64)}),
    "address of the scale": ({"scale": torch.ones(())}, {"scale": torch.ones(2)[1]}),
    "normalizer": ({}, {"normalizer": 3.0}),
    "normalizer on the device": ({"normalizer": 3.0}, {"normalizer": torch.ones(())}),
    "which is on the device": (
        {"normalizer": 3.0, "scale": torch.ones(())},
        {"normalizer": torch.ones(()), "scale": 2.0},
    ),
    "state": ({}, {"weights": STATE}),
    "method": ({"weights": STATE}, {"weights": STATE._replace(method="uncertainty")}),
    "advance": ({"weights": STATE}, {"weights": STATE._replace(advance=False)}),
    "address of the state": ({"weights": STATE}, {"weights": STATE._replace(fast=torch.ones(5)[1:])}),
    "address of the step": ({"step": PLACES[0]}, {"step": PLACES[1]}),
    "options": ({}, {"spec": replace(SPEC, mel_loss="l1")}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_layout_is_compiled_anew(change: str) -> None:
    """And the layout before it is still known."""
    with launching_for(TARGETS["sm_90"]) as launched:
        for options in (*CHANGES[change], *CHANGES[change]):
            inputs = options.get("inputs", MEL)
            gradients: list[Tensor | None] = [None] * len(layout.differentiable(inputs))
            if "wanted" in options:
                wanted = layout.differentiable(inputs)[options["wanted"]]
                assert wanted is not None
                gradients[options["wanted"]] = torch.empty_like(wanted)
            launch.forward(
                options.get("spec", SPEC),
                inputs,
                gradients,
                options.get("weights", WEIGHTS),
                options.get("normalizer"),
                options.get("scale"),
                options.get("step", STEP),
            )
        assert len(launch._plans) == 2
    through_compiler = [any(isinstance(leaf, Tensor) for leaf in _leaves(given)) for _, given in launched]
    assert through_compiler == [True, True, False, False]


def test_what_arrives_may_lie_anywhere() -> None:
    """Backward of a sum of losses hands over elements of one tensor."""
    wanted = layout.differentiable(MEL)
    gradients = [None if t is None else torch.empty_like(t) for t in wanted]
    arriving = torch.ones(8)
    with launching_for(TARGETS["sm_90"]) as launched:
        call = launch.forward(SPEC, MEL, gradients, WEIGHTS, None, None, STEP).call
        for place in (0, 1, 4, 5):
            launch.backward(call, call.written, arriving[place])
    through_compiler = [any(isinstance(leaf, Tensor) for leaf in _leaves(given)) for _, given in launched[1:]]
    assert through_compiler == [True, True, False, False]
    assert [call.written[0].data_ptr() in _leaves(given) for _, given in launched[3:]] == [True, True]


def test_fresh_gradients_take_the_places_of_those_handed_out() -> None:
    wanted = layout.differentiable(ALL)
    gradients = [None if t is None else torch.empty_like(t) for t in wanted]
    with launching_for(TARGETS["sm_90"]) as launched:
        call = launch.forward(SPEC, ALL, gradients, WEIGHTS, None, None, STEP).call
        for _ in range(2):
            fresh = [torch.empty_like(gradient) for gradient in call.written]
            launch.backward(call, fresh, torch.ones(()))
    addresses = [gradient.data_ptr() for gradient in fresh]
    handed = [leaf for leaf in _leaves(launched[-1][1]) if leaf in addresses]
    assert handed == addresses
    assert not {gradient.data_ptr() for gradient in call.written} & set(_leaves(launched[-1][1]))


def test_a_total_kept_after_backward_keeps_nothing_that_the_model_made() -> None:
    weight = torch.zeros(80, requires_grad=True)
    with launching_for(TARGETS["sm_90"]):
        # The stand-in for a driver keeps the tensors of the first launch, the table has addresses alone.
        for _ in range(2):
            inputs = MEL._replace(mel=(MEL.mel[0] * weight,))
            made = weakref.ref(inputs.mel[0])
            total = TritonBackend().call(SPEC, inputs, FixedWeights(WEIGHTS, STEP), None, None).total
            del inputs
            assert made() is not None
            total.backward()
    assert made() is None


def test_profilers_hear_of_launches_from_the_table() -> None:
    inputs = tensors(terms="mel")
    none: list[Tensor | None] = [None] * len(layout.differentiable(inputs))
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


def test_a_triton_that_nobody_knows_launches_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tensors(terms="mel")
    wanted = layout.differentiable(inputs)
    gradients = [None if t is None else torch.empty_like(t) for t in wanted]
    given = []
    for direct in (True, False):
        monkeypatch.setattr(prepared, "_DIRECT", direct)
        if not direct:
            monkeypatch.setattr(prepared, "_listeners", lambda: pytest.fail("asked for private names"))
        with launching_for(TARGETS["sm_90"]) as launched:
            for _ in range(2):
                launch.forward(SPEC, inputs, gradients, WEIGHTS, None, None, STEP)
        assert not any(isinstance(leaf, Tensor) for leaf in _leaves(launched[1][1]))
        given.append(len(_leaves(launched[1][1])))
    assert given[0] == given[1]


def test_a_torch_without_handles_of_streams_is_asked_for_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        cuda_stream = 7

    monkeypatch.setattr(prepared, "_RAW_STREAM", None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream)
    assert prepared.stream_of(torch.device("cuda", 1)) == 7
    assert prepared.stream_of(torch.device("cpu")) == 0


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __getitem__(self, grid: Any) -> Any:
            def launching(*arguments: Any, **options: Any) -> None:
                raise PermissionError(13, "Permission denied", "/readonly/.triton")

            return launching

    inputs = tensors(terms="mel")
    none: list[Tensor | None] = [None] * len(layout.differentiable(inputs))
    with launching_for(TARGETS["sm_90"]):
        monkeypatch.setattr(launch, "fused_loss", Refusing())
        with pytest.raises(RuntimeError, match=r"'/readonly/.triton'.*TRITON_CACHE_DIR"):
            launch.forward(SPEC, inputs, none, WEIGHTS, None, None, STEP)


def test_arguments_are_laid_down_once() -> None:
    class Pair(NamedTuple):
        first: Any
        second: Any

    nested = (
        Pair(Placeholder(1), (2, "x")),
        None,
        7,
        (Placeholder(0), Pair(None, Placeholder(1))),
        (3, 4),
        True,
    )
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
        monkeypatch.setattr(prepared, "_RAW_STREAM", lambda i: self.stream)
        monkeypatch.setattr(counters.torch.cuda, "current_stream", lambda device: self)
        monkeypatch.setattr(counters, "_banks", {})
        self.device = torch.device("cuda", 0)

    def record_event(self) -> str:
        return "zeroed"

    def wait_event(self, event: str) -> None:
        assert event == "zeroed"
        self.waited.append(self.stream)

    def take(self, stream: int = 0, capturing: bool = False, compiled: bool = False) -> Tensor:
        self.stream, self.capturing = stream, capturing
        return counters.counter(self.device, compiled)


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


def test_compiled_graphs_take_no_memory_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be given memory that must all be given back: words made there would not be."""
    gpu = _Device(monkeypatch)
    gpu.take(compiled=True)
    gpu.take(compiled=True)
    assert gpu.fills == 2
    assert counters._banks == {}
    word = gpu.take()
    assert gpu.fills == 3
    # From then on there is nothing to make.
    assert gpu.take(compiled=True).data_ptr() == word.data_ptr()
    assert gpu.fills == 3


def test_threads_that_ask_at_once_get_words_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        """Lets other threads run before it answers, as torch may."""

        def __getitem__(self, place: tuple[int, int]) -> int:
            time.sleep(1e-3)
            return place[0]

    gpu = _Device(monkeypatch)
    gpu.take()
    bank: Any = counters._banks[0]
    bank.words = Slow()
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda _: bank.take(), range(40)))
    assert sorted(taken) == list(range(1, 41))
