"""Triton's interpreter, which runs the kernels in Python: whether it does in this process, and test files in
another where it does.

``TRITON_INTERPRET=1`` must be set before Triton is first imported.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def run_interpreted(files: Sequence[Path]) -> None:
    """Run them, and fail with their output where they fail."""
    triton = pytest.importorskip("triton", "3.6", reason="Triton is not installed")
    if _version(triton) < (3, 7) and _version(np) >= (2, 4):
        pytest.skip("the interpreter of Triton before 3.7 does not run with numpy 2.4 or later")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *map(str, files)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def _version(module: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in module.__version__.split(".")[:2])


class _NothingToRestore:
    def restore(self) -> None:
        pass


def _patch_each_function_once() -> None:
    """Spare the interpreter most of its work: at each call of a device function it looks through all of
    ``triton.language`` for builtins to replace, and after each launch it puts them back.

    A process that interprets compiles nothing, so they may stay. A Triton that does this otherwise is left
    alone, and takes twice as long.
    """
    from triton.runtime import interpreter

    patch = getattr(interpreter, "_patch_lang", None)
    if patch is None:
        return

    @functools.cache
    def patch_once(function: Any) -> _NothingToRestore:
        patch(function)
        return _NothingToRestore()

    interpreter._patch_lang = patch_once


if INTERPRETED:
    _patch_each_function_once()
