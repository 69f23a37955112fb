"""Runs the functionals, the drop-in page and the wiring on the Triton kernels, in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
from interpreter import INTERPRETED, run_interpreted


@pytest.mark.skipif(INTERPRETED, reason="already under the interpreter")
@pytest.mark.timeout(960)
@pytest.mark.parametrize(
    "names",
    [
        [f"test_functional_{part}.py" for part in ("accuracy", "padding", "autograd", "operator")],
        ["test_dropin_recipes.py"],
        ["test_wiring_training.py"],
    ],
    ids=lambda names: names[0],
)
def test_under_the_interpreter(names: list[str]) -> None:
    run_interpreted([Path(__file__).parent / name for name in names])
