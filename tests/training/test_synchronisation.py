"""Between log points no step asks the device for a value, and the next batch is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any

import pytest
import torch
from graph_recorder import needs_gpu, replayed_trainer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ttsfast.config import Config
from ttsfast.data.loading import loader as loaders
from ttsfast.data.loading.batch import Batch
from ttsfast.data.loading.loader import MelLoader
from ttsfast.terms import checks
from ttsfast.training.setup import forever
from ttsfast.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeModel = Callable[[], nn.Module]

# What makes the host wait for a GPU, as operators: a value, a shape that values decide, a copy to the host.
ASKING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "is_nonzero", "equal")


class Refuse(TorchDispatchMode):
    """Raises at whatever asks for a value, wherever in torch the call was made."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[-1]
        places = [i for part in args if isinstance(part, (list, tuple)) for i in part]
        masked = any(isinstance(i, Tensor) and i.dtype == torch.bool for i in places)
        if name.startswith(ASKING) or (name.startswith("index") and masked):
            raise AssertionError(f"{func} asks for a value")
        return func(*args, **(kwargs or {}))


def test_what_asks_is_refused() -> None:
    value = torch.ones(3)
    asking: list[Callable[[], Any]] = [
        value.sum().item,
        lambda: bool(value.sum()),
        lambda: float(value[0]),
        lambda: int(value[0]),
        lambda: value[value > 0],
        lambda: torch.equal(value, value + 1),
    ]
    for ask in asking:
        with Refuse(), pytest.raises(AssertionError, match="asks for a value"):
            ask()
    with Refuse():
        torch.where(value > 0, value, 0.0).sum().isfinite()


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize("weighting", ["dwa", "uncertainty"])
def test_no_step_asks_for_a_value(
    weighting: str,
    replayed: bool,
    make_config: MakeConfig,
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reference loss: the C++ one works on the host, where its reading is no wait."""
    config = make_config(
        training__loss_backend="torch",
        training__adaptive_weighting=weighting,
        training__mel_smoothing="noise",
        training__gradient_accumulation_steps=2,
        training__attention_fade_steps=4,
        training__ema_decay=0.9,
        training__log_step=5,
    )
    with (replayed_trainer if replayed else Trainer)(config, model=make_model()) as trainer:
        # On a GPU lengths are clamped in the loss, not looked at.
        monkeypatch.setattr(checks, "check_values", lambda *_: None)
        batches = forever(trainer.loader)
        steps = [list(islice(batches, 2)) for _ in range(6)]
        trainer.optimizer_step.ratios._every = 3
        for name in ("tolist", "numpy", "cpu"):
            monkeypatch.setattr(Tensor, name, read_only_elsewhere(getattr(Tensor, name)))
        for step in steps:
            with Refuse():
                assert trainer.train_step(step)
        assert trainer.optimizer_step.ratios._figures
        with pytest.raises(AssertionError, match="a step reads"):
            trainer.monitor.read()
        with Refuse(), pytest.raises(AssertionError, match="asks for a value"):
            float(trainer.optimizer_step.guard.average)


def read_only_elsewhere(original: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse what copies to the host, but for the threads that make batches."""

    def method(tensor: Tensor, *rest: Any, **named: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise AssertionError("a step reads a tensor")
        return original(tensor, *rest, **named)

    return method


class Called(TorchDispatchMode):
    """Keeps the names of the operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_the_optimisers_are_fused(kind: str, make_config: MakeConfig, make_model: MakeModel) -> None:
    """One call for all tensors, which a flag on the device holds back: no step waits to hear of a bad one."""
    with Trainer(make_config(training__optimizer=kind), model=make_model()) as trainer:
        assert trainer.optimizers.skips_on_device
        for parameter in trainer.optimizers.parameters:
            parameter.grad = torch.ones_like(parameter)
        with Called() as called:
            trainer.optimizers.step(torch.zeros(()), torch.ones(()))
    # Decayed and other parameters are a group each.
    assert [name for name in called.names if "_fused_adam" in name] == [f"aten::_fused_{kind}_"] * 2


class FakeStream:
    """As much of a CUDA stream as the loader uses; keeps a journal."""

    def __init__(self, journal: list[str]) -> None:
        self.journal, self.device = journal, torch.device("cpu")


def test_the_next_batch_is_on_its_way_before_a_step_has_it(
    make_config: MakeConfig, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal: list[tuple[str, str]] = []

    class Staged:
        def __init__(self, host: Batch, stream: FakeStream) -> None:
            self.batch = host
            journal.append(("copy begins", host.ids[0]))

        def receive(self) -> Batch:
            journal.append(("received", self.batch.ids[0]))
            return self.batch

    monkeypatch.setattr(loaders, "_Staged", Staged)
    with Trainer(make_config(), model=make_model()) as trainer:
        loader = trainer.loader
        assert isinstance(loader, MelLoader)
        monkeypatch.setattr(loader, "_stream", FakeStream([]))
        # As on a machine where batches are made faster than steps are taken.
        monkeypatch.setattr(loader._batcher, "ready", lambda: True)
        batches: Iterator[Batch] = forever(loader)
        for _ in range(5):
            batch = next(batches)
            journal.append(("step", batch.ids[0]))
            trainer.train_step([batch])
    order = [name for kind, name in journal if kind == "step"]
    for this, following in pairwise(order):
        assert journal.index(("copy begins", following)) < journal.index(("step", this))


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param({}, marks=needs_gpu),
        pytest.param({"data__corpus_on_device": "never"}, marks=needs_gpu),
        pytest.param({"training__cuda_graphs": True}, marks=needs_gpu),
        pytest.param({"training__compile": True}, marks=needs_gpu),
    ],
)
def test_no_step_waits_for_the_gpu(setting: dict[str, Any], make_config: MakeConfig) -> None:
    config = make_config(
        **{"training__device": "cuda", "training__amp_dtype": "bf16", "training__ema_decay": 0.9, **setting}
    )
    with Trainer(config) as trainer:
        batches = forever(trainer.loader)

        def take() -> None:
            assert trainer.train_step(list(islice(batches, 2)))

        # What is compiled, allocated and recorded is so by then.
        for _ in range(60):
            take()
        counted = trainer.forward_backward.figures()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(20):
                take()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert trainer.forward_backward.figures().get("graphs") == counted.get("graphs")
