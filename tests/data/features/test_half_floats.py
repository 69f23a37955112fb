"""Halves to other formats: every value, by every kind of instruction, at every alignment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsfast import native

pytestmark = pytest.mark.skipif(native.core is None, reason=native.why_missing or "the extension is there")

EVERY = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ALL = ("avx512", "f16c", "neon", "scalar")


def _implementation(name: str) -> str:
    if name not in native.core.half_implementations():
        pytest.skip(f"this processor has no {name}")
    return name


def _bits(half: np.ndarray, dtype: str) -> np.ndarray:
    """As torch converts them."""
    converted = torch.from_numpy(half).to(DTYPES[dtype])
    return converted.view(torch.int32 if dtype == "float32" else torch.int16).numpy()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL)
def test_every_half_becomes_what_torch_makes_of_it(name: str, dtype: str, streaming: bool) -> None:
    found = native.core.convert_half(EVERY, dtype, _implementation(name), streaming=streaming)
    ours, theirs = found.view(np.int32 if dtype == "float32" else np.int16), _bits(EVERY, dtype)
    nan = np.isnan(EVERY)
    assert nan.sum() == 2046
    np.testing.assert_array_equal(ours[~nan], theirs[~nan])
    if dtype == "float16":
        np.testing.assert_array_equal(ours[nan], theirs[nan])
    else:
        wide = torch.from_numpy(ours).view(DTYPES[dtype]).float()
        assert torch.isnan(wide[torch.from_numpy(nan)]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL)
def test_all_ways_give_the_bytes_of_the_plain_one(name: str, dtype: str) -> None:
    ours = native.core.convert_half(EVERY, dtype, _implementation(name), streaming=True)
    plain = native.core.convert_half(EVERY, dtype, "scalar")
    # The NaNs too, so that a batch is the same on every machine.
    assert ours.tobytes() == plain.tobytes()


@given(
    count=st.integers(0, 300),
    first=st.integers(0, 70),
    offset=st.integers(0, 63),
    dtype=st.sampled_from(list(DTYPES)),
    streaming=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_lengths_and_alignments(count: int, first: int, offset: int, dtype: str, streaming: bool) -> None:
    half = EVERY[12345 + first : 12345 + first + count]
    for name in native.core.half_implementations():
        found = native.core.convert_half(half, dtype, name, offset, streaming)
        assert found.tobytes() == _bits(half, dtype).tobytes(), name


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no abacus"):
        native.core.convert_half(EVERY, "float32", "abacus")
    with pytest.raises(ValueError, match="float64"):
        native.core.convert_half(EVERY, "float64", "scalar")
    assert native.core.half_implementations()[-1] == "scalar"
