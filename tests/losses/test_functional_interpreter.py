"""Runs the functionals, the drop-in page and the wiring on the Triton kernels, in Triton's interpreter.

``TRITON_INTERPRET=1`` must be set before Triton is first imported, so it takes a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def _version(module: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in module.__version__.split(".")[:2])


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="already under the interpreter")
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
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    if _version(triton) < (3, 7) and _version(np) >= (2, 4):
        pytest.skip("the interpreter of Triton before 3.7 does not run with numpy 2.4 or later")
    here = Path(__file__).parent
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-p",
            "no:cacheprovider",
            *(str(here / name) for name in names),
        ],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=here.parents[1],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
