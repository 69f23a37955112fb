"""A functional on a fused backend is as near to float64 as torch is: any dtype, shape, strides and values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from functional_cases import (
    BACKEND,
    DTYPES,
    REDUCTIONS,
    SHAPE,
    TERMS,
    Case,
    assert_accurate,
    both,
    make_case,
    needs_a_fused_backend,
    reductions,
    terms,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import INTERPRETED
from loss_checks import assert_close
from strided import sliced, spread, transposed
from torch import Tensor

from ttsfast.functional import guided_attention_loss

pytestmark = needs_a_fused_backend


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@reductions
@terms
@both
def test_accuracy(term: str, reduction: str, dtype: torch.dtype, variant: int) -> None:
    assert_accurate(make_case(term, *SHAPE, variant=variant), dtype, reduction)


@pytest.mark.skipif(not INTERPRETED, reason="the test above has them")
@terms
def test_accuracy_of_sums(term: str) -> None:
    assert_accurate(make_case(term, *SHAPE, variant=1), torch.float32, "sum")


@pytest.mark.parametrize(
    ("lengths", "frames", "width"),
    [
        ((1,), 1, 1),
        ((0, 0), 5, 3),
        ((), 4, 3),
        ((0,), 0, 3),
        ((17, 11), 17, 63),
        *([] if INTERPRETED else [((16, 3, 16), 16, 80), ((65, 3), 65, 100)]),
        ((3, 5), 6, 300),
    ],
    ids=str,
)
@pytest.mark.parametrize("reduction", ["mean"] if INTERPRETED else ["none", "mean"])
@terms
def test_shapes(term: str, reduction: str, lengths: tuple[int, ...], frames: int, width: int) -> None:
    assert_accurate(make_case(term, lengths, frames, width, variant=1), torch.float32, reduction)


@pytest.mark.parametrize("change", [transposed, sliced, spread])
@pytest.mark.parametrize(
    "dtype", [torch.float32] if INTERPRETED else [torch.float32, torch.bfloat16], ids=str
)
@pytest.mark.parametrize("reduction", ["mean"] if INTERPRETED else ["none", "sum"])
@terms
def test_strides(term: str, reduction: str, dtype: torch.dtype, change: Callable[[Tensor], Tensor]) -> None:
    assert_accurate(make_case(term, (7, 13), 13, 20, variant=1), dtype, reduction, change)


@reductions
@terms
def test_expanded(term: str, reduction: str) -> None:
    def one_for_all(tensor: Tensor) -> Tensor:
        return tensor[:1].expand_as(tensor)

    case = make_case(term, (6, 6), 6, 5, poison=0.0)
    case = case._replace(inputs=tuple(one_for_all(tensor) for tensor in case.inputs))
    assert_accurate(case, torch.float32, reduction, one_for_all)


@pytest.mark.parametrize("scale", [1e-6, 10.0, 1e4])
@pytest.mark.parametrize("term", ["mel", "stop"])
@reductions
@both
def test_extreme_values(term: str, reduction: str, scale: float, variant: int) -> None:
    case = make_case(term, (9, 4, 0), 13, 8, scale=scale, variant=variant)
    assert_accurate(case, torch.float32, reduction)


@pytest.mark.skipif(INTERPRETED, reason="tests/kernels has it, in fewer launches")
@settings(max_examples=60, deadline=None)
@given(
    term=st.sampled_from(TERMS),
    lengths=st.lists(st.integers(0, 24), min_size=1, max_size=4),
    extra=st.integers(0, 9),
    width=st.integers(1, 70),
    variant=st.integers(0, 1),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(DTYPES),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_any_call(
    term: str,
    lengths: list[int],
    extra: int,
    width: int,
    variant: int,
    seed: int,
    dtype: torch.dtype,
    reduction: str,
) -> None:
    case = make_case(term, tuple(lengths), max(lengths) + extra, width, variant=variant, seed=seed)
    assert_accurate(case, dtype, reduction)


@reductions
def test_guided_attention_layouts_agree(reduction: str) -> None:
    weights = torch.rand(2, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    steps, symbols = torch.tensor([5, 2]), torch.tensor([4, 3])
    backend = "torch" if reduction == "none" else BACKEND
    with_heads, without = (
        guided_attention_loss(given, steps, symbols, reduction=reduction, backend=backend)
        for given in (weights, weights[:, 0])
    )
    assert_close(with_heads.reshape(without.shape), without, rtol=0, atol=0)


def test_every_case_is_of_its_kind() -> None:
    """The cases hold what the tests above say they hold."""
    for term in TERMS:
        case = make_case(term, (5, 2, 0), 12, 4, variant=1)
        assert isinstance(case, Case)
        values = case.run(case.leaves(torch.float64), "torch", "none")
        assert not values[case.padding()].any()
        assert values[~case.padding()].any()
