"""Runs the kernel tests under Triton's interpreter, in a process where nothing imported Triton before.

``mutants.py`` lists mistakes that these tests kill, and plants them one at a time.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from interpreter import INTERPRETED, run_interpreted
from kernel_files import KERNEL_FILES


@pytest.mark.skipif(INTERPRETED, reason="already under the interpreter")
@pytest.mark.timeout(960)
def test_under_the_interpreter() -> None:
    run_interpreted([Path(__file__).parent / name for name in KERNEL_FILES])
