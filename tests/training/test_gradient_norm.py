"""The norm of all gradients together, as the extension reads it on a CPU."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ttsfast import native
from ttsfast.training.gradients import total_norm

extension = pytest.mark.skipif(native.core is None, reason=f"no extension: {native.why_missing}")
SIZES = (1, 2, 15, 16, 17, 1023, 1025, 32767, 32768, 32769, 100_003)


def exact(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def random_tensors() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(size, generator=generator) * 10.0 ** (place - 6) for place, size in enumerate(SIZES)]


@extension
def test_the_extension_agrees_with_double_precision_and_does_not_depend_on_threads() -> None:
    tensors = [*random_tensors(), torch.randn(3, 5, 7), torch.empty(0), torch.tensor(2.0), torch.zeros(4, 0)]
    tensors.append(nn.Parameter(torch.randn(11)))
    found = []
    for threads in (1, 2, 3, 7):
        result = torch.full((), math.nan)
        assert native.with_torch().norm(tensors, result, threads)
        found.append(result)
    assert all(torch.equal(result, found[0]) for result in found)
    assert float(found[0]) == pytest.approx(exact(tensors), rel=1e-6)
    # Every element counts, the last of each tensor among them.
    for tensor in tensors[: len(SIZES)]:
        before = float(total_norm([tensor]))
        tensor[-1] += 100 * before
        assert float(total_norm([tensor])) == pytest.approx(exact([tensor]), rel=1e-5)


@extension
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows(bad: float) -> None:
    for place in (0, 16, 40_000, 100_002):
        tensors = random_tensors()
        tensors[-1][place] = bad
        assert not math.isfinite(total_norm(tensors))


@pytest.mark.parametrize(
    "unusual",
    [
        pytest.param(torch.randn(6, 4).t(), id="transposed"),
        pytest.param(torch.randn(9)[::2], id="gaps"),
        pytest.param(torch.randn(3).expand(5, 3), id="expanded"),
        pytest.param(torch.randn(2, 3, 1, 2, 2), id="five axes"),
        pytest.param(torch.randn(7, dtype=torch.float64), id="double"),
        pytest.param(torch.randn(7).bfloat16(), id="bfloat16"),
    ],
)
def test_other_tensors_are_left_to_torch(unusual: Tensor) -> None:
    tensors = [torch.randn(100), unusual]
    if native.core is not None:
        result = torch.full((), 3.0)
        assert native.with_torch().norm(tensors, result, 2) is False
        assert float(result) == 3.0
    assert float(total_norm(tensors)) == pytest.approx(exact(tensors), rel=1e-2)


def test_the_default_dtype_does_not_matter() -> None:
    tensors = random_tensors()
    torch.set_default_dtype(torch.float64)
    try:
        assert float(total_norm(tensors)) == pytest.approx(exact(tensors), rel=1e-6)
    finally:
        torch.set_default_dtype(torch.float32)


def test_nothing_has_no_length() -> None:
    assert float(total_norm([])) == 0.0
