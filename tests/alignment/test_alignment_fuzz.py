"""A few of the random batches of ``bench/fuzz_alignment.py``."""

from __future__ import annotations

import pytest
from alignment_cases import BACKENDS
from alignment_fuzz import difference
from interpreter import INTERPRETED

COUNT, FRAMES, SYMBOLS = (6, 6, 5) if INTERPRETED else (30, 24, 20)


@pytest.mark.skipif(BACKENDS[0] == "torch", reason="of fused backends")
def test_as_the_reference() -> None:
    found = [difference(seed, BACKENDS[0], FRAMES, SYMBOLS) for seed in range(COUNT)]
    assert [line for line in found if line] == []
