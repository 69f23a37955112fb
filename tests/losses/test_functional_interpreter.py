"""Runs the functionals, the drop-in page and the wiring on the Triton kernels, in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
from interpreter import INTERPRETED, run_interpreted

PARTS = ("accuracy", "padding", "autograd", "operator")


@pytest.mark.skipif(INTERPRETED, reason="already under the interpreter")
@pytest.mark.timeout(960)
def test_under_the_interpreter() -> None:
    names = (*(f"test_functional_{part}" for part in PARTS), "test_dropin_recipes", "test_wiring_training")
    run_interpreted([Path(__file__).parent / f"{name}.py" for name in names])
