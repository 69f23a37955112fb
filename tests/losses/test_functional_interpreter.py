"""Runs the functionals, the alignment, the drop-in page and the wiring in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
from interpreter import INTERPRETED, run_interpreted

PARTS = ("accuracy", "padding", "autograd", "operator")
ALIGNMENT = ("search", "forward_sum", "dropin_alignment", "alignment_fuzz")


@pytest.mark.skipif(INTERPRETED, reason="already under the interpreter")
@pytest.mark.timeout(960)
def test_under_the_interpreter() -> None:
    names = (
        *(f"test_functional_{part}" for part in PARTS),
        "test_dropin_recipes",
        "test_wiring_training",
        "test_alignment_terms",
    )
    alignment = Path(__file__).parents[1] / "alignment"
    run_interpreted(
        [
            *(Path(__file__).parent / f"{name}.py" for name in names),
            *(alignment / f"test_{name}.py" for name in ALIGNMENT),
        ]
    )
