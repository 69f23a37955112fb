"""Runs the kernel tests under Triton's interpreter, in a process where nothing imported Triton before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_files import INTERPRETED, KERNEL_FILES


@pytest.mark.skipif(INTERPRETED, reason="already under the interpreter")
@pytest.mark.parametrize("name", KERNEL_FILES)
def test_under_the_interpreter(name: str) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", str(here / name)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=here.parents[1],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
