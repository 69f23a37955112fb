"""The C++ backend held against the float64 reference, with torch's own error as the measure."""

from __future__ import annotations

from typing import Any

import torch
from loss_checks import leaves, make_loss
from torch import Tensor

from ttsfast import native

MISSING = native.core is None
WHY_MISSING = f"no C++ extension: {native.why_missing}"

EPSILONS = {torch.float64: 1e-14, torch.float32: 4e-7, torch.bfloat16: 4e-7, torch.float16: 4e-7}
"""Tolerance, relative to a tensor's largest element, on top of twice torch's own error. A few roundings of
the arithmetic's type: half precision is stored, never computed in."""


def cast(batch: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The same numbers as leaves of another dtype, strides kept."""

    def one(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(one(part) for part in value)
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.detach().to(dtype).requires_grad_(value.requires_grad)
        return value

    return {name: one(value) for name, value in batch.items()}


def run(batch: dict[str, Any], backend: str, grad_output: float = 1.0, **options: Any) -> dict[str, Tensor]:
    """Values, floors, total and every gradient of one training call."""
    call = {key: options.pop(key) for key in ("normalizer", "grad_scale") if key in options}
    out = make_loss(backend=backend, **options)(**batch, **call)
    result = {"total": out.total.detach(), "values": out.values, "floors": out.floor_values}
    inputs = leaves(batch)
    grads = torch.autograd.grad(
        out.total, list(inputs.values()), torch.tensor(grad_output, dtype=out.total.dtype), allow_unused=True
    )
    for (name, leaf), grad in zip(inputs.items(), grads, strict=True):
        result[f"grad {name}"] = torch.zeros_like(leaf) if grad is None else grad
        assert result[f"grad {name}"].dtype == leaf.dtype
    return result


def assert_accurate(batch: dict[str, Any], **options: Any) -> None:
    """The C++ result is no further from float64's than twice torch's own error, plus a few roundings."""
    dtype = next(iter(leaves(batch).values())).dtype
    truth = run(cast(batch, torch.float64), "torch", **options)
    usual = run(batch, "torch", **options)
    ours = run(batch, "cpp", **options)
    seen = 0
    for name, expected in truth.items():
        actual, theirs = ours[name].double(), usual[name].double()
        assert actual.shape == expected.shape, name
        if expected.numel() == 0:
            continue
        assert not expected.isnan().any(), f"{name}: NaN in the expectation"
        assert not actual.isnan().any(), f"{name}: NaN in the result"
        seen += int(expected.count_nonzero())
        allowed = 2 * (theirs - expected).abs().max() + EPSILONS[dtype] * expected.abs().max()
        error = (actual - expected).abs().max()
        assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"
        # What is exactly zero (padding) must be exactly zero.
        assert not actual[(expected == 0) & (theirs == 0)].any(), f"{name}: not zero where it must be"
    valid = int(batch["mel_lengths"].sum())
    assert seen > 0 or valid == 0, "everything is zero: nothing is shown"


def assert_same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Bitwise equal, NaN included."""
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].data_ptr() != second[name].data_ptr() or first[name].numel() == 0
        a, b = (part.detach().reshape(-1).view(torch.uint8) for part in (first[name], second[name]))
        assert torch.equal(a, b), name
