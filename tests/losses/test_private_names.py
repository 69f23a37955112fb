"""What is asked of torch under private names errs on the safe side where a version lacks the name."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from loss_checks import make_batch
from torch import Tensor
from torch.autograd import forward_ad

from ttsfast.losses.checks import check_inputs
from ttsfast.terms import autograd

NAMES: dict[str, Any] = {
    "_get_current_graph_task_keep_graph": torch._C._autograd,
    "is_functorch_wrapped_tensor": torch._C._functorch,
    "_are_functorch_transforms_active": torch._C,
    "_is_zerotensor": Tensor,
}


def without(names: list[str]) -> Any:
    """The file as it is where torch has none of these names."""
    spec = importlib.util.spec_from_file_location("autograd_without", autograd.__file__)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            # A method of the tensors' base in C cannot be deleted, but hidden.
            if name in vars(NAMES[name]):
                patch.delattr(NAMES[name], name)
        spec.loader.exec_module(made)
    return made


ABSENT = dict.fromkeys(("step_lengths", "truncated", "prior", "mel_mean", "mel_std"))
BATCH = make_batch([6, 3], [3, 2])


def inputs(**changes: Any) -> Any:
    return check_inputs(**{**ABSENT, **BATCH, **changes}).memory()


def test_without_a_word_on_kept_graphs_they_count_as_kept() -> None:
    assert without(["_get_current_graph_task_keep_graph"]).graph_is_kept() is True


def test_transforms_are_declined() -> None:
    found: list[str | None] = []

    def ask(mel: Tensor) -> Tensor:
        found.append(without(["is_functorch_wrapped_tensor"]).why_not_plain(inputs(mel_pred=mel)))
        return mel.sum()

    torch.func.grad(ask)(torch.zeros_like(BATCH["mel_target"]))
    assert "torch.func" in (found[0] or "")
    assert without(["is_functorch_wrapped_tensor"]).why_not_plain(inputs()) is None
    neither = without(["is_functorch_wrapped_tensor", "_are_functorch_transforms_active"])
    assert "torch.func" in neither.why_not_plain(inputs())


def test_functions_are_applied_as_torch_applies_them() -> None:
    made = without(["_are_functorch_transforms_active"])

    class Double(made.FusedFunction):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, incoming: Tensor) -> Tensor:
            return 2 * incoming

    x = torch.ones(3, requires_grad=True)
    Double.apply(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0, 2.0]


def test_tensors_without_memory_are_declined() -> None:
    made = without(["_is_zerotensor"])
    zero = torch._efficientzerotensor(BATCH["mel_target"].shape, dtype=torch.float64)
    assert "lazy view" in made.why_not_plain(inputs(mel_pred=zero))
    assert made.why_not_plain(inputs()) is None


def test_forward_mode_is_taken_to_be_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not autograd.in_forward_mode()
    monkeypatch.delattr(forward_ad, "_current_level")
    assert autograd.in_forward_mode()
