"""Runs the kernel tests under Triton's interpreter, in a process where nothing imported Triton before.

``mutants.py`` lists mistakes that these tests kill, and plants them one at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_files import INTERPRETED, KERNEL_FILES


def _version(module: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in module.__version__.split(".")[:2])


@pytest.mark.skipif(INTERPRETED, reason="already under the interpreter")
@pytest.mark.timeout(960)
@pytest.mark.parametrize("name", KERNEL_FILES)
def test_under_the_interpreter(name: str) -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    if _version(triton) < (3, 7) and _version(np) >= (2, 4):
        pytest.skip("the interpreter of Triton before 3.7 does not run with numpy 2.4 or later")
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", str(here / name)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=here.parents[1],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
